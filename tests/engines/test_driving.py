"""Tests of BaseDriver: bugs, signals, and released waits."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import pytest

from gearman_proto import ConnectionError
from gearman_proto.engines.driver import BaseDriver
from gearman_proto.engines.waits import Wait


class Engine:
    """A fake engine that records its calls, with three late links."""

    closed = False

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.waits: list[Wait] = []
        self.calls: list[tuple[Any, ...]] = []

    def abandon(self, error: Exception) -> list[Wait]:
        self.errors.append(error)
        return self.waits

    def release(self, wait: Wait, now: float) -> None:
        self.calls.append((wait, now))

    def links_to_measure(self, now: float) -> list[str]:
        self.calls.append(("late", now))
        return ["slow", "tunnel", "gone"]

    def measured(self, link: str, unacknowledged: int) -> None:
        self.calls.append((link, unacknowledged))

    def handle_timeout(self, now: float) -> None:
        self.calls.append(("time", now))


class MeasuringDriver(BaseDriver[Any]):
    def _unacknowledged(self, link: Any) -> int | None:
        return {"slow": 700, "gone": 0}.get(link)


@pytest.fixture
def logged() -> list[tuple[Any, ...]]:
    return []


class Logger(logging.Logger):
    """A logger that stores the arguments of its calls."""

    def __init__(self, logged: list[tuple[Any, ...]]) -> None:
        super().__init__("test")
        self._logged = logged

    def exception(self, *args: Any) -> None:  # type: ignore[override]
        self._logged.append(args)

    def warning(self, *args: Any) -> None:  # type: ignore[override]
        self._logged.append(args)


@pytest.fixture
def driver(logged: list[tuple[Any, ...]]) -> BaseDriver[Any]:
    return BaseDriver[Any](Engine, Logger(logged))


def broken(*_: Any) -> None:
    raise ZeroDivisionError


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_bug_in_the_engine_replaces_it(driver: BaseDriver[Any], logged: list[Any]) -> None:
    engine = driver.engine
    assert driver._tell(lambda link, now: (link, now), "link", 1.5) == ("link", 1.5)
    assert (driver.engine, logged) == (engine, [])
    assert driver._tell(broken) is None
    (error,) = engine.errors
    assert isinstance(error, ZeroDivisionError)
    assert driver.engine is not engine
    assert logged == [("internal error in %s", "broken")]
    # A posted call can have a bug too.
    engine = driver.engine
    driver._posted.append(broken)
    assert driver._do_posted(1.5)
    assert driver.engine is not engine
    assert (len(logged), len(driver._posted)) == (2, 0)


def test_notices_are_logged_once(driver: BaseDriver[Any], logged: list[Any]) -> None:
    driver.engine.notices = deque(["first", "second\n"])
    driver.log_notices()
    driver.log_notices()
    assert logged == [("%s", "first"), ("%s", "second\\n")]


def test_interrupted_engine_is_abandoned_and_replaced_unless_closed(
    driver: BaseDriver[Any], logged: list[Any]
) -> None:
    engine, woken = driver.engine, list[Any]()
    with pytest.raises(KeyboardInterrupt):
        driver._tell(interrupted)
    assert (engine.errors, logged) == ([], [])
    engine.waits.append(Wait(None, lambda: woken.append(driver.engine)))
    driver._interrupted(KeyboardInterrupt())
    assert woken == [engine]
    (error,) = engine.errors
    assert isinstance(error, ConnectionError)
    assert str(error) == "interrupted by KeyboardInterrupt()"
    last = driver.engine
    assert last is not engine
    last.closed = True
    reason = ConnectionError("the system has closed the descriptors")
    driver._interrupted(reason)
    assert (driver.engine, last.errors) == (last, [reason])


def test_released_waits_are_passed_to_the_engine_once(driver: BaseDriver[Any]) -> None:
    waits = [Wait(None, lambda: None) for _ in range(3)]
    driver._released.extend([*waits, None])  # A refused call has no Wait.
    driver._release_all(2.5)
    driver._release_all(3.5)
    assert driver.engine.calls == [(wait, 2.5) for wait in waits]


def test_posted_calls_run_in_order_even_after_an_interruption(driver: BaseDriver[Any]) -> None:
    made: list[tuple[str, float]] = []

    def last(engine: Any, now: float) -> None:
        made.append(("last", now))

    def first(engine: Any, now: float) -> None:
        made.append(("first", now))
        if len(made) == 1:
            raise KeyboardInterrupt
        driver._posted.append(last)

    assert not driver._do_posted(0.5)
    driver._posted.append(first)
    with pytest.raises(KeyboardInterrupt):
        driver._do_posted(1.5)
    assert driver._do_posted(2.5)
    assert made == [("first", 1.5), ("first", 2.5), ("last", 2.5)]
    assert not driver._do_posted(3.5)


@pytest.mark.parametrize(
    ("kind", "figures"), [(MeasuringDriver, [("slow", 700), ("gone", 0)]), (BaseDriver, [])]
)
def test_late_links_are_measured_before_timeouts(
    kind: type[BaseDriver[Any]], figures: list[Any]
) -> None:
    driver = kind(Engine, Logger([]))
    driver._expire(8.0)
    assert driver.engine.calls == [("late", 8.0), *figures, ("time", 8.0)]
