"""Tests of BaseDriver: bugs, signals, and released waits."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto import ConnectionError
from gearman_proto.engines.driver import BaseDriver
from gearman_proto.engines.waits import Wait


class Engine:
    """A fake engine that records its calls."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.errors: list[Exception] = []
        self.waits: list[Wait] = []
        self.released: list[tuple[Wait, float]] = []

    def abandon(self, error: Exception) -> list[Wait]:
        self.errors.append(error)
        return self.waits

    def release(self, wait: Wait, now: float) -> None:
        self.released.append((wait, now))


def a_wait() -> Wait:
    return Wait(None, lambda: None)


@pytest.fixture
def logged() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def driver(logged: list[tuple[Any, ...]]) -> BaseDriver[Any]:
    return BaseDriver[Any](Engine, lambda *args: logged.append(args))


def test_tell_returns_the_value_of_the_engine_call(
    driver: BaseDriver[Any], logged: list[Any]
) -> None:
    assert driver._tell(lambda link, now: (link, now), "link", 1.5) == ("link", 1.5)
    assert not driver.engine.errors
    assert not logged


def test_bug_in_the_engine_replaces_it(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    broken_engine = driver.engine
    assert driver._tell(broken) is None
    (error,) = broken_engine.errors
    assert isinstance(error, ZeroDivisionError)
    assert driver.engine is not broken_engine
    assert logged == [("internal error in %s", broken.__qualname__)]


def test_keyboard_interrupt_propagates(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver._tell(interrupted)
    assert not driver.engine.errors
    assert not logged


def test_interrupted_engine_is_abandoned_and_replaced(driver: BaseDriver[Any]) -> None:
    interrupted = driver.engine
    interrupted.waits.append(Wait(None, lambda: woken.append(driver.engine)))
    woken: list[Any] = []
    driver._interrupted(KeyboardInterrupt())
    assert woken == [interrupted]
    assert driver.engine is not interrupted
    (error,) = interrupted.errors
    assert isinstance(error, ConnectionError)
    assert str(error) == "interrupted by KeyboardInterrupt()"


def test_closed_engine_is_not_replaced() -> None:
    driver = BaseDriver[Any](lambda: Engine(closed=True), lambda *args: None)
    engine = driver.engine
    driver._interrupted(KeyboardInterrupt())
    assert driver.engine is engine


def test_released_waits_are_passed_to_the_engine_once(driver: BaseDriver[Any]) -> None:
    waits = [a_wait() for _ in range(3)]
    driver._released.extend(waits)
    driver._release_all(2.5)
    driver._release_all(3.5)
    assert driver.engine.released == [(wait, 2.5) for wait in waits]


def test_release_ignores_calls_without_a_wait(driver: BaseDriver[Any]) -> None:
    driver._released.append(None)
    driver._release_all(2.5)
    assert not driver._released
    assert not driver.engine.released


def test_posted_calls_run_in_order(driver: BaseDriver[Any], logged: list[Any]) -> None:
    made: list[tuple[str, float]] = []

    def last(engine: Any, now: float) -> None:
        made.append(("last", now))

    def first(engine: Any, now: float) -> None:
        assert engine is driver.engine
        made.append(("first", now))
        driver._posted.append(last)

    assert not driver._do_posted(1.5)
    driver._posted.append(first)
    assert driver._do_posted(2.5)
    assert made == [("first", 2.5), ("last", 2.5)]
    assert not driver._do_posted(3.5)
    assert not logged


def test_posted_call_with_a_bug_replaces_the_engine(
    driver: BaseDriver[Any], logged: list[Any]
) -> None:
    def broken(engine: Any, now: float) -> None:
        raise ZeroDivisionError

    driver._posted.append(broken)
    broken_engine = driver.engine
    assert driver._do_posted(1.5)
    (error,) = broken_engine.errors
    assert isinstance(error, ZeroDivisionError)
    assert len(logged) == 1
    assert not driver._posted


def test_interrupted_posted_call_is_not_lost(driver: BaseDriver[Any]) -> None:
    made: list[float] = []

    def interrupted(engine: Any, now: float) -> None:
        made.append(now)
        if len(made) == 1:
            raise KeyboardInterrupt

    driver._posted.append(interrupted)
    with pytest.raises(KeyboardInterrupt):
        driver._do_posted(1.5)
    assert driver._do_posted(2.5)
    assert made == [1.5, 2.5]


class LateEngine(Engine):
    """A fake engine with three late links."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def links_to_measure(self, now: float) -> list[str]:
        self.told.append(now)
        return ["slow", "tunnel", "gone"]

    def measured(self, link: str, unacknowledged: int) -> None:
        self.told.append((link, unacknowledged))

    def handle_timeout(self, now: float) -> None:
        self.told.append("time")


class MeasuringDriver(BaseDriver[Any]):
    def _unacknowledged(self, link: Any) -> int | None:
        return {"slow": 700, "gone": 0}.get(link)


@pytest.mark.parametrize(
    ("kind", "figures"),
    [(MeasuringDriver, [("slow", 700), ("gone", 0)]), (BaseDriver, [])],
)
def test_late_links_are_measured_before_timeouts(
    kind: type[BaseDriver[Any]], figures: list[Any]
) -> None:
    engine = LateEngine()
    kind(lambda: engine, lambda *_args: None)._expire(8.0)
    assert engine.told == [8.0, *figures, "time"]
