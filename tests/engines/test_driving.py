"""What drivers have in common: bugs, signals, and waits that are over."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto import ConnectionError
from gearman_proto.engines.driving import BaseCall, BaseDriver
from gearman_proto.engines.waits import Wait


class Engine:
    """An engine that writes down what it is told."""

    def __init__(self) -> None:
        self.crashes: list[Exception] = []
        self.released: list[tuple[Wait, float]] = []

    def crash(self, error: Exception) -> None:
        self.crashes.append(error)

    def release(self, wait: Wait, now: float) -> None:
        self.released.append((wait, now))


def a_wait() -> Wait:
    return Wait(None, lambda: None)


@pytest.fixture
def logged() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def driver(logged: list[tuple[Any, ...]]) -> BaseDriver[Any]:
    return BaseDriver[Any](Engine(), lambda *args: logged.append(args))


def test_a_call_of_the_engine(driver: BaseDriver[Any], logged: list[Any]) -> None:
    assert driver._tell(lambda link, now: (link, now), "link", 1.5) == ("link", 1.5)
    assert not driver.engine.crashes
    assert not logged


def test_a_bug_of_the_engine(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    assert driver._tell(broken) is None
    (error,) = driver.engine.crashes
    assert isinstance(error, ZeroDivisionError)
    assert logged == [("internal error in %s", broken.__qualname__)]


def test_what_is_no_bug_is_not_kept(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver._tell(interrupted)
    assert not driver.engine.crashes
    assert not logged


def test_a_signal_in_the_middle_of_the_engine(driver: BaseDriver[Any]) -> None:
    driver._interrupted(KeyboardInterrupt())
    (error,) = driver.engine.crashes
    assert isinstance(error, ConnectionError)
    assert str(error) == "interrupted by KeyboardInterrupt()"


def test_waits_that_are_over(driver: BaseDriver[Any]) -> None:
    waits = [a_wait() for _ in range(3)]
    driver._released.extend(waits)
    driver._release_all(2.5)
    driver._release_all(3.5)
    assert driver.engine.released == [(wait, 2.5) for wait in waits]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_call_releases_its_wait(error: type[BaseException] | None) -> None:
    released: list[Wait] = []
    wait = a_wait()
    call = BaseCall(wait, released.append)
    try:
        with call as entered:
            assert entered is call
            assert call.wait is wait
            assert not released
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert released == [wait]
