"""An address that leads nowhere."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Connections that a system may queue beyond what it was told.
_MOST = 64
# Seconds after which a connection on this host is not made.
_LATE = 0.1


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Yield an address where connecting is neither refused nor ends: that of a full backlog.

    So looks a host that is switched off, or behind a firewall.

    Args:
        host: An address of this machine.
        port: Its port; 0 for any that is free.

    Raises:
        OSError: This system's backlogs can't be filled.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(_MOST):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(_LATE)
            try:
                sock.connect(address)
            except TimeoutError:
                break
        else:
            raise OSError("this system's backlogs can't be filled")
        yield address
