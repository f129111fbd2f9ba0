"""A worker of a simulated network whose application pulls its jobs with `grab`.

The application has `max_jobs` loops. Each one calls `grab`, does the job, ends it with `send`, and
calls `grab` again. A call ends like this:

==============================  ====================================================================
a call of `grab` returns        the application
==============================  ====================================================================
a job                           does it, and then calls `grab` again
None, at its deadline           calls `grab` again
None, after `stop`              ends this loop
ServerUnavailable               ends all loops, and starts them again after a second
==============================  ====================================================================

After `stop`, the application finishes its jobs. Then one last `grab` waits until the servers have
confirmed the results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto.checks import FOR_EVER, check_seconds
from gearman_proto.engines.waits import Wait
from gearman_proto.engines.worker.outcomes import CallbackResult

from .books import EPSILON
from .workers import WorkerNode

if TYPE_CHECKING:
    from gearman_proto.engines.worker.engine import GrabWait

    from .workers import Run

# Seconds after its deadline within which a call returns, as a grab might be unanswered.
_ONE_MORE: Final = 1.0
# Minimum timeout of a call in seconds. The loops call again at once.
_SHORTEST: Final = 0.001


class PullingNode(WorkerNode):
    """A worker that gets its jobs with `grab`, and not with `work`.

    Args:
        args: As for WorkerNode.
        grab_timeout: Timeout of each call in seconds, or None.
        options: As for WorkerNode, without `defer_time`. `max_jobs` is the number of loops.
    """

    def __init__(self, *args: Any, grab_timeout: float | None = None, **options: Any) -> None:
        if grab_timeout is not None:
            check_seconds("grab_timeout", grab_timeout, _SHORTEST, FOR_EVER)
        self.grab_timeout = grab_timeout
        super().__init__(*args, **options)

    def begin(self) -> None:
        """Register all callbacks, and pull jobs."""
        # The waiting calls, with their deadlines.
        self._grabs: dict[GrabWait, float | None] = {}
        self._was_stopped = False
        super().begin()

    def died(self) -> None:
        """Drop the calls and the jobs in progress, as their process has died."""
        super().died()
        self._grabs = {}

    def stop(self) -> None:
        """Finish the jobs in progress, and accept no others."""
        if self.subscription is not None:
            # The engine gives jobs back that no call has returned.
            self.net.books.counts["workers' losses"] += 1
            self._was_stopped = True
        super().stop()

    def _begin_work(self) -> Wait:
        if self._was_stopped:
            # After `stop`, all calls of `grab` return None until a `work` has returned.
            self._was_stopped = False
            last = self.engine.work(self.net.now, _nothing)
            last.raise_error()
            self.engine.release(last, self.net.now)
        return Wait(None, _nothing)

    def _wake(self) -> bool:
        loops = self.subscription
        if loops is None:
            return False
        net = self.net
        returned = [wait for wait in self._grabs if wait.done]
        for wait in returned:
            self._returned_from(wait, loops)
        is_leaving = self.name in net.leaving
        # A stopped worker without jobs waits for the confirmation of its results.
        most = self.max_jobs if not is_leaving else min(len(self.ends), 1)
        while loops.error is None and len(self._grabs) + len(self.runs) < most:
            self._grab()
            returned.append(next(reversed(self._grabs)))
        if not self._grabs and (loops.error or (is_leaving and not self.runs and not self.ends)):
            self._end_work()
        return bool(returned)

    def _grab(self) -> None:
        net, timeout = self.net, self.grab_timeout
        net.steps += 1
        wait = self.engine.grab(net.now, _nothing, timeout=timeout)
        self._grabs[wait] = wait.deadline
        if wait.deadline is not None:
            latest = wait.deadline + _ONE_MORE + 2 * EPSILON
            net.schedule(latest, self._check_returned, wait, latest)

    def _returned_from(self, wait: GrabWait, loops: Wait) -> None:
        """Process the end of a call of `grab`."""
        net = self.net
        deadline = self._grabs.pop(wait)
        net.steps += 2
        job = wait.take()
        self.engine.release(wait, net.now)
        if wait.error is not None:
            loops.note(wait.error)
        elif job is not None:
            self._start(job)
        elif self.name not in net.leaving and (deadline is None or net.now < deadline - EPSILON):
            net.fail(f"{self.name} was given no job before the timeout, and was not stopped")

    def _check_returned(self, wait: GrabWait, latest: float) -> None:
        if wait in self._grabs and not self.was_frozen(latest - _ONE_MORE, latest):
            self.net.fail(f"{self.name} should have returned from grab by {latest:.6f}")

    def _returned(self, run: Run, value: Any) -> None:
        self._finish(run, CallbackResult.RETURNED, value)

    def _release(self, run: Run) -> None:  # noqa: ARG002
        """Call `grab` again. The end of the job has released its slot."""
        self.pump()


def _nothing() -> None:
    """Do nothing: the node polls the calls after each event."""
