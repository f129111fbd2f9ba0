"""Threads that are started where a signal's exception may come, and the pool of a worker's.

`concurrent.futures` and `threading.Thread.start` wait on Conditions, and a signal's exception that
hits the entry of one leaves it locked: a thread that is being started, or one that is about to be
idle, hangs for ever then. Here, the thread that may be hit does nothing but calls of C, which are
done or not: it puts jobs into a queue, and starts threads by `_thread`. It is these that start the
threads proper, since a signal's exception never comes there.
"""

from __future__ import annotations

import _thread
import contextlib
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from ._turns import is_from_handler

if TYPE_CHECKING:
    from collections.abc import Callable


def start_thread(name: str, function: Callable[..., object], *args: object, daemon: bool) -> None:
    """Call `function` in a thread. Python waits for the end of one that is no `daemon`.

    Raises:
        RuntimeError: The system, or a sub-interpreter, allows no other thread.
    """
    thread = threading.Thread(target=function, args=args, name=name)
    # Isolated sub-interpreters have no daemons: Python waits for all threads there.
    with contextlib.suppress(RuntimeError):
        thread.daemon = daemon
    _thread.start_new_thread(_start, (thread,))


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        thread.run()  # There is no room for another thread: this one will do.


class Pool:
    """The threads that do a worker's jobs when it has several slots.

    It ends when `is_over` is set and None is put into `jobs`, by who uses it: a call of a method
    might be hit by a signal's exception before it does anything. When the program ends, Python
    waits for the jobs that are being done.

    `start` starts the first thread before there is any job. If the system then allows no other
    ones, jobs wait for it.

    Args:
        size: How many threads.
        work: Does a job. It raises nothing.

    Attributes:
        jobs: What is to be done.
        is_over: Whether jobs that nobody has begun are dropped.
    """

    def __init__(self, size: int, work: Callable[[Any], object]) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.is_over = False
        self._size = size
        self._work = work
        self._count = 0
        _pools.add(self)

    def start(self) -> None:
        """Start the first thread.

        Raises:
            RuntimeError: The system allows none.
        """
        try:
            self._start_one()
        except RuntimeError as error:
            raise RuntimeError(
                f"no thread for jobs: {error}. Raise the limit of threads (ulimit -u, or the "
                "container's pids limit), or set max_jobs=1"
            ) from error

    def do(self, job: Any) -> None:
        """Have a thread do `job`."""
        self.jobs.put(job)
        if self._count < self._size:
            try:
                self._start_one()
            except RuntimeError as error:
                if is_from_handler(error):
                    raise

    def _start_one(self) -> None:
        start_thread(f"gearman-job_{self._count + 1}", self._run, daemon=False)
        self._count += 1

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            if not self.is_over:
                self._work(job)
            del job  # The next one may be long in coming.
        self.jobs.put(None)  # For the other threads.


_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


def _end_all() -> None:
    for pool in list(_pools):
        pool.jobs.put(None)


# `atexit` comes too late: Python waits for threads first. This is what `concurrent.futures` uses.
threading._register_atexit(_end_all)  # type: ignore[attr-defined] # noqa: SLF001
