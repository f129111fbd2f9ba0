"""Threads that are safe to start where a signal handler can raise, and a worker's thread pool.

`concurrent.futures` and `threading.Thread.start` wait on Conditions. If a signal handler's
exception interrupts the entry of a Condition, the Condition stays locked, and a thread that is
starting or becoming idle hangs forever. Here, the thread that can be interrupted makes only calls
of C functions, which are atomic: it puts jobs into a queue, and starts threads by `_thread`. These
threads start the actual ones, because signal handlers never run in them.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import queue
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.handlers import reraise_from_handler

if TYPE_CHECKING:
    from collections.abc import Callable


def start_thread(name: str, function: Callable[..., object], *args: object, daemon: bool) -> None:
    """Call `function` in a new thread. At exit, Python waits for it unless it is a `daemon`.

    Raises:
        RuntimeError: The system or the sub-interpreter refuses another thread.
    """
    thread = threading.Thread(target=function, args=args, name=name)
    # Isolated sub-interpreters have no daemons: Python waits for all threads there.
    with contextlib.suppress(RuntimeError):
        thread.daemon = daemon
    first = functools.partial(_start, thread)
    # The process crashes if a sub-interpreter ends before this thread. Since 3.13, Python can wait.
    if sys.version_info >= (3, 13):
        _thread.start_joinable_thread(first, daemon=False)
    else:
        _thread.start_new_thread(first, ())


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:  # In a thread of its own, which runs no signal handlers.
        thread.run()  # The system refuses another thread, so use this one.


class Pool:
    """The threads that run the jobs of a worker with several slots.

    To end the pool, its user sets `is_finished` and puts None into `jobs`. A method could be
    interrupted by a signal handler's exception before it did anything. At exit, Python waits for
    running jobs.

    `start` starts the first thread before any job arrives. If the system refuses more threads
    later, all jobs wait for this one.

    Args:
        size: Maximum number of threads.
        work: Runs a job. It does not raise.

    Attributes:
        jobs: The queue of jobs to run.
        is_finished: True to drop the jobs that have not begun.
    """

    def __init__(self, size: int, work: Callable[[Any], object]) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.is_finished = False
        self._size = size
        self._work = work
        self._count = 0
        _pools.add(self)

    def start(self) -> None:
        """Start the first thread.

        Raises:
            RuntimeError: The system refuses another thread.
        """
        try:
            self._start_one()
        except RuntimeError as error:
            reraise_from_handler(error)
            raise RuntimeError(
                f"no thread for jobs: {error}. Raise the limit of threads (ulimit -u, or the "
                "container's pids limit), or set max_jobs=1"
            ) from error

    def do(self, job: Any) -> None:
        """Run `job` in a thread."""
        self.jobs.put(job)
        if self._count < self._size:
            try:
                self._start_one()
            except RuntimeError as error:
                reraise_from_handler(error)

    def _start_one(self) -> None:
        start_thread(f"gearman-job_{self._count + 1}", self._run, daemon=False)
        self._count += 1

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            if not self.is_finished:
                self._work(job)
            del job  # Free it now: the next job may arrive much later.
        self.jobs.put(None)  # End the other threads as well.


_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


def _end_all() -> None:
    for pool in list(_pools):
        pool.jobs.put(None)


# `atexit` is too late: Python waits for threads first. `concurrent.futures` uses this hook too.
threading._register_atexit(_end_all)  # type: ignore[attr-defined] # noqa: SLF001
