"""Cases about the jobs of disconnected workers."""

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
    number,
)

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PlainSubmit

_LOST: Final = "not in the document: gearmand 1.1 and 2.0 assign the job to another worker"
_FAILS: Final = "the client gets WORK_FAIL"
_WAIT: Final = 4.0


def _rest(worker: Line) -> None:
    """Send PRE_SLEEP. Discard the NOOP that some servers send for a job of another worker."""
    worker.send(PreSleep())
    worker.settle()


def _held(
    it: ServerKit, kind: type[PlainSubmit] = SubmitJob, *, jobs: int = 1, limit: bytes = b""
) -> tuple[Line, Line, Line, list[bytes]]:
    """Return a client, the worker that runs its jobs, a sleeping worker, and the handles."""
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
    """Wait for the NOOP for the job of a disconnected worker, and grab the job.

    Raises:
        Unsupported: The client gets WORK_FAIL, so the job does not run again.
    """
    deadline = it.now + it.timeout
    while not (got := other.settle()):
        heard = client.settle()
        if any(isinstance(event, WorkFail) for event in heard):
            raise Unsupported("a job fails when its worker disconnects")
        demand(not heard, "no packet to the client", heard)
        if it.now > deadline:
            raise Failed("a NOOP", f"nothing in {it.timeout:g} s")
    demand(got == [Noop()], "a NOOP", got)
    return other.grab(**fields)


def _wait_until_queued(it: ServerKit, client: Line, handle: bytes) -> None:
    """Wait until the server has requeued the job of a disconnected worker.

    Raises:
        Unsupported: The server no longer knows the job.
    """
    deadline = it.now + it.timeout
    while (status := client.status(handle)).running != b"0":
        demand(it.now < deadline, "a job that is not running", status)
    if status.known == b"0":
        raise Unsupported("a job fails when its worker disconnects")


@case("requeue/close/1", MUST, _LOST, known={_FAILS: ("perl",)})
def worker_closes(it: ServerKit) -> str | None:
    """If a worker disconnects, another one gets its job, and the client gets the result."""
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
    """The client receives the updates of both workers, and no notice of the lost worker."""
    client, worker, other, (handle,) = _held(it)
    worker.tell(WorkData(handle, b"1"))
    client.expect(WorkData, handle=handle, data=b"1")
    worker.close()
    _next_run(it, client, other)
    other.send(WorkData(handle, b"1"), WorkComplete(handle, b"result"))
    client.gets(WorkData(handle, b"1"), WorkComplete(handle, b"result"))


@case("requeue/close/4", MUST, _LOST)
def background(it: ServerKit) -> None:
    """If a worker disconnects, another one gets its background job."""
    client, worker, other, (handle,) = _held(it, SubmitJobBg)
    worker.close()
    _next_run(it, client, other, handle=handle)
    other.complete(handle)
    client.nothing()


@case("requeue/reset/1", MUST, _LOST)
def worker_crashes(it: ServerKit) -> None:
    """If the connection of a worker is reset, another worker gets its job."""
    client, worker, other, (handle,) = _held(it)
    worker.reset()
    other.complete(_next_run(it, client, other).handle)
    client.expect(WorkComplete, handle=handle, data=b"result")


@case("requeue/several/1", MUST, _LOST)
def several(it: ServerKit) -> None:
    """If a worker disconnects, other workers get all of its jobs."""
    client, worker, other, handles = _held(it, jobs=3)
    worker.close()
    again = [_next_run(it, client, other).handle, other.grab().handle, other.grab().handle]
    demand(sorted(again) == sorted(handles), f"{sorted(handles)}", sorted(again))
    other.grab_nothing()
    other.complete_all(handles)


@case("requeue/several/2", MUST, 'WORK_COMPLETE: "the job completed successfully"')
def ended_before(it: ServerKit) -> None:
    """A completed job does not run again when its worker disconnects."""
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
    """Order of a disconnected worker's jobs when they run again."""
    client, worker, other, handles = _held(it, jobs=3)
    worker.close()
    again = [_next_run(it, client, other).handle, other.grab().handle, other.grab().handle]
    other.complete_all(again)
    if again == handles:
        return "the first one first"
    return "the last one first" if again[::-1] == handles else "another order"


def _two_after_a_loss(it: ServerKit, kind: type[PlainSubmit]) -> tuple[list[bytes], list[bytes]]:
    """Disconnect the worker of a job of this kind while a normal job is queued.

    Return the handles of both jobs, first as submitted, then in the order of their next runs.
    """
    client, worker, first = it.running(kind)
    second = client.submit(kind=SubmitJobBg)
    worker.close()
    _wait_until_queued(it, client, first)
    return [first, second], [job.handle for job in it.worker().run_all(2)]


@case("requeue/order/2", INFO, _LOST, known={"after it": GEARMANDS, "before it": ()})
def order_and_queue(it: ServerKit) -> str:
    """Position of a requeued job relative to a job that was queued meanwhile."""
    handles, again = _two_after_a_loss(it, SubmitJobBg)
    return "before it" if again == handles else "after it"


@case("requeue/priority/1", SHOULD, 'SUBMIT_JOB: "HIGH versions always take precedence"')
def priority(it: ServerKit) -> None:
    """A requeued job keeps its priority."""
    handles, again = _two_after_a_loss(it, SubmitJobHighBg)
    demand(again == handles, "the high-priority job first", again)


@case("requeue/status/1", SHOULD, _LOST)
def progress(it: ServerKit) -> None:
    """A requeued job is known and not running, and its progress is reset."""
    client, worker, other, (handle,) = _held(it, SubmitJobBg)
    worker.tell(WorkStatus(handle, b"1", b"2"))
    worker.close()
    _wait_until_queued(it, client, handle)
    status = client.status(handle)
    numbers = (status.numerator or b"0", status.denominator or b"0")
    demand(status.known == b"1" and numbers == (b"0", b"0"), "known=1 and no progress", status)
    other.complete(_next_run(it, client, other).handle)


@case("requeue/status/2", SHOULD, _LOST)
def next_progress(it: ServerKit) -> None:
    """The second run of a job begins without progress, and its own progress is reported."""
    client, worker, other, (handle,) = _held(it)
    worker.tell(WorkStatus(handle, b"70", b"100"))
    client.gets(WorkStatus(handle, b"70", b"100"))
    worker.close()
    _next_run(it, client, other, handle=handle)
    for numbers in ((b"", b""), (b"2", b"9"), (b"1", b"8")):
        if numbers[0]:
            other.send(WorkStatus(handle, *numbers))
            client.gets(WorkStatus(handle, *numbers))
        status = client.status(handle)
        demand((status.known, status.running) == (b"1", b"1"), "a running job", status)
        got = number(status.numerator), number(status.denominator)
        demand(got == (number(numbers[0]), number(numbers[1])), f"{numbers}", status)
    other.send(WorkComplete(handle, b"result"))
    client.gets(WorkComplete(handle, b"result"))
    client.nothing()


@case("requeue/again/1", SHOULD, _LOST)
def many_deaths(it: ServerKit) -> None:
    """A job whose workers disconnect five times runs once more, and its client gets one result."""
    client, other = it.client(), it.worker(it.another("other"))
    handle = client.submit(b"data\0", unique=it.another("u"))
    for _ in range(5):
        worker = it.worker()
        job = worker.grab(handle=handle, data=b"data\0")
        other.grab_nothing()
        worker.close()
        _wait_until_queued(it, it.client(), handle)
    worker = it.worker()
    again = worker.run(b"the only result")
    demand(again == job, f"{job}", again)
    client.gets(WorkComplete(handle, b"the only result"))
    client.nothing()
    worker.grab_nothing()


@case("requeue/clients/1", SHOULD, _LOST, requires=("coalescing",))
def several_clients(it: ServerKit) -> None:
    """All clients of a job receive the result of its second run, also those that join later."""
    clients, worker, unique = [it.client() for _ in range(3)], it.worker(), it.another("u")
    handle = clients[0].submit(unique=unique)
    worker.grab(handle=handle)
    clients[1].submit(unique=unique)
    worker.close()
    _wait_until_queued(it, it.client(), handle)
    again = clients[2].submit(unique=unique)
    demand(again == handle, f"the handle {handle!r} again", again)
    other = it.worker()
    other.run(handle=handle)
    for client in clients:
        client.gets(WorkComplete(handle, b"result"))
        client.nothing()
    other.grab_nothing()


@case("requeue/function/1", SHOULD, _LOST)
def only_its_function(it: ServerKit) -> None:
    """A requeued job wakes sleeping workers of its function at once, and no others."""
    client, worker, other, (handle,) = _held(it)
    stranger = it.worker(it.another("other"))
    stranger.sleep()
    worker.close()
    # The status is requested by another connection, so the NOOP must arrive by itself.
    _wait_until_queued(it, it.client(), handle)
    other.expect(Noop)
    stranger.nothing()
    stranger.grab_nothing()
    other.run(handle=handle)
    client.gets(WorkComplete(handle, b"result"))


@case("requeue/sleep/1", SHOULD, _LOST)
def sleeps_and_leaves(it: ServerKit) -> None:
    """If a worker disconnects that sleeps while it holds a job, another one gets its jobs."""
    client, worker, handle = it.running()
    worker.grab_nothing()
    worker.sleep()
    worker.close()
    _wait_until_queued(it, it.client(), handle)
    second, other = client.submit(), it.worker()
    jobs = {job.handle for job in other.run_all(2)}
    demand(jobs == {handle, second}, "both jobs", jobs)
    other.grab_nothing()


@case("requeue/half/1", MUST, _LOST)
def half_a_result(it: ServerKit) -> None:
    """If a worker disconnects within its result, its client does not receive that."""
    client, worker, other, (handle,) = _held(it)
    worker.send_raw(worker.connection.send(WorkComplete(handle, b"half of a result"))[:-4])
    worker.close()
    _next_run(it, client, other, handle=handle)
    client.nothing()
    other.complete(handle, b"the whole result")
    client.gets(WorkComplete(handle, b"the whole result"))
    client.nothing()


@case("requeue/late/2", SHOULD, "not in the document: gearmand 1.1 and 2.0 process such packets")
def completes_and_leaves(it: ServerKit) -> None:
    """A job does not run again if its worker disconnects right after its result."""
    client, worker, handle = it.running()
    worker.send(WorkStatus(handle, b"1", b"1"), WorkComplete(handle, b"last result"))
    worker.close()
    client.gets(WorkStatus(handle, b"1", b"1"), WorkComplete(handle, b"last result"))
    client.nothing()
    it.worker().grab_nothing()


@case("requeue/late/1", MUST, _LOST)
def returns(it: ServerKit) -> None:
    """A worker that reconnects no longer holds the job of its old connection."""
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
    """Handling of a job whose worker exceeds its CAN_DO_TIMEOUT.

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
    """A CAN_DO_TIMEOUT of 0 sets no limit.

    Source: not in the document: gearmand 1.1 and 2.0 set no limit
    """
    client, worker, other, (handle,) = _held(it, limit=b"0")
    demand(other.is_silent(2.0), "silence", "a packet or the end of the connection")
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle, data=b"result")
