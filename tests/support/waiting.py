"""Waiting for other threads and processes, with a time limit."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds after which an expected event counts as missing. No passing test waits this long, even
#: on a slow machine.
PATIENCE = 60.0


def eventually(condition: Callable[[], object], what: str = "condition") -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true")
        time.sleep(0.002)


def spawn(function: Callable[..., T], *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
    """Call `function` in a thread of its own."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=f"spawned {function!r}", daemon=True).start()
    return future


def wait_for(event: threading.Event, what: str = "event") -> None:
    """Wait until `event` is set."""
    assert event.wait(PATIENCE), f"{what} did not happen"


def deadlines_of(engine: Any) -> set[Any]:
    """Return the keys of an engine's deadlines, except heartbeats and the look for workers."""
    kept = {link for link in engine.pool.links() if link.is_up} | {engine._unserved}
    return set(engine._timers._current) - kept
