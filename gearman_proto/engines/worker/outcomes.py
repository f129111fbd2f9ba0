"""The outcomes of jobs, for every adapter.

An adapter calls or awaits the application's code and reports to this module how the call ended. The
table OUTCOMES has the packets to send and the worker's next step. The table in the documentation is
generated from it.

Only two kinds of exceptions from a callback end the worker: KeyboardInterrupt and SystemExit where
they would end the program, and the event loop's cancellation of the worker. If the worker sends no
end of a job, the server gives the job to another worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.engines.states import State
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.results import failure_events, result_event
from gearman_proto.jobs.tracking import is_deferred
from gearman_proto.records import record
from gearman_proto.wire.packets import WorkFail

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import TracebackType

    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.wire.packets import PacketEvent


class CallbackResult(State):
    """Event in the run of a callback, in the words of the documentation."""

    RETURNED = "the callback returns a value, or None"
    UNENCODABLE = "it returns a value that the encoder refuses, or one too large for a packet"
    RAISED = "it raises an Exception"
    RAISED_OTHER = "it raises GeneratorExit, a cancellation that is not the worker's, or the like"
    EXITED_IN_THREAD = "it raises KeyboardInterrupt or SystemExit, in a thread of a pool"
    EXITED = "it raises KeyboardInterrupt or SystemExit, in the thread of `work()`"
    CANCELLED = "it is cancelled, because `work()` is"
    ENDED = "it has ended the job itself, and returns or raises afterwards"
    DEFERRED = "it has called `job.defer()`, and returns"
    DROPPED = "the result of `job.defer()` is garbage-collected before it has ended the job"
    FORKED = "it returns or raises in a child that it has forked"
    LOST = "the connection to its server is lost"
    HOOK_RAISED = "a hook raises (`on_job_execute`, `on_job_complete`, `on_job_exception`)"
    LEFT_OPEN = "a hook leaves the job without an end"
    AFTER_TRUE = "`after_job` or `after_poll` returns something true"
    AFTER_FALSE = "it returns something false"
    AFTER_JOB_RAISED = "`after_job` raises"
    AFTER_POLL_RAISED = "`after_poll` raises"


class Reply(State):
    """Packets to send about the job."""

    RESULT = "WORK_COMPLETE with the result"
    FAILURE = "WORK_WARNING with the exception's text, then WORK_FAIL"
    FAIL = "WORK_FAIL"
    NOTHING = "nothing more"
    LATER = "nothing yet: the result of `job.defer()` ends it"
    GIVEN_UP = "nothing: the server gives it to another worker"


class NextStep(State):
    """Next step of the worker."""

    GO_ON = "goes on"
    STOP = "finishes the jobs that it has, and returns"
    RAISE = "finishes the jobs that it has, and raises it"
    LEAVE = "raises it at once"
    EXIT = "does not go on in the child, which ends; the parent's goes on"


@record(frozen=True)
class Outcome:
    """The packets to send, and the worker's next step."""

    sent: Reply
    then: NextStep


#: The outcome of each event.
OUTCOMES: Final[dict[CallbackResult, Outcome]] = {
    CallbackResult.RETURNED: Outcome(Reply.RESULT, NextStep.GO_ON),
    CallbackResult.UNENCODABLE: Outcome(Reply.FAILURE, NextStep.GO_ON),
    CallbackResult.RAISED: Outcome(Reply.FAILURE, NextStep.GO_ON),
    CallbackResult.RAISED_OTHER: Outcome(Reply.FAILURE, NextStep.GO_ON),
    CallbackResult.EXITED_IN_THREAD: Outcome(Reply.FAILURE, NextStep.GO_ON),
    CallbackResult.EXITED: Outcome(Reply.GIVEN_UP, NextStep.LEAVE),
    CallbackResult.CANCELLED: Outcome(Reply.GIVEN_UP, NextStep.LEAVE),
    CallbackResult.ENDED: Outcome(Reply.NOTHING, NextStep.GO_ON),
    CallbackResult.DEFERRED: Outcome(Reply.LATER, NextStep.GO_ON),
    CallbackResult.DROPPED: Outcome(Reply.FAIL, NextStep.GO_ON),
    CallbackResult.FORKED: Outcome(Reply.NOTHING, NextStep.EXIT),
    CallbackResult.LOST: Outcome(Reply.GIVEN_UP, NextStep.GO_ON),
    CallbackResult.HOOK_RAISED: Outcome(Reply.FAILURE, NextStep.GO_ON),
    CallbackResult.LEFT_OPEN: Outcome(Reply.FAIL, NextStep.GO_ON),
    CallbackResult.AFTER_TRUE: Outcome(Reply.NOTHING, NextStep.GO_ON),
    CallbackResult.AFTER_FALSE: Outcome(Reply.NOTHING, NextStep.STOP),
    CallbackResult.AFTER_JOB_RAISED: Outcome(Reply.NOTHING, NextStep.RAISE),
    CallbackResult.AFTER_POLL_RAISED: Outcome(Reply.GIVEN_UP, NextStep.LEAVE),
}


# The events after which a deferred job stays open.
_LEFT_OPEN: Final = (CallbackResult.RETURNED, CallbackResult.LEFT_OPEN)


def what_was_raised(
    error: BaseException, *, in_work: bool, is_cancelled: Callable[[], bool] | None = None
) -> CallbackResult:
    """Classify `error`, which the application's code has raised.

    Args:
        error: The exception.
        in_work: True in the thread that called `work`.
        is_cancelled: Returns whether the worker is being cancelled; None for a worker that can't
            be cancelled.
    """
    if isinstance(error, Exception):
        return CallbackResult.RAISED
    if _exits(error):
        return CallbackResult.EXITED if in_work else CallbackResult.EXITED_IN_THREAD
    if is_cancelled is not None and is_cancelled():
        return CallbackResult.CANCELLED
    return CallbackResult.RAISED_OTHER


def _exits(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):  # From a task group in the callback.
        return error.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def to_send(
    result: CallbackResult,
    job: WorkerJob,
    encoder: Any,
    value: Any,
    exceptions: bool = False,
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> list[PacketEvent]:
    """Return the packets to send about `job`, in order; none if it has ended or is deferred.

    Args:
        result: How the callback ended.
        job: The job.
        encoder: The encoder for `value`.
        value: The returned value, or the raised exception.
        exceptions: If true, send a failure as WORK_EXCEPTION, otherwise as WORK_WARNING and
            WORK_FAIL.
        max_packet_size: Size limit of a packet, in bytes.

    Raises:
        ValueError: The result is too large for a packet.
        Exception: Any exception that the encoder raises for a result.
    """
    if job.ended:
        result = CallbackResult.ENDED
    elif result in _LEFT_OPEN and is_deferred(job):
        result = CallbackResult.DEFERRED
    sent = OUTCOMES[result].sent
    if sent is Reply.RESULT:
        return [result_event(job.wire_handle, encoder, value, job.wire_task, max_packet_size)]
    if sent is Reply.FAILURE:
        return failure_events(
            job.wire_handle,
            encoder,
            value,
            exceptions=exceptions,
            max_packet_size=max_packet_size,
        )
    return [WorkFail(job.wire_handle)] if sent is Reply.FAIL else []


def leaves(
    error: BaseException, *, in_work: bool, is_cancelled: Callable[[], bool] | None = None
) -> bool:
    """Return whether `work` raises `error` at once. See `what_was_raised` for the arguments."""
    result = what_was_raised(error, in_work=in_work, is_cancelled=is_cancelled)
    return OUTCOMES[result].then is NextStep.LEAVE


class contain_errors:  # noqa: N801 - used as a function is
    """A context manager that catches exceptions of the application's code.

    Args:
        leaves: Returns whether `work` raises an exception, which is then not caught.
        raised: Gets each caught exception.
    """

    def __init__(
        self, leaves: Callable[[BaseException], bool], raised: Callable[[BaseException], object]
    ) -> None:
        self._leaves = leaves
        self._raised = raised

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None or self._leaves(error):
            return False
        self._raised(error)
        return True


class ForkGuard:
    """A context manager around the application's code that ends a forked child.

    The child has a copy of the parent's stack, but no connections and no other threads. If it
    continued, it would run the parent's cleanup code and event loop, or wait for threads that do
    not exist.

    Args:
        logger: Logs the reason, unless the child calls `sys.exit`.
        getpid: Returns the ID of this process.
        leave: Ends this process immediately, with an exit status.
        job: The job.
    """

    __slots__ = ("_getpid", "_job", "_leave", "_logger", "_pid")

    def __init__(
        self,
        logger: logging.Logger,
        getpid: Callable[[], int],
        leave: Callable[[int], object],
        job: WorkerJob,
    ) -> None:
        self._logger = logger
        self._getpid = getpid
        self._leave = leave
        self._job = job
        self._pid = getpid()

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The child also has copies of the parent's suspended coroutines. The garbage collector
        # closes them with GeneratorExit, which does not mean that the callback has ended.
        if self._getpid() == self._pid or isinstance(error, GeneratorExit):
            return
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            self._leave(error.code or 0)
            return
        self._logger.error(
            "the callback of %r was left in a child that it has forked: the child ends here; end "
            "it with os._exit(), or use multiprocessing or subprocess",
            self._job,
            exc_info=error,
        )
        self._leave(1)


class Ending:
    """The end of a job after its hooks have returned or raised.

    Args:
        job: The job.
        logger: Logs the errors of hooks.
    """

    def __init__(self, job: WorkerJob, logger: logging.Logger) -> None:
        self._job = job
        self._logger = logger
        self._result = CallbackResult.LEFT_OPEN
        self._error: BaseException | None = None

    def hook_raised(self, error: BaseException) -> None:
        """Note that a hook has raised `error` (a callback for `contain_errors`)."""
        job = self._job
        if isinstance(error, ConnectionError) and (job.ended or job.is_lost):
            self._result = CallbackResult.LOST
            self._logger.warning("%r: %s", job, error)
        else:
            self._result, self._error = CallbackResult.HOOK_RAISED, error
            self._logger.error("a hook failed for %r", job, exc_info=error)

    def to_send(
        self,
        encoder: Any,
        exceptions: bool,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> list[PacketEvent]:
        """Return the packets that end the job, if it has not ended.

        See the function `to_send` for the arguments.
        """
        if self._job.is_lost:
            self._result = CallbackResult.LOST
        events = to_send(self._result, self._job, encoder, self._error, exceptions, max_packet_size)
        if events and self._result is CallbackResult.LEFT_OPEN:
            self._logger.error("%r was left without an end: it fails", self._job)
        self._error = None  # The traceback refers to a frame that refers to this object.
        return events


def exc_info_of(error: BaseException) -> ExcInfo:
    """Return `error` as a hook receives it: type, exception, and traceback."""
    return type(error), error, error.__traceback__
