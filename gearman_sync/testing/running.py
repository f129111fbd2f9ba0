"""A worker under test in the test's process: a real worker on a real server.

Outside of ``with``, `drain` calls the worker's `work` in the test's thread. Inside, a separate
thread calls `work`, in successive phases. A serving phase does jobs until it is stopped. `drain`
stops it, runs a phase that works until the queue is empty, and starts a new serving phase.
"""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from gearman_proto.address import HostSpec
from gearman_proto.surface.worker import logger
from gearman_proto.testing import runs
from gearman_sync.worker import GearmanWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from gearman_proto.testing.runs import JobRun


class WorkerUnderTest(runs.WorkerUnderTest[GearmanWorker, HostSpec]):
    """A worker that does a server's jobs in the test's process.

    Outside of ``with``, `drain` does all queued jobs in the calling thread::

        worker = WorkerUnderTest({"resize": resize}, server.address)
        upload("cat.png")  # submits a background job
        worker.drain()
        assert thumbnail_of("cat.png")

    Inside, the worker runs in a thread, so that the test can wait for results. The end of ``with``
    also drains the queue, unless the test has failed::

        with WorkerUnderTest({"resize": resize}, server.address):
            assert client.submit_job("resize", "cat.png").result == b"cat-small.png"

    As in any worker, a callback's exception fails its job. `drain` or the end of ``with`` then
    raises the exception in the test.
    """

    _worker_class = GearmanWorker
    # The thread that serves jobs inside ``with``.
    _serving: _Phase | None = None

    def drain(self) -> list[JobRun]:
        self._check_outside()
        if self._serving is not None:
            self._end_serving()
            self._serving = _Phase(self._work, self._serve())
        else:
            self._attach(self._server)
            try:
                with _alarm(self._timeout):
                    self._empty()
            except _TimedOut:
                raise self._too_late() from None
            finally:
                self._detach()
        return self._drained()

    def __enter__(self) -> Self:
        self._attach(self._server)
        self._serving = _Phase(self._work, self._serve())
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                self._end_serving()
            else:
                with contextlib.suppress(Exception):  # The test has already raised an exception.
                    self._stop()
        finally:
            self._serving = None
            self._detach()
        if error is None:
            self._drained()

    def _work(self, rounds: Iterator[object]) -> None:
        try:
            for _ in rounds:
                self.worker.work(None)
        except BaseException:
            # `drain` raises the exception too, but the test might be waiting for a result forever.
            logger.exception("the worker under test has ended")
            raise

    def _empty(self) -> None:
        deadline = time.monotonic() + self._timeout
        for _ in self._rounds(lambda: time.monotonic() > deadline):
            self.worker.work(None)

    def _stop(self) -> None:
        assert self._serving is not None
        self._stop_serving()
        self._wait(self._serving)

    def _end_serving(self) -> None:
        """End the serving phase, and empty the queue in another one."""
        self._stop()
        self._wait(_Phase(self._empty))

    def _wait(self, phase: _Phase) -> None:
        if not phase.wait(self._timeout):
            # The thread hangs and can't be ended. After the shutdown, the server gives its job to
            # another worker.
            self.worker.shutdown()
            raise self._too_late()


class _Phase:
    """A thread, and the exception that ended it."""

    def __init__(self, function: Callable[..., None], *args: object) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(function, *args), name="gearman-worker-under-test", daemon=True
        )
        self._thread.start()

    def _run(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - raised by `wait`
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Wait for the thread, and raise its exception. Return True if it ended in time."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()


class _TimedOut(KeyboardInterrupt):
    """Raised to end `work` and the callback that runs in it."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TimedOut in this thread after `seconds` seconds.

    SIGALRM can interrupt only the main thread, is not available on all systems, and has only one
    timer. If the timer is in use, it stays unchanged. In all these cases, the function does
    nothing.
    """
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
        or any(signal.getitimer(signal.ITIMER_REAL))
    ):
        yield
        return

    def on_alarm(*_: object) -> NoReturn:
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
