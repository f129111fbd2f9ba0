"""How a job ends, and what goes on after it: decided here for every adapter.

An adapter calls the application's code, or awaits it, and tells this module what happened. What
comes of that is in the table OUTCOMES; the documentation's is drawn from it.

So nothing that a callback raises ends the worker, but what is the program's: KeyboardInterrupt and
SystemExit where they would end the program, and the event loop's cancellation of the worker. Where
nothing is sent and the job has no end, its server gives it to another worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.results import failure_events, result_event
from gearman_proto.records import record
from gearman_proto.wire.events import WorkFail

from .states import State

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import TracebackType

    from gearman_proto.jobs.assigned import WorkerJob
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.wire.events import PacketEvent


class Happened(State):
    """What happened, in the words of the documentation."""

    RETURNED = "the callback returns a value, or None"
    UNENCODABLE = "it returns a value that the encoder refuses, or one too large for a packet"
    RAISED = "it raises an Exception"
    RAISED_OTHER = "it raises GeneratorExit, a cancellation that is not the worker's, or the like"
    EXITED_IN_THREAD = "it raises KeyboardInterrupt or SystemExit, in a thread of a pool"
    EXITED = "it raises KeyboardInterrupt or SystemExit, in the thread of `work()`"
    CANCELLED = "it is cancelled, because `work()` is"
    ENDED = "it has ended the job itself, and returns or raises afterwards"
    FORKED = "it returns or raises in a child that it has forked"
    LOST = "the connection to its server is lost"
    HOOK_RAISED = "a hook raises (`on_job_execute`, `on_job_complete`, `on_job_exception`)"
    LEFT_OPEN = "a hook leaves the job without an end"
    AFTER_TRUE = "`after_job` or `after_poll` returns something true"
    AFTER_FALSE = "it returns something false"
    AFTER_JOB_RAISED = "`after_job` raises"
    AFTER_POLL_RAISED = "`after_poll` raises"


class Sent(State):
    """What is sent about the job."""

    RESULT = "WORK_COMPLETE with the result"
    FAILURE = "WORK_WARNING with the exception's text, then WORK_FAIL"
    FAIL = "WORK_FAIL"
    NOTHING = "nothing more"
    GIVEN_UP = "nothing: the server gives it to another worker"


class Then(State):
    """What goes on."""

    GO_ON = "goes on"
    STOP = "finishes the jobs that it has, and returns"
    RAISE = "finishes the jobs that it has, and raises it"
    LEAVE = "raises it at once"
    EXIT = "does not go on in the child, which ends; the parent's goes on"


@record(frozen=True)
class Outcome:
    """What comes of something that happened."""

    sent: Sent
    then: Then


#: What happened, what is sent then, and what the worker does.
OUTCOMES: Final[dict[Happened, Outcome]] = {
    Happened.RETURNED: Outcome(Sent.RESULT, Then.GO_ON),
    Happened.UNENCODABLE: Outcome(Sent.FAILURE, Then.GO_ON),
    Happened.RAISED: Outcome(Sent.FAILURE, Then.GO_ON),
    Happened.RAISED_OTHER: Outcome(Sent.FAILURE, Then.GO_ON),
    Happened.EXITED_IN_THREAD: Outcome(Sent.FAILURE, Then.GO_ON),
    Happened.EXITED: Outcome(Sent.GIVEN_UP, Then.LEAVE),
    Happened.CANCELLED: Outcome(Sent.GIVEN_UP, Then.LEAVE),
    Happened.ENDED: Outcome(Sent.NOTHING, Then.GO_ON),
    Happened.FORKED: Outcome(Sent.NOTHING, Then.EXIT),
    Happened.LOST: Outcome(Sent.GIVEN_UP, Then.GO_ON),
    Happened.HOOK_RAISED: Outcome(Sent.FAILURE, Then.GO_ON),
    Happened.LEFT_OPEN: Outcome(Sent.FAIL, Then.GO_ON),
    Happened.AFTER_TRUE: Outcome(Sent.NOTHING, Then.GO_ON),
    Happened.AFTER_FALSE: Outcome(Sent.NOTHING, Then.STOP),
    Happened.AFTER_JOB_RAISED: Outcome(Sent.NOTHING, Then.RAISE),
    Happened.AFTER_POLL_RAISED: Outcome(Sent.GIVEN_UP, Then.LEAVE),
}


def what_was_raised(
    error: BaseException, *, in_work: bool, is_cancelled: Callable[[], bool] | None = None
) -> Happened:
    """What it means that the application's code has raised `error`.

    Args:
        error: What was raised.
        in_work: Whether this is the thread that called `work`.
        is_cancelled: Whether the worker is being cancelled; None where it can't be.
    """
    if isinstance(error, Exception):
        return Happened.RAISED
    if _exits(error):
        return Happened.EXITED if in_work else Happened.EXITED_IN_THREAD
    if is_cancelled is not None and is_cancelled():
        return Happened.CANCELLED
    return Happened.RAISED_OTHER


def _exits(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):  # As a task group of the callback makes it.
        return error.subgroup((KeyboardInterrupt, SystemExit)) is not None
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def to_send(
    happened: Happened,
    job: WorkerJob,
    encoder: Any,
    value: Any,
    exceptions: bool = False,
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> list[PacketEvent]:
    """What to send about `job`, in this order. Nothing if it has ended.

    Args:
        happened: What happened.
        job: The job.
        encoder: What encodes the value.
        value: What was returned or raised.
        exceptions: Whether a failure is WORK_EXCEPTION, and not WORK_WARNING and WORK_FAIL.
        max_packet_size: The largest packet to send, in bytes.

    Raises:
        ValueError: The result does not fit a packet.
        Exception: Whatever the encoder raises for a result.
    """
    if job.ended:
        happened = Happened.ENDED
    sent = OUTCOMES[happened].sent
    if sent is Sent.RESULT:
        return [result_event(job.wire_handle, encoder, value, job.wire_task, max_packet_size)]
    if sent is Sent.FAILURE:
        return failure_events(
            job.wire_handle,
            encoder,
            value,
            exceptions=exceptions,
            max_packet_size=max_packet_size,
        )
    return [WorkFail(job.wire_handle)] if sent is Sent.FAIL else []


def leaves(
    error: BaseException, *, in_work: bool, is_cancelled: Callable[[], bool] | None = None
) -> bool:
    """Whether `error` leaves `work` at once. Arguments are those of `what_was_raised`."""
    happened = what_was_raised(error, in_work=in_work, is_cancelled=is_cancelled)
    return OUTCOMES[happened].then is Then.LEAVE


class Watch:
    """A ``with`` around the application's code: only what leaves `work` gets out of it.

    Args:
        leaves: Whether that is such an exception.
        raised: Gets all others.
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
    """A ``with`` around the application's code, at whose end a forked child ends too.

    The child has a copy of the parent's stack, but no connections and no other threads. If it
    continued, it would run the parent's cleanup code and event loop, or wait for threads that do
    not exist.

    Args:
        logger: Gets the reason, unless the child calls `sys.exit`.
        getpid: Returns the number of this process.
        leave: Ends this process at once, with an exit status.
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
        # closes them with GeneratorExit, which is not the end of a callback.
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
    """What is left to do about a job when its hooks have returned, or raised.

    Args:
        job: The job.
        logger: Where what is wrong with hooks is written down.
    """

    def __init__(self, job: WorkerJob, logger: logging.Logger) -> None:
        self._job = job
        self._logger = logger
        self._happened = Happened.LEFT_OPEN
        self._error: BaseException | None = None

    def hook_raised(self, error: BaseException) -> None:
        """A hook has raised `error`: for `Watch`."""
        job = self._job
        if isinstance(error, ConnectionError) and (job.ended or job.is_lost):
            self._happened = Happened.LOST
            self._logger.warning("%r: %s", job, error)
        else:
            self._happened, self._error = Happened.HOOK_RAISED, error
            self._logger.error("a hook failed for %r", job, exc_info=error)

    def to_send(
        self,
        encoder: Any,
        exceptions: bool,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> list[PacketEvent]:
        """The end of the job, if it has none. Arguments are those of `to_send`."""
        if self._job.is_lost:
            self._happened = Happened.LOST
        events = to_send(
            self._happened, self._job, encoder, self._error, exceptions, max_packet_size
        )
        if events and self._happened is Happened.LEFT_OPEN:
            self._logger.error("%r was left without an end: it fails", self._job)
        self._error = None  # Its traceback has the frame that has this.
        return events


def exc_info_of(error: BaseException) -> ExcInfo:
    """`error` as hooks get it."""
    return type(error), error, error.__traceback__
