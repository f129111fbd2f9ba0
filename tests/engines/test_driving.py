"""What drivers have in common: bugs, signals, and waits that are over."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto import ConnectionError
from gearman_proto.engines.driver import BaseDriver
from gearman_proto.engines.waits import Wait


class Engine:
    """An engine that writes down what it is told."""

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


def test_a_call_of_the_engine(driver: BaseDriver[Any], logged: list[Any]) -> None:
    assert driver._tell(lambda link, now: (link, now), "link", 1.5) == ("link", 1.5)
    assert not driver.engine.errors
    assert not logged


def test_a_bug_of_the_engine(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    broken_engine = driver.engine
    assert driver._tell(broken) is None
    (error,) = broken_engine.errors
    assert isinstance(error, ZeroDivisionError)
    assert driver.engine is not broken_engine
    assert logged == [("internal error in %s", broken.__qualname__)]


def test_what_is_no_bug_is_not_kept(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver._tell(interrupted)
    assert not driver.engine.errors
    assert not logged


def test_a_signal_in_the_middle_of_the_engine(driver: BaseDriver[Any]) -> None:
    interrupted = driver.engine
    interrupted.waits.append(Wait(None, lambda: woken.append(driver.engine)))
    woken: list[Any] = []
    driver._interrupted(KeyboardInterrupt())
    assert woken == [interrupted]
    assert driver.engine is not interrupted
    (error,) = interrupted.errors
    assert isinstance(error, ConnectionError)
    assert str(error) == "interrupted by KeyboardInterrupt()"


def test_a_closed_engine_gets_no_successor() -> None:
    driver = BaseDriver[Any](lambda: Engine(closed=True), lambda *args: None)
    engine = driver.engine
    driver._interrupted(KeyboardInterrupt())
    assert driver.engine is engine


def test_waits_that_are_over(driver: BaseDriver[Any]) -> None:
    waits = [a_wait() for _ in range(3)]
    driver._released.extend(waits)
    driver._release_all(2.5)
    driver._release_all(3.5)
    assert driver.engine.released == [(wait, 2.5) for wait in waits]


def test_a_call_that_never_began_has_no_wait(driver: BaseDriver[Any]) -> None:
    driver._released.append(None)
    driver._release_all(2.5)
    assert not driver._released
    assert not driver.engine.released


def test_calls_that_were_posted(driver: BaseDriver[Any], logged: list[Any]) -> None:
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


def test_a_posted_call_with_a_bug(driver: BaseDriver[Any], logged: list[Any]) -> None:
    def broken(engine: Any, now: float) -> None:
        raise ZeroDivisionError

    driver._posted.append(broken)
    broken_engine = driver.engine
    assert driver._do_posted(1.5)
    (error,) = broken_engine.errors
    assert isinstance(error, ZeroDivisionError)
    assert len(logged) == 1
    assert not driver._posted


def test_a_posted_call_that_a_signal_hits_is_not_lost(driver: BaseDriver[Any]) -> None:
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
    """One with three links that are late."""

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
def test_late_links_are_measured_before_the_time_passes(
    kind: type[BaseDriver[Any]], figures: list[Any]
) -> None:
    engine = LateEngine()
    kind(lambda: engine, lambda *_args: None)._expire(8.0)
    assert engine.told == [8.0, *figures, "time"]
