"""What wakes a sleeper in a selector, of both kinds."""

from __future__ import annotations

import os
import select
import weakref
from typing import TYPE_CHECKING

import pytest

from gearman_sync import _transport
from gearman_sync._poller import Poller
from gearman_sync._waker import ClosedWaker, EventWaker, PairWaker, Waker

if TYPE_CHECKING:
    from collections.abc import Iterator

    AnyWaker = EventWaker | PairWaker


@pytest.fixture(
    params=[
        pytest.param(
            EventWaker,
            marks=pytest.mark.skipif(not hasattr(os, "eventfd"), reason="Linux has it"),
        ),
        PairWaker,
    ]
)
def waker(request: pytest.FixtureRequest) -> Iterator[AnyWaker]:
    made: AnyWaker = request.param()
    yield made
    made.close()


def is_awake(waker: AnyWaker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_it_stays_awake_until_it_is_drained(waker: AnyWaker) -> None:
    assert not is_awake(waker)
    for _ in range(3):
        waker.wake()
        waker.wake()
        assert is_awake(waker)
        waker.drain()
        assert not is_awake(waker)


def test_nothing_blocks(waker: AnyWaker) -> None:
    waker.drain()
    for _ in range(5000):  # More than a pair has room for.
        waker.wake()
    assert is_awake(waker)
    for _ in range(5):
        waker.drain()
    assert not is_awake(waker)


def test_nothing_comes_of_a_closed_one(waker: AnyWaker) -> None:
    assert not waker.closed
    for _ in range(2):
        waker.close()
        assert waker.closed
        waker.wake()
        waker.drain()


def test_whoever_is_waking_keeps_the_descriptor_of_a_poller_that_is_closed() -> None:
    """Its number would else be that of another file, into which is written then."""
    poller = Poller()
    waker = poller.waker
    assert not isinstance(waker, ClosedWaker)
    poller.close()
    waker.wake()
    assert is_awake(waker)
    kept = weakref.ref(waker)
    del waker
    assert kept() is None
    assert not poller.is_open
    poller.waker.wake()
    poller.waker.drain()


def test_it_is_the_one_for_this_system() -> None:
    assert (Waker is EventWaker) == hasattr(os, "eventfd")


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="Linux has it")
def test_an_eventfd_that_is_full_stays_awake() -> None:
    waker = EventWaker()
    os.eventfd_write(waker.fileno(), 2**64 - 2)
    waker.wake()
    assert is_awake(waker)
    waker.close()


def test_what_nobody_has_any_more_ends_without_a_word() -> None:
    """Also where its finalizer comes before the driver's; a warning would fail this test."""
    fds = [EventWaker().fileno() if hasattr(os, "eventfd") else -1, _transport._Socket().fileno()]
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)
