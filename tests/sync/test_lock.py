"""The driver's lock: its holder, and its release after any exception."""

from __future__ import annotations

import pytest

from gearman_sync._leader import Lock
from tests.support import PATIENCE, spawn


def taken(lock: Lock) -> bool:
    """Return whether another thread would have to wait for `lock`."""

    def take() -> bool:
        free: bool = lock.acquire(blocking=False)
        if free:
            lock.release()
        return not free

    return spawn(take).result(PATIENCE)


def test_sleep_is_without_the_lock() -> None:
    lock = Lock()
    with lock:
        assert lock.is_mine()
        assert taken(lock)
        assert lock.sleep(taken, lock) is False
        assert taken(lock)
    assert not lock.is_mine()
    assert not taken(lock)


def test_sleep_that_is_interrupted() -> None:
    lock = Lock()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with lock:
        with pytest.raises(KeyboardInterrupt):
            lock.sleep(interrupted)
        assert lock.is_mine()
    assert not taken(lock)


def test_if_free() -> None:
    lock = Lock()
    seen: list[bool] = []

    def look() -> None:
        seen.append(lock.is_mine())

    lock.if_free(look)
    assert seen == [True]
    assert not taken(lock)
    with lock:
        lock.if_free(look)  # This thread holds the lock.
        assert lock.is_mine()
        spawn(lock.if_free, look).result(PATIENCE)  # Another thread meets the held lock.
    assert seen == [True]
    assert not taken(lock)


@pytest.mark.parametrize("name", ["acquire", "function"])
def test_if_free_that_is_interrupted(name: str) -> None:
    """One interrupt arrives right after the lock was acquired."""

    class Interrupted(Lock):
        def acquire(self, *, blocking: bool = True) -> bool:
            assert super().acquire(blocking)
            if name == "acquire":
                raise KeyboardInterrupt
            return True

    lock = Interrupted()

    def function() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lock.if_free(function)
    assert not lock.is_mine()
