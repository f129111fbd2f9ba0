"""Host names with addresses of a test's choice."""

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
    """What has been asked for a host's addresses, and whether they are known."""

    def __init__(self) -> None:
        #: The threads that have asked.
        self.threads: list[threading.Thread] = []
        #: Set when somebody asks.
        self.asked = threading.Event()
        #: Nobody has an answer before this is set; and it is.
        self.known = threading.Event()
        self.known.set()


def resolve_to(
    monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str | tuple[str, int]
) -> Name:
    """Let `host` have `addresses`: at the port that is asked for, or at one of their own."""
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
    """Whether this machine has it: IPv6's loopback, or another one than 127.0.0.1."""
    with contextlib.suppress(OSError), socket_for(host) as sock:
        sock.bind((host, 0))
        return True
    return False


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """An address where connecting is neither refused nor ends."""
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(testing.black_hole(host, port))
        except OSError as error:
            pytest.skip(str(error))
        yield address
