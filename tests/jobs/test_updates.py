"""Updates of jobs: their queues, their order and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto import events
from gearman_proto.constants import JOB_CREATED
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.updates import (
    UPDATE_COST,
    JobData,
    JobProgress,
    JobWarning,
    UpdateQueue,
)
from tests.engines.harness import World
from tests.jobs.played import Counting, played, submit

CREATED = events.JobCreated(b"H:1")


def queue_of(*values: bytes, encoder: Any = NoopEncoder) -> UpdateQueue:
    queue = UpdateQueue(encoder)
    for number, value in enumerate(values, 1):
        queue._add(number, value, len(value), is_raw=True)
    return queue


def test_queue_decodes_each_update_once_when_read() -> None:
    encoder = Counting()
    queue = queue_of(b"a", b"bb", b"ccc", encoder=encoder)
    assert repr(queue) == "<UpdateQueue of 3>"
    assert (len(queue), queue._unread, queue._first) == (3, 6, 1)
    assert encoder.decoded == []
    assert (queue[0], queue[-1], queue[0]) == ("a", "ccc", "a")
    assert encoder.decoded == [b"a", b"ccc"]
    assert queue[1:] == ["bb", "ccc"]
    assert list(queue) == ["a", "bb", "ccc"]
    assert [queue.popleft() for _ in range(3)] == ["a", "bb", "ccc"]
    assert encoder.decoded == [b"a", b"ccc", b"bb"]
    assert (len(queue), queue._unread) == (0, 0)
    assert not queue
    with pytest.raises(IndexError):
        queue.popleft()
    with pytest.raises(IndexError):
        _ = queue[0]


def test_popleft_of_undecodable_update_removes_it() -> None:
    queue = queue_of(b"bad", b"good", encoder=Counting())
    with pytest.raises(ZeroDivisionError):
        _ = queue[0]
    with pytest.raises(ZeroDivisionError):
        queue.popleft()
    assert queue.popleft() == "good"


def test_next_update_returns_all_kinds_in_order_of_arrival() -> None:
    request = World().request(encoder=Counting())
    assert next_update(request) is None
    server = submit(request)
    server.send(
        CREATED,
        events.WorkStatus(b"H:1", b"1", b"3"),
        events.WorkData(b"H:1", b"a"),
        events.WorkWarning(b"H:1", b"w"),
        events.WorkData(b"H:1", b"bad"),
        events.WorkStatus(b"H:1", b"2", b"3"),
        events.WorkData(b"H:1", b"b"),
    )
    assert list(request.status_updates) == [(1, 3), (2, 3)]
    assert list(request.warning_updates) == ["w"]
    assert len(request.data_updates) == 3
    first = [next_update(request) for _ in range(3)]
    assert first == [JobProgress(1, 3), JobData("a"), JobWarning("w")]
    with pytest.raises(ZeroDivisionError):
        next_update(request)
    assert [next_update(request) for _ in range(3)] == [JobProgress(2, 3), JobData("b"), None]
    server.send(events.WorkComplete(b"H:1", b""))
    assert next_update(request) is None


def test_update_that_another_thread_takes_meanwhile_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = played(CREATED, events.WorkData(b"H:1", b"a"), events.WorkWarning(b"H:1", b"w"))
    first = UpdateQueue._first.fget  # type: ignore[attr-defined]

    def taken(queue: UpdateQueue) -> Any:
        """Return the number of the oldest update, which the other thread takes right after that."""
        number = first(queue)
        request.data_updates._entries.clear()
        return number

    monkeypatch.setattr(UpdateQueue, "_first", property(taken))
    assert [next_update(request), next_update(request)] == [JobWarning(b"w"), None]


def test_queue_read_before_the_submit_receives_later_updates() -> None:
    request = World().request()
    queue = request.data_updates
    assert not queue
    submit(request).send(CREATED, events.WorkData(b"H:1", b"a"))
    assert request.data_updates is queue
    assert list(queue) == [b"a"]


def test_unread_updates_are_counted_until_read_and_progress_can_be_dropped() -> None:
    request = played(
        CREATED,
        events.WorkStatus(b"H:1", b"1", b"9"),
        events.WorkData(b"H:1", b"data"),
        events.WorkStatus(b"H:1", b"2", b"9"),
    )
    updates = request._gm_updates
    assert updates is not None
    assert updates.unread == 3 * UPDATE_COST + len(b"data")
    updates.drop_progress()
    assert list(request.status_updates) == [(2, 9)]
    assert updates.unread == 2 * UPDATE_COST + len(b"data")
    assert [next_update(request), next_update(request)] == [JobData(b"data"), JobProgress(2, 9)]
    assert (updates.unread, next_update(request)) == (0, None)
    updates.drop_progress()
    assert list(request.status_updates) == []


def test_status_updates_beyond_the_limit_drop_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.jobs.updates.MAX_UNREAD_PROGRESS", 3)
    progress = [events.WorkStatus(b"H:1", b"%d" % n, b"9") for n in range(5)]
    request = played(CREATED, *progress)
    assert list(request.status_updates) == [(2, 9), (3, 9), (4, 9)]
    assert request.state == JOB_CREATED
