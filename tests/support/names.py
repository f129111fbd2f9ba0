"""Host names with addresses chosen by a test."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import testing
from gearman_sync.testing.sockets import socket_for

from .waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Name:
    """The resolution of one host name, controlled by a test."""

    def __init__(self) -> None:
        #: The threads that have looked up the name.
        self.threads: list[threading.Thread] = []
        #: Set by the first lookup.
        self.asked = threading.Event()
        #: Lookups wait until this event is set. It is set by default.
        self.known = threading.Event()
        self.known.set()


def resolve_to(
    monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str | tuple[str, int]
) -> Name:
    """Make `host` resolve to `addresses`, with the requested port or with ports of their own."""
    real = socket.getaddrinfo
    asked_for = Name()

    def getaddrinfo(name: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if name not in (host, host.encode()):
            return real(name, port, *args, **kwargs)
        flags = args[3] if len(args) > 3 else kwargs.get("flags", 0)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked_for.threads.append(threading.current_thread())
        asked_for.asked.set()
        wait_for(asked_for.known, "the answer of a name server")
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            found
            for address in addresses
            for found in real(
                *((address, port) if isinstance(address, str) else address), *args, **kwargs
            )
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked_for


def has_address(host: str) -> bool:
    """Return whether this machine has the loopback address, such as ::1 or 127.0.0.2."""
    with contextlib.suppress(OSError), socket_for(host) as sock:
        sock.bind((host, 0))
        return True
    return False


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Yield an address where connection attempts hang."""
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(testing.black_hole(host, port))
        except OSError as error:
            pytest.skip(str(error))
        yield address
