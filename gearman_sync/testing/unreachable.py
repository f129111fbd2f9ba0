"""An address where connection attempts neither succeed nor fail."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Maximum number of connections that a system queues, even with a backlog of 0.
_MAX_BACKLOG = 64
# Seconds after which the backlog is considered full.
_FULL_AFTER = 0.1


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Yield an address where connecting hangs because the listener's backlog is full.

    A host that is switched off or protected by a firewall behaves like this.

    Args:
        host: An address of this machine.
        port: The port to use; 0 means any free port.

    Raises:
        OSError: The backlog can't be filled on this system.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(_MAX_BACKLOG):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(_FULL_AFTER)
            try:
                sock.connect(address)
            except TimeoutError:
                break
        else:
            raise OSError("this system's backlogs can't be filled")
        yield address
