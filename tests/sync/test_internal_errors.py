"""A bug in the engine is logged and fails all waiting calls, so that none hangs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import GearmanError
from gearman_sync.testing import Gate, ScriptedWorker, echo
from tests.support import Gearmand, spawn

from .support import wait_for_followers, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient

    StartWorker = Callable[..., ScriptedWorker]


def break_once(monkeypatch: pytest.MonkeyPatch, engine: Any, name: str) -> None:
    """Make the next call of an engine method raise."""
    works = getattr(engine, name)

    def broken(*args: Any) -> Any:
        monkeypatch.setattr(engine, name, works)
        raise ZeroDivisionError

    monkeypatch.setattr(engine, name, broken)


@pytest.mark.parametrize("name", ["connected", "data_to_send", "receive_data"])
def test_bug_during_a_submit_raises_internal_error(
    name: str,
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start_worker(gearmand.address, {task: echo})
    break_once(monkeypatch, client._gm_driver.engine, name)
    with pytest.raises(GearmanError, match="internal error: ZeroDivisionError") as raised:
        client.submit_job(task, b"")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gearman", logging.ERROR)
    assert record.exc_info
    assert client.submit_job(task, b"after").result == b"after"


@pytest.mark.parametrize("name", ["handle_timeout", "receive_data"])
def test_bug_ends_other_waiting_calls(
    name: str,
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    calls = [spawn(client.submit_job, task, b"leader")]
    wait_for_leader(client)
    calls.append(spawn(client.submit_job, task, b"follower"))
    wait_for_followers(client, 1)
    break_once(monkeypatch, client._gm_driver.engine, name)
    if name == "handle_timeout":
        calls.append(spawn(client.submit_job, task, b"timed", poll_timeout=0.01))
    else:
        gate.open.set()
    for call in calls:
        with pytest.raises(GearmanError, match="internal error: ZeroDivisionError"):
            call.result(20)
    gate.open.set()
    assert len(caplog.records) == 1
    assert client.submit_job(task, b"after").result == b"after"
