"""Cases about the jobs of lost workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import (
    GEARMANDS,
    INFO,
    MUST,
    SHOULD,
    Failed,
    Unsupported,
    demand,
)
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    CanDoTimeout,
    JobAssignUniq,
    Noop,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHighBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
)

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PlainSubmit

_LOST: Final = "not in the document: gearmand 1.1 and 2.0 give the job to another worker"
_FAILS: Final = "the client gets WORK_FAIL"
_WAIT: Final = 4.0


def _rest(worker: Line) -> None:
    """Send PRE_SLEEP. Discard a NOOP, which some servers send for a job of another worker."""
    worker.send(PreSleep())
    worker.settle()


def _held(
    it: ServerKit, kind: type[PlainSubmit] = SubmitJob, *, jobs: int = 1, limit: bytes = b""
) -> tuple[Line, Line, Line, list[bytes]]:
    """Return a client, the worker that runs its jobs, another one that sleeps, and the handles."""
    client, other = it.client(), it.worker()
    worker = it.worker(it.another("other")) if limit else it.worker()
    if limit:
        worker.send(CanDoTimeout(it.function, limit))
    handles = [client.submit(b"data\0", kind=kind) for _ in range(jobs)]
    for handle in handles:
        worker.grab(handle=handle)
    _rest(other)
    return client, worker, other, handles


def _next_run(it: ServerKit, client: Line, other: Line, **fields: object) -> JobAssignUniq:
    """Wait until the server wakes a worker for the job of a lost worker, and grab that job.

    Raises:
        Unsupported: The client gets WORK_FAIL, so the job does not run again.
    """
    deadline = it.now + it.timeout
    while not (came := other.settle()):
        heard = client.settle()
        if any(isinstance(event, WorkFail) for event in heard):
            raise Unsupported("a job whose worker is lost fails")
        demand(not heard, "nothing to the client", heard)
        if it.now > deadline:
            raise Failed("a NOOP", f"nothing in {it.timeout:g} s")
    demand(came == [Noop()], "a NOOP", came)
    return other.grab(**fields)


def _wait_until_queued(it: ServerKit, client: Line, handle: bytes) -> None:
    """Wait until the server has requeued the job of a lost worker.

    Raises:
        Unsupported: The server no longer knows the job.
    """
    deadline = it.now + it.timeout
    while (status := client.status(handle)).running != b"0":
        demand(it.now < deadline, "a job that does not run", status)
    if status.known == b"0":
        raise Unsupported("a job whose worker is lost fails")


@case("requeue/close/1", MUST, _LOST, known={_FAILS: ("perl",)})
def worker_closes(it: ServerKit) -> str | None:
    """The job of a worker that leaves is given to another one, whose result the client gets."""
    client, worker, other, (handle,) = _held(it)
    worker.close()
    try:
        other.complete(_next_run(it, client, other).handle)
    except Unsupported:
        return _FAILS
    client.expect(WorkComplete, handle=handle, data=b"result")
    return None


@case("requeue/close/2", MUST, _LOST)
def same_job(it: ServerKit) -> None:
    """The second run of a job has the same handle, function, unique and data."""
    client, worker, other = it.client(), it.worker(), it.worker()
    handle = client.submit(b"data\0", unique=it.another("unique"))
    first = worker.grab()
    _rest(other)
    worker.close()
    second = _next_run(it, client, other)
    demand(second == first, f"{first}", second)
    other.complete(handle)
    client.expect(WorkComplete, handle=handle)


@case("requeue/close/3", SHOULD, _LOST, requires=("data",))
def client_hears_nothing(it: ServerKit) -> None:
    """The client is not told that a worker was lost, and gets what both have said."""
    client, worker, other, (handle,) = _held(it)
    worker.tell(WorkData(handle, b"1"))
    client.expect(WorkData, handle=handle, data=b"1")
    worker.close()
    _next_run(it, client, other)
    other.send(WorkData(handle, b"1"), WorkComplete(handle, b"result"))
    client.gets(WorkData(handle, b"1"), WorkComplete(handle, b"result"))


@case("requeue/close/4", MUST, _LOST)
def background(it: ServerKit) -> None:
    """A background job whose worker is lost is given to another one, too."""
    client, worker, other, (handle,) = _held(it, SubmitJobBg)
    worker.close()
    _next_run(it, client, other, handle=handle)
    other.complete(handle)
    client.nothing()


@case("requeue/reset/1", MUST, _LOST)
def worker_crashes(it: ServerKit) -> None:
    """The job of a worker whose connection is reset is given to another one."""
    client, worker, other, (handle,) = _held(it)
    worker.reset()
    other.complete(_next_run(it, client, other).handle)
    client.expect(WorkComplete, handle=handle, data=b"result")


@case("requeue/several/1", MUST, _LOST)
def several(it: ServerKit) -> None:
    """All jobs that a lost worker held are given to others."""
    client, worker, other, handles = _held(it, jobs=3)
    worker.close()
    again = [_next_run(it, client, other).handle, other.grab().handle, other.grab().handle]
    demand(sorted(again) == sorted(handles), f"{sorted(handles)}", sorted(again))
    other.grab_nothing()
    other.complete_all(handles)


@case("requeue/several/2", MUST, 'WORK_COMPLETE: "the job completed successfully"')
def ended_before(it: ServerKit) -> None:
    """A job that its worker has ended is not run again when that is lost."""
    client, worker, other, handles = _held(it, jobs=2)
    worker.complete(handles[0])
    client.expect(WorkComplete, handle=handles[0])
    worker.close()
    _next_run(it, client, other, handle=handles[1])
    other.grab_nothing()
    other.complete(handles[1])


@case(
    "requeue/order/1",
    INFO,
    _LOST,
    known={"the last one first": GEARMANDS, "the first one first": (), "another order": ()},
)
def order_of_several(it: ServerKit) -> str:
    """In which order the jobs come back that a lost worker held."""
    client, worker, other, handles = _held(it, jobs=3)
    worker.close()
    again = [_next_run(it, client, other).handle, other.grab().handle, other.grab().handle]
    other.complete_all(again)
    if again == handles:
        return "the first one first"
    return "the last one first" if again[::-1] == handles else "another order"


def _two_after_a_loss(it: ServerKit, kind: type[PlainSubmit]) -> tuple[list[bytes], list[bytes]]:
    """Lose the worker of a job of this kind while a normal one waits.

    Return the handles of both, and in the order of their next runs.
    """
    client, worker, first = it.running(kind)
    second = client.submit(kind=SubmitJobBg)
    worker.close()
    _wait_until_queued(it, client, first)
    return [first, second], [job.handle for job in it.worker().run_all(2)]


@case("requeue/order/2", INFO, _LOST, known={"behind it": GEARMANDS, "before it": ()})
def order_and_queue(it: ServerKit) -> str:
    """Whether a job that comes back is before or behind one that was queued meanwhile."""
    handles, again = _two_after_a_loss(it, SubmitJobBg)
    return "before it" if again == handles else "behind it"


@case("requeue/priority/1", SHOULD, 'SUBMIT_JOB: "HIGH versions always take precedence"')
def priority(it: ServerKit) -> None:
    """A job that comes back has the priority that it had."""
    handles, again = _two_after_a_loss(it, SubmitJobHighBg)
    demand(again == handles, "the job of high priority first", again)


@case("requeue/status/1", SHOULD, _LOST)
def progress(it: ServerKit) -> None:
    """A job that comes back is known, does not run, and has no progress."""
    client, worker, other, (handle,) = _held(it, SubmitJobBg)
    worker.tell(WorkStatus(handle, b"1", b"2"))
    worker.close()
    _wait_until_queued(it, client, handle)
    status = client.status(handle)
    numbers = (status.numerator or b"0", status.denominator or b"0")
    demand(status.known == b"1" and numbers == (b"0", b"0"), "known=1, and no progress", status)
    other.complete(_next_run(it, client, other).handle)


@case("requeue/late/1", MUST, _LOST)
def returns(it: ServerKit) -> None:
    """A new connection of a worker that was lost does not hold the job of the old one."""
    client, worker, other, (handle,) = _held(it)
    worker.close()
    _next_run(it, client, other)
    again = it.worker()
    again.send(WorkComplete(handle, b"of the first run"))
    again.heard()
    other.send(WorkComplete(handle, b"result"))
    other.heard()
    client.expect(WorkComplete, handle=handle, data=b"result")
    client.nothing()


@case(
    "requeue/timeout/1",
    INFO,
    known={"it is given to another worker": GEARMANDS, _FAILS: (), "nothing": ("perl",)},
    requires=("timeouts",),
    slow=True,
)
def time_passes(it: ServerKit) -> str:
    """What becomes of a job whose worker takes longer than its CAN_DO_TIMEOUT.

    Source: CAN_DO_TIMEOUT: "mark the job as failed and notify any listening clients"
    """
    client, worker, other, (handle,) = _held(it, limit=b"1000")
    if not other.is_silent(_WAIT):
        other.run()
        client.expect(WorkComplete, handle=handle)
        return "it is given to another worker"
    if any(isinstance(event, WorkFail) for event in client.settle()):
        return _FAILS
    worker.complete(handle)
    return "nothing"


@case("requeue/timeout/2", SHOULD, requires=("timeouts",), slow=True)
def no_limit(it: ServerKit) -> None:
    """A CAN_DO_TIMEOUT of 0 is no limit.

    Source: not in the document: gearmand 1.1 and 2.0 take it for no limit
    """
    client, worker, other, (handle,) = _held(it, limit=b"0")
    demand(other.is_silent(2.0), "nothing", "something")
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle, data=b"result")
