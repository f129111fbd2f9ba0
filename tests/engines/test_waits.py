"""Unit tests of Timers and Waits."""

from __future__ import annotations

import random
import weakref

import pytest

from gearman_proto.engines.timers import Timers
from gearman_proto.engines.waits import RequestsWait, Wait
from gearman_proto.errors import ConnectionError, GearmanError, ServerUnavailable
from gearman_proto.jobs.submitting import make_requests

from .harness import Bell, wakes

EXPIRED: list[object] = []


def expired(thing: object, now: float) -> None:
    EXPIRED.append(thing)


def pop_all(timers: Timers, now: float) -> list[object]:
    EXPIRED.clear()
    timers.expire(now)
    return EXPIRED.copy()


@pytest.mark.parametrize("keys", [1, 100, 10_000])
@pytest.mark.parametrize("cancels", [0.1, 0.5, 0.9])
def test_timers_behave_like_a_sorted_dict(keys: int, cancels: float) -> None:
    rng = random.Random(1)
    timers = Timers()
    deadlines: dict[int, float] = {}
    now = 0.0
    for _ in range(3000):
        key = rng.randrange(keys)
        if rng.random() < cancels:
            key = rng.choice([key, *list(deadlines)[:1]])
            timers.cancel(key)
            deadlines.pop(key, None)
        else:
            deadlines[key] = now + rng.random()
            timers.set(key, deadlines[key], expired)
        if rng.random() < 0.01:
            now += 0.2 * rng.random()
            over = [each for each in deadlines if deadlines[each] <= now]
            assert pop_all(timers, now) == sorted(over, key=deadlines.__getitem__)
            for each in over:
                del deadlines[each]
        assert timers.next_deadline() == min(deadlines.values(), default=None)
        assert timers.deadline(key) == deadlines.get(key)
        assert (key in timers) == (key in deadlines)
        assert len(timers) == len(deadlines)
        assert len(timers._heap) <= 2 * len(timers) + 65


def test_equal_deadlines_expire_in_the_order_of_their_setting() -> None:
    timers = Timers()
    things = [object(), object()]
    for thing in things:
        timers.set(thing, 1.0, expired)
    assert pop_all(timers, 1.0) == things


def test_timer_set_due_by_a_callback_expires_too() -> None:
    timers = Timers()
    timers.set("a", 1.0, lambda _, now: timers.set("b", now, expired))
    timers.set("c", 1.5, expired)
    assert pop_all(timers, 1.2) == ["b"]
    timers.set("d", 1.0, expired)
    timers.clear()
    assert (len(timers), timers.next_deadline(), pop_all(timers, 9.0)) == (0, None, [])


class Key:
    """A key that a weak reference can watch, with a callback of its own."""

    def expire(self, now: float) -> None:
        raise AssertionError("this deadline must not pass")


def test_replaced_deadline_holds_no_callback_and_no_key_once_cancelled() -> None:
    timers = Timers()
    key, owner = Key(), Key()
    key_ref, owner_ref = weakref.ref(key), weakref.ref(owner)
    timers.set(key, 1e9, lambda key, now, owner=owner: owner.expire(now))  # type: ignore[misc]
    timers.set(key, 2e9, expired)
    del owner
    assert owner_ref() is None
    timers.cancel(key)
    del key
    assert key_ref() is None


# Waits.


def test_wake_is_called_once() -> None:
    wait = Wait(None, Bell())
    assert not wait.ready
    wait.expire(0.0)
    wait.finish()
    wait.fail(ConnectionError("too late to matter"))
    assert wait.ready
    assert wakes(wait) == 1


@pytest.mark.parametrize(
    ("error", "kind", "match"),
    [
        (ServerUnavailable("no server"), ServerUnavailable, "^no server$"),
        (ConnectionError("lost"), ConnectionError, "^lost$"),
        (KeyError("a bug"), GearmanError, r"internal error: KeyError\('a bug'\)"),
    ],
)
def test_wait_raises_its_error(error: Exception, kind: type[Exception], match: str) -> None:
    wait = RequestsWait(make_requests([{"task": "t", "data": b""}]), None, Bell())
    wait.error = error
    with pytest.raises(kind, match=match) as caught:
        wait.raise_error()
    assert getattr(caught.value, "job_requests", wait.requests) is wait.requests
    assert isinstance(error, GearmanError) or caught.value.__cause__ is error
