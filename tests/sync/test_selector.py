"""Both kinds of selectors for socket readiness."""

from __future__ import annotations

import select
import selectors
import socket
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import _driver, _poller, _transport
from gearman_sync._selector import EpollSelector, SystemSelector

if TYPE_CHECKING:
    from gearman_sync import GearmanClient

PLAIN: tuple[Any, int, int] = (SystemSelector, selectors.EVENT_READ, selectors.EVENT_WRITE)
KINDS = [PLAIN]
if hasattr(select, "epoll"):
    KINDS.append((EpollSelector, select.EPOLLIN, select.EPOLLOUT))


@pytest.mark.parametrize("kind", KINDS)
def test_selector_reports_ready_sockets(kind: tuple[Any, int, int]) -> None:
    make, read, write = kind
    selector = make()
    near, far = socket.socketpair()
    with near, far:
        selector.register(near.fileno(), read, "near")
        assert selector.select(0) == []
        selector.modify(near.fileno(), read | write)
        assert selector.select(0) == [("near", write)]
        far.send(b"x")
        assert selector.select(None) == [("near", read | write)]
        selector.modify(near.fileno(), read)
        assert selector.select(None) == [("near", read)]
        near.recv(1)
        far.close()
        ((owner, events),) = selector.select(None)
        assert owner == "near"
        assert events != write  # The end of the connection makes the socket readable.
        selector.unregister(near.fileno())
        assert selector.select(0.001) == []
        selector.close()


def test_a_client_on_a_system_without_epoll(
    monkeypatch: pytest.MonkeyPatch, client: GearmanClient, task: str
) -> None:
    make, read, write = PLAIN
    monkeypatch.setattr(_poller, "Selector", make)
    for module in (_poller, _transport, _driver):
        monkeypatch.setattr(module, "READ", read)
        monkeypatch.setattr(module, "WRITE", write, raising=False)
    jobs = [{"task": task, "data": bytes(100_000)} for _ in range(20)]
    requests = client.submit_multiple_jobs(jobs, background=True)
    assert all(request.complete for request in requests)
    assert isinstance(client._gm_driver._poller.selector, SystemSelector)
