"""The waker of a selector's sleeper, and the descriptors of a poller."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import weakref
from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ConnectionError
from gearman_sync._poller import Poller
from gearman_sync._transport import QuietSocket
from gearman_sync._waker import ClosedWaker, Waker

from .support import limited, next_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def waker() -> Iterator[Waker]:
    with contextlib.closing(Waker()) as made:
        yield made


def is_awake(waker: Waker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_waker_stays_awake_until_it_is_drained_and_never_blocks(waker: Waker) -> None:
    waker.drain()
    assert not is_awake(waker)
    for _ in range(5000):  # The buffer of a socket pair is smaller.
        waker.wake()
    assert is_awake(waker)
    for _ in range(5):
        waker.drain()
    assert not is_awake(waker)


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
    far = waker._far.detach()
    os.close(far)
    with socket.socket() as other:
        assert other.fileno() == far
        waker._far = QuietSocket(fileno=far)
        assert not waker.is_intact
        waker.close()
        os.fstat(far)


def test_poller_opens_nothing_before_it_is_used() -> None:
    first = next_descriptor()
    poller = Poller()
    poller.waker.wake()
    poller.waker.drain()
    assert poller.refresh() is False
    assert next_descriptor() == first
    poller.close()


def test_poller_that_can_not_open_tries_again() -> None:
    poller = Poller()
    first = next_descriptor()
    for missing in range(3):
        with limited(missing), pytest.raises(ConnectionError, match="Too many open files"):
            poller.open()
        assert poller.selector is None
        assert next_descriptor() == first
    poller.open()
    assert poller.selector is not None
    poller.close()


def test_garbage_collected_sockets_close_silently() -> None:
    """The sockets' finalizers may run before the driver's. A warning would fail this test."""
    for fd in (Waker().fileno(), QuietSocket().fileno()):
        with pytest.raises(OSError):
            os.fstat(fd)
    with limited(), pytest.raises(OSError, match="Too many open files"):
        QuietSocket()
