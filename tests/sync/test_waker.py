"""The waker of a selector's sleeper, and the descriptors of a poller."""

from __future__ import annotations

import os
import resource
import select
import socket
import weakref
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ConnectionError
from gearman_sync._poller import Poller
from gearman_sync._transport import QuietSocket
from gearman_sync._waker import ClosedWaker, Waker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def waker() -> Iterator[Waker]:
    with closing(Waker()) as made:
        yield made


def is_awake(waker: Waker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_waker_stays_awake_until_it_is_drained(waker: Waker) -> None:
    assert not is_awake(waker)
    for _ in range(3):
        waker.wake()
        waker.wake()
        assert is_awake(waker)
        waker.drain()
        assert not is_awake(waker)


def test_wake_and_drain_never_block(waker: Waker) -> None:
    waker.drain()
    for _ in range(5000):  # The buffer of a socket pair is smaller.
        waker.wake()
    assert is_awake(waker)
    for _ in range(5):
        waker.drain()
    assert not is_awake(waker)


def test_closed_waker_ignores_wake_and_drain(waker: Waker) -> None:
    assert not waker.closed
    for _ in range(2):
        waker.close()
        assert waker.closed
        waker.wake()
        waker.drain()


def test_reference_to_a_waker_keeps_descriptors_of_a_closed_poller_open() -> None:
    """Otherwise the waker could write to another file that has reused the descriptor."""
    poller = Poller()
    poller.open()
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


def test_waker_whose_numbers_were_reused_closes_nothing(waker: Waker) -> None:
    assert waker.is_intact
    numbers = [waker._near.fileno(), waker._far.fileno()]
    for number in numbers:
        os.close(number)
    with open(os.devnull, "wb") as file, open(os.devnull, "wb") as other:
        assert [file.fileno(), other.fileno()] == sorted(numbers)
        assert not waker.is_intact
        waker.wake()
        waker.drain()
        waker.close()
        os.fstat(file.fileno())
        os.fstat(other.fileno())


def test_waker_is_not_intact_if_one_of_its_numbers_is_another_sockets(waker: Waker) -> None:
    assert waker.is_intact
    far = waker._far.detach()
    os.close(far)
    with socket.socket() as other:
        assert other.fileno() == far
        waker._far = QuietSocket(fileno=far)
        assert not waker.is_intact
        waker.close()
        os.fstat(far)


def test_poller_opens_nothing_before_it_is_used() -> None:
    first = os.dup(0)
    os.close(first)
    poller = Poller()
    poller.waker.wake()
    poller.waker.drain()
    assert poller.refresh() is False
    assert os.dup(0) == first
    poller.close()
    os.fstat(first)
    os.close(first)


def test_poller_that_can_not_open_tries_again() -> None:
    poller = Poller()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)
    os.close(taken)
    for missing in range(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + missing, limits[1]))
        try:
            with pytest.raises(ConnectionError, match="Too many open files"):
                poller.open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert poller.selector is None
        assert os.dup(0) == taken
        os.close(taken)
    poller.open()
    assert poller.selector is not None
    poller.close()


def test_garbage_collected_sockets_close_silently() -> None:
    """The sockets' finalizers may run before the driver's. A warning would fail this test."""
    for fd in (Waker().fileno(), QuietSocket().fileno()):
        with pytest.raises(OSError):
            os.fstat(fd)


def test_socket_that_got_no_descriptor_ends_silently() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            QuietSocket()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
