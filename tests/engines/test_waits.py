"""Unit tests of Timers and Waits."""

from __future__ import annotations

import random
import weakref

import pytest

from gearman_proto.engines.timers import Timers
from gearman_proto.engines.waits import RequestsWait, Stream, Wait
from gearman_proto.errors import ConnectionError, GearmanError, ServerUnavailable
from gearman_proto.jobs.submitting import make_requests

from .harness import Bell, wakes

EXPIRED: list[object] = []


def expired(thing: object, now: float) -> None:
    EXPIRED.append(thing)


def pop_all(timers: Timers, now: float) -> list[object]:
    assert not EXPIRED
    timers.expire(now)
    things, EXPIRED[:] = EXPIRED.copy(), []
    return things


def test_timers_expire_in_order() -> None:
    timers = Timers()
    assert timers.next_deadline() is None
    assert pop_all(timers, 1e9) == []
    for thing, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        timers.set(thing, deadline, expired)
    assert len(timers) == 3
    assert timers.next_deadline() == 1.0
    assert pop_all(timers, 0.9) == []
    assert pop_all(timers, 2.0) == ["a", "b"]
    assert timers.next_deadline() == 3.0
    assert pop_all(timers, 3.0) == ["c"]
    assert len(timers) == 0


def test_equal_deadlines_do_not_compare_keys() -> None:
    timers = Timers()
    things = [object(), object()]
    for thing in things:
        timers.set(thing, 1.0, expired)
    assert pop_all(timers, 1.0) == things


def test_timer_can_be_cancelled_and_replaced() -> None:
    timers = Timers()
    for thing, deadline in (("a", 1.0), ("b", 2.0), ("a", 4.0)):
        timers.set(thing, deadline, expired)
    assert timers.next_deadline() == 2.0
    timers.cancel("b")
    timers.cancel("b")
    timers.cancel("never set")
    assert timers.next_deadline() == 4.0
    assert pop_all(timers, 9.0) == ["a"]


class Key:
    """A key that a weak reference can watch, with a callback of its own."""

    def expire(self, now: float) -> None:
        raise AssertionError("this deadline must not pass")


def test_cancelled_deadline_holds_neither_key_nor_callback() -> None:
    timers = Timers()
    key, owner = Key(), Key()
    watched = [weakref.ref(key), weakref.ref(owner)]
    timers.set(key, 1e9, lambda key, now, owner=owner: owner.expire(now))  # type: ignore[misc]
    timers.cancel(key)
    del key, owner
    assert [ref() for ref in watched] == [None, None]


def test_replaced_deadline_holds_no_callback_and_no_key_once_cancelled() -> None:
    timers = Timers()
    key, owner = Key(), Key()
    watched = [weakref.ref(key), weakref.ref(owner)]
    timers.set(key, 1e9, lambda key, now, owner=owner: owner.expire(now))  # type: ignore[misc]
    timers.set(key, 2e9, expired)
    del owner
    assert watched[1]() is None
    timers.cancel(key)
    del key
    assert watched[0]() is None


def test_deadline_of_a_key_is_the_one_set_last() -> None:
    timers = Timers()
    assert timers.deadline("a") is None
    timers.set("a", 0.0, expired)
    assert timers.deadline("a") == 0.0
    timers.set("a", 2.0, expired)
    assert timers.deadline("a") == 2.0
    timers.cancel("a")
    assert timers.deadline("a") is None
    timers.set("a", 3.0, expired)
    assert pop_all(timers, 3.0) == ["a"]
    assert timers.deadline("a") is None


def test_cancelled_timers_use_no_memory() -> None:
    timers = Timers()
    timers.set("late", 1e9, expired)
    for number in range(10_000):
        timers.set(number, 1e6 + number, expired)
        timers.cancel(number)
    assert len(timers) == 1
    assert len(timers._heap) < 100
    assert timers.next_deadline() == 1e9


def test_cancelling_many_timers_compacts_the_heap() -> None:
    timers = Timers()
    timers.set("early", 0.0, expired)
    for number in range(10_000):
        timers.set(number, 1e6 + number, expired)
    for number in range(10_000):
        timers.cancel(number)
    assert len(timers._heap) < 100


def test_repeatedly_replaced_timer_uses_no_memory() -> None:
    timers = Timers()
    timers.set("late", 1e9, expired)
    for number in range(10_000):
        timers.set("again", 1e6 + number, expired)
        assert len(timers._heap) <= 128
    assert len(timers) == 2
    assert timers.next_deadline() == 1e6 + 9_999


def test_compaction_loses_nothing() -> None:
    rng = random.Random(1)
    timers = Timers()
    deadlines: dict[int, float] = {}
    for number in range(3000):
        deadlines[number] = rng.uniform(0, 100)
        timers.set(number, deadlines[number], expired)
        while len(deadlines) > 50 and rng.random() < 0.99:
            gone = rng.choice(list(deadlines))
            timers.cancel(gone)
            del deadlines[gone]
        assert timers.next_deadline() == min(deadlines.values())
    assert pop_all(timers, 100.0) == sorted(deadlines, key=lambda number: deadlines[number])


def test_timer_set_due_by_a_callback_expires_too() -> None:
    timers = Timers()
    timers.set("a", 1.0, lambda _, now: timers.set("b", now, expired))
    timers.set("c", 1.5, expired)
    assert pop_all(timers, 1.2) == ["b"]
    timers.set("d", 1.0, expired)
    timers.clear()
    assert (len(timers), timers.next_deadline(), pop_all(timers, 9.0)) == (0, None, [])


def test_wake_is_called_once() -> None:
    wait = Wait(None, Bell())
    assert not wait.ready
    wait.expire(0.0)
    wait.finish()
    wait.fail(ConnectionError("too late to matter"))
    assert wait.ready
    assert wakes(wait) == 1


def test_wait_ends_after_acceptance_and_end_of_its_requests() -> None:
    request = make_requests([{"task": "t", "data": b""}])[0]
    wait = RequestsWait([request], None, Bell())
    wait.unaccepted = wait.open = 2
    wait.request_accepted()
    wait.request_ended(request)
    assert not wait.done
    wait.request_accepted()
    assert not wait.done
    wait.request_ended(request)
    assert wait.done


def test_failure_ends_a_wait_once_all_are_accepted() -> None:
    request = make_requests([{"task": "t", "data": b""}])[0]
    wait = RequestsWait([request], None, Bell())
    wait.unaccepted = wait.open = 3
    first = ServerUnavailable("first")
    wait.request_failed(first)
    wait.request_ended(request)
    wait.request_accepted()
    wait.request_failed(ServerUnavailable("second"))
    wait.request_accepted()
    assert not wait.done
    wait.request_accepted()
    assert wait.done
    assert wait.open == 2
    assert wait.error is first


def test_errors() -> None:
    requests = make_requests([{"task": "t", "data": b""}])
    wait = RequestsWait(requests, None, Bell())
    wait.raise_error()
    wait.error = ServerUnavailable("no server")
    with pytest.raises(ServerUnavailable, match="no server") as info:
        wait.raise_error()
    assert info.value.job_requests is requests
    wait.error = ConnectionError("lost")
    with pytest.raises(ConnectionError, match="lost"):
        wait.raise_error()
    wait.error = KeyError("a bug")
    with pytest.raises(GearmanError, match=r"internal error: KeyError\('a bug'\)") as caught:
        wait.raise_error()
    assert caught.value.__cause__ is wait.error


def test_stream_wakes_its_caller_once_until_it_is_read() -> None:
    request = make_requests([{"task": "t", "data": b""}])[0]
    stream = Stream([request], None, Bell())
    stream.open = 2
    assert not stream.ready
    stream.tell()
    stream.tell()
    assert stream.ready
    assert wakes(stream) == 1
    stream.news = False
    stream.request_ended(request)
    assert wakes(stream) == 2
    assert not stream.done
    assert [stream.take(), stream.take()] == [request, None]
    assert not stream.ready
    stream.request_failed(ServerUnavailable("is in request.error"))
    stream.request_ended(request)
    assert stream.done
    assert stream.error is None
