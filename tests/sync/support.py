"""What a test may know of a client's insides, and of its surroundings, in one place."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

from tests.support import eventually

if TYPE_CHECKING:
    import pytest

    from gearman_sync import GearmanClient


def wait_for_leader(client: GearmanClient) -> None:
    """Wait until a thread polls the sockets."""
    eventually(lambda: client._driver._sleeping_until is not None, "polling")


def wait_for_followers(client: GearmanClient, count: int) -> None:
    """Wait until a thread polls the sockets, and `count` others sleep."""
    wait_for_leader(client)
    eventually(lambda: len(client._driver._followers) == count, f"{count} followers")


def resolve_to(
    monkeypatch: pytest.MonkeyPatch, host: str, *addresses: tuple[str, int]
) -> list[threading.Thread]:
    """Let `host` have `addresses`. Returns the threads that ask for it, as they do."""
    real = socket.getaddrinfo
    threads = []

    def getaddrinfo(name: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if name != host:
            return real(name, port, *args, **kwargs)
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        threads.append(threading.current_thread())
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [found for address in addresses for found in real(*address, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return threads
