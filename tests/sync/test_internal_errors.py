"""A bug in the engine, where it meets other threads, signals or two connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from gearman_proto.errors import ConnectionError, GearmanError
from tests.support import PATIENCE, spawn

from .support import interrupt, signalled, wait_for_leader

if TYPE_CHECKING:
    from gearman_sync import GearmanClient

    from .support import MakeClient


def break_once(monkeypatch: pytest.MonkeyPatch, engine: Any, name: str) -> None:
    """Make the next call of an engine method raise."""
    works = getattr(engine, name)

    def broken(*args: Any) -> Any:
        monkeypatch.setattr(engine, name, works)
        raise ZeroDivisionError

    monkeypatch.setattr(engine, name, broken)


def test_leader_completes_a_recovery_that_is_interrupted_each_time(
    client: GearmanClient, task: str
) -> None:
    """A signal handler's exception interrupts the main thread wherever it ends the calls."""
    call = spawn(client.submit_job, task, b"")
    wait_for_leader(client)
    driver, main = client._gm_driver, threading.get_ident()
    replace = driver._replace

    def replace_elsewhere(error: Exception) -> None:
        if threading.get_ident() == main:
            raise KeyboardInterrupt
        replace(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_replace", replace_elsewhere)
        patch.setattr(driver.engine, "submit", lambda *args, **options: interrupt())
        with pytest.raises(KeyboardInterrupt):
            client.submit_job(task, b"")
        with pytest.raises(ConnectionError, match="interrupted by"):
            call.result(PATIENCE)
    assert client.submit_job(task, b"", background=True).complete


def test_bug_in_a_call_on_top_of_the_leader_ends_both(
    client: GearmanClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader sleeps in the selector that is replaced."""

    def submit() -> None:
        with pytest.raises(GearmanError, match="internal error: ZeroDivisionError"):
            client.submit_job(task, b"")

    def handle() -> None:
        break_once(monkeypatch, client._gm_driver.engine, "receive_data")
        submit()

    with signalled(handle, lambda: wait_for_leader(client)):
        submit()
    assert client.submit_job(task, b"after", background=True).complete


def test_bug_while_two_connections_start_ends_both(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replacement of the engine closes the second one before its turn."""
    driver = make_client(("localhost", 1))._gm_driver
    engine = driver.engine
    break_once(monkeypatch, engine, "connect_failed")
    failing = mock.Mock(sockets=(), stage=None, deadline=0.0, interest=0)
    failing.start_due.side_effect = OSError("unreachable")
    for link in (object(), object()):
        driver._poller.add(link, failing)
        driver._poller.connecting.add(link)
    with driver._lock:
        driver._start_addresses(1.0)
    assert driver.engine is not engine
    assert not driver._poller.transports
