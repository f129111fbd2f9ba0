"""A call that receives the updates of many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED
from gearman_proto.errors import GearmanError
from gearman_proto.jobs.updates import (
    UPDATE_COST,
    JobData,
    JobEnded,
    JobProgress,
    JobWarning,
    UpdateQueue,
)
from gearman_proto.wire.packets import JobCreated, WorkComplete, WorkData, WorkStatus, WorkWarning

from .harness import World, wakes
from .test_client_engine import sent

if TYPE_CHECKING:
    from gearman_proto.engines.waits import Subscription
    from gearman_proto.jobs.request import GearmanJobRequest

    from .harness import Peer

DONE = JobEnded(JOB_COMPLETE, b"", None)


def running(count: int) -> tuple[World, Peer, list[GearmanJobRequest]]:
    """Return requests whose jobs H:0, H:1 and so on are running at the server."""
    world = World()
    requests = [world.request() for _ in range(count)]
    wait, server = sent(world, *requests)
    server.send(*[JobCreated(b"H:%d" % number) for number in range(count)])
    world.release(wait)
    return world, server, requests


def taken(call: Subscription) -> list[Any]:
    items = []
    while (item := call.take()) is not None:
        items.append(item)
    return items


def test_updates_and_ends_of_all_requests_are_yielded() -> None:
    world, server, (first, second) = running(2)
    server.send(WorkData(b"H:1", b"early"))
    call = world.updates([first, second, first])
    assert taken(call) == [(second, JobData(b"early"))]
    server.send(WorkStatus(b"H:0", b"1", b"2"), WorkWarning(b"H:1", b"w"), WorkData(b"H:0", b"d"))
    assert wakes(call) == 1
    assert call.ready
    # The jobs take turns. The order of one job's updates does not change.
    assert taken(call) == [
        (first, JobProgress(1, 2)),
        (second, JobWarning(b"w")),
        (first, JobData(b"d")),
    ]
    assert not call.ready
    server.send(WorkData(b"H:0", b"last"), WorkComplete(b"H:0", b""))
    assert not call.done
    assert taken(call) == [(first, JobData(b"last")), (first, DONE)]
    server.lose()
    assert call.done
    assert [update.state for _, update in taken(call)] == ["UNKNOWN"]


def test_call_times_out_for_the_remaining_requests() -> None:
    world, server, (first, second) = running(2)
    call = world.updates([first, second], timeout=5.0)
    server.send(WorkComplete(b"H:0", b""), WorkData(b"H:1", b"d"))
    world.sleep(5.0)
    assert call.timed_out
    assert taken(call) == [(first, DONE), (second, JobData(b"d"))]
    assert [request.timed_out for request in (first, second)] == [False, True]


def test_undecodable_update_does_not_disturb_the_others() -> None:
    world, server, (first, second) = running(2)

    class Refusing:
        @staticmethod
        def decode(data: bytes) -> bytes:
            if data == b"bad":
                raise ZeroDivisionError
            return data

    first._gm_encoder = Refusing
    call = world.updates([first, second])
    server.send(WorkData(b"H:0", b"bad"), WorkData(b"H:0", b"good"), WorkData(b"H:1", b"other"))
    with pytest.raises(ZeroDivisionError):
        call.take()
    assert taken(call) == [(second, JobData(b"other")), (first, JobData(b"good"))]


def test_update_that_another_thread_takes_meanwhile_is_no_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, server, (request,) = running(1)
    call = world.updates([request])
    server.send(WorkData(b"H:0", b"d"))
    first = UpdateQueue._first.fget  # type: ignore[attr-defined]

    def racing(queue: UpdateQueue) -> Any:
        number = first(queue)
        request.data_updates._entries.clear()
        return number

    monkeypatch.setattr(UpdateQueue, "_first", property(racing))
    assert taken(call) == []
    server.send(WorkComplete(b"H:0", b""))
    assert taken(call) == [(request, DONE)]


def test_crash_of_the_engine_raises_its_reason() -> None:
    world, server, requests = running(2)
    call = world.updates(requests)
    server.send(WorkData(b"H:0", b"d"))
    world.engine.abandon(GearmanError("a bug"))
    assert call.take() is None
    with pytest.raises(GearmanError, match="a bug"):
        call.raise_error()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """The limit of a call, enough for five small updates."""
    limit = 5 * UPDATE_COST + 100
    monkeypatch.setattr("gearman_proto.engines.waits.MAX_UNREAD_UPDATES", limit)
    return limit


@pytest.mark.usefixtures("limit")
def test_oldest_progress_is_dropped_first() -> None:
    world, server, (first, second) = running(2)
    call = world.updates([first, second])
    for number in range(4):
        server.send(WorkStatus(b"H:0", b"%d" % number, b"9"))
    server.send(WorkData(b"H:1", b"a"), WorkData(b"H:1", b"b"))
    assert taken(call) == [
        (first, JobProgress(3, 9)),
        (second, JobData(b"a")),
        (second, JobData(b"b")),
    ]
    assert {first.state, second.state} == {JOB_CREATED}


@pytest.mark.usefixtures("limit")
def test_then_the_request_whose_update_has_no_room_fails() -> None:
    world, server, (first, second, third) = running(3)
    call = world.updates([first, second, third])
    other = world.updates(first)
    for _ in range(5):
        server.send(WorkData(b"H:0", b"a"))
    server.send(WorkData(b"H:1", b"b"))
    assert [request.state for request in (first, second, third)] == [
        JOB_CREATED,
        JOB_FAILED,
        JOB_CREATED,
    ]
    assert "unread updates" in str(second.error)
    assert not second.data_updates  # The call keeps no more than the limit.
    # Once another thread has read them, there is room again.
    assert taken(other) == [JobData(b"a")] * 5
    server.send(WorkData(b"H:2", b"c"))
    assert taken(call) == [(second, JobEnded(JOB_FAILED)), (third, JobData(b"c"))]


def test_a_call_that_reads_has_no_limit(limit: int) -> None:
    world, server, (first, second) = running(2)
    call = world.updates([first, second])
    for _ in range(10):
        server.send(WorkData(b"H:0", bytes(limit // 2)), WorkStatus(b"H:1", b"1", b"2"))
        assert len(taken(call)) == 2
    assert {first.state, second.state} == {JOB_CREATED}
