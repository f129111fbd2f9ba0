"""Cases about submitting jobs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import EVERY, GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.testing.packing import pack
from gearman_proto.wire.packets import (
    BY_NAME,
    MAGIC_REQUEST,
    EchoReq,
    GrabJobAll,
    JobAssignAll,
    JobCreated,
    Noop,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitJobSched,
    SubmitReduceJob,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PlainSubmit

_CREATED: Final = 'SUBMIT_JOB: "assign a job handle and respond with a JOB_CREATED packet"'
_DETACHED: Final = 'SUBMIT_JOB_BG: "the client is not updated with status or notified"'
_BYTES: Final = 'SUBMIT_JOB: "Opaque data that is given to the function as an argument"'
_EPOCH: Final = 'SUBMIT_JOB_EPOCH: "Just like SUBMIT_JOB_BG, but run job at given time"'
_REDUCE: Final = (
    'SUBMIT_REDUCE_JOB: "adds a reducer argument"; gearmand 1.1, gearmand 2.0 and libgearman '
    "add an empty argument after the reducer"
)
#: Reactions of a server that does not accept a submit.
_KNOWN: Final = {"refused with ERROR": (), "the connection is closed": (), "not answered": ()}
#: Maximum length of a job handle or a unique, in bytes.
_HANDLE: Final = 63


def _is_run(it: ServerKit, kind: type[PlainSubmit], *, background: bool) -> None:
    """Check that a submitted job runs, and that only a foreground client gets its result."""
    client, worker, handle = it.queued(kind)
    worker.run(handle=handle)
    if not background:
        client.expect(WorkComplete, handle=handle, data=b"result")
    client.nothing()


@case("submit/plain/1", MUST, _CREATED)
def plain(it: ServerKit) -> None:
    """SUBMIT_JOB is answered with JOB_CREATED, and the client receives the result."""
    _is_run(it, SubmitJob, background=False)


@case("submit/plain/2", MUST, _CREATED)
def plain_background(it: ServerKit) -> None:
    """SUBMIT_JOB_BG is answered only with JOB_CREATED, and the job runs."""
    _is_run(it, SubmitJobBg, background=True)


@case("submit/plain/3", MUST, _CREATED)
def high(it: ServerKit) -> None:
    """SUBMIT_JOB_HIGH is answered with JOB_CREATED, and the client receives the result."""
    _is_run(it, SubmitJobHigh, background=False)


@case("submit/plain/4", MUST, _CREATED)
def high_background(it: ServerKit) -> None:
    """SUBMIT_JOB_HIGH_BG is answered only with JOB_CREATED, and the job runs."""
    _is_run(it, SubmitJobHighBg, background=True)


@case("submit/plain/5", MUST, _CREATED)
def low(it: ServerKit) -> None:
    """SUBMIT_JOB_LOW is answered with JOB_CREATED, and the client receives the result."""
    _is_run(it, SubmitJobLow, background=False)


@case("submit/plain/6", MUST, _CREATED)
def low_background(it: ServerKit) -> None:
    """SUBMIT_JOB_LOW_BG is answered only with JOB_CREATED, and the job runs."""
    _is_run(it, SubmitJobLowBg, background=True)


@case("submit/background/1", MUST, _DETACHED)
def detached(it: ServerKit) -> None:
    """The client of a background job is not notified of the job's progress or end."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.tell(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    client.nothing()
    handle = client.submit(kind=SubmitJobBg)
    worker.grab()
    worker.tell(WorkFail(handle))
    client.nothing()


@case("submit/background/2", MUST, _DETACHED, requires=("data",))
def detached_from_data(it: ServerKit) -> None:
    """The client of a background job receives neither WORK_DATA nor WORK_WARNING."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.tell(
        WorkData(handle, b"part"), WorkWarning(handle, b"warning"), WorkComplete(handle, b"result")
    )
    client.nothing()


@case("submit/handle/1", MUST, _CREATED)
def handles(it: ServerKit) -> None:
    """The handles of jobs are unique across all connections."""
    clients, worker = [it.client(), it.client()], it.worker()
    made = [client.submit(kind=SubmitJobBg) for client in clients * 5]
    demand(len(set(made)) == len(made), "ten handles", made)
    given = [job.handle for job in worker.run_all(10)]
    demand(given == made, "the handles that the clients received", given)


@case("submit/handle/2", MUST)
def size_of_handle(it: ServerKit) -> None:
    """The handle of a job is 1 to 63 bytes long.

    Source: Binary Packet: "must not be longer than 64 bytes, including NULL terminator"
    """
    _, worker, handle = it.queued(SubmitJobBg)
    worker.run()
    demand(0 < len(handle) <= _HANDLE, f"1 to {_HANDLE} bytes", handle)


@case("submit/handle/3", SHOULD, "not in the document: `show jobs` and `cancel job` rely on this")
def words(it: ServerKit) -> None:
    """The handle of a job is a single word of text, without control characters."""
    handle = it.client().submit(kind=SubmitJobBg)
    it.worker().run()
    odd = [byte for byte in handle if byte <= ord(" ") or byte == 127]
    demand(not odd, "no spaces or control characters", handle)


@case(
    "submit/handle/4",
    INFO,
    known={
        "all of one length": (),
        "of several lengths": (),
        "one is the beginning of another": (),
    },
)
def beginnings(it: ServerKit) -> str:
    """Lengths and common beginnings of the handles of thirty consecutive jobs.

    Source: not in the document: libgearman 2.0 confuses two handles if one is the beginning of
    the other
    """
    client, worker = it.client(), it.worker()
    made = sorted(client.submit(kind=SubmitJobBg) for _ in range(30))
    worker.run_all(len(made))
    if len({len(handle) for handle in made}) == 1:
        return "all of one length"
    pairs = itertools.pairwise(made)
    begins = any(second.startswith(first) for first, second in pairs)
    return "one is the beginning of another" if begins else "of several lengths"


@case("submit/order/1", MUST)
def order(it: ServerKit) -> None:
    """Pipelined submits are answered in order.

    Source: not in the document: JOB_CREATED does not identify its submit
    """
    client, worker = it.client(), it.worker()
    payloads = [b"%d" % number for number in range(20)]
    client.send(*[SubmitJobBg(it.function, b"", data) for data in payloads])
    made = [client.expect(JobCreated).handle for _ in payloads]
    given = {job.data: job.handle for job in worker.run_all(20)}
    wanted = dict(zip(payloads, made, strict=True))
    demand(given == wanted, f"the handles that the client received: {wanted}", str(given))


@case("submit/order/2", MUST, known={"there is no ERROR": ()})
def error_between(it: ServerKit) -> str | None:
    """An ERROR for one of several pipelined packets keeps its place among the replies.

    Source: ERROR: "whenever the server encounters an error"
    """
    client, worker = it.client(), it.worker()
    client.send_anyway(
        SubmitJobBg(it.function, it.another("1"), b"data"),
        Noop(),
        SubmitJobBg(it.function, it.another("2"), b"data"),
    )
    got = [client.reaction() for _ in range(2)]
    worker.run_all(2)
    if got == ["JOB_CREATED", "JOB_CREATED"]:
        client.nothing()
        return "there is no ERROR"
    got.append(client.reaction())
    demand(got == ["JOB_CREATED", "ERROR", "JOB_CREATED"], "JOB_CREATED, ERROR, JOB_CREATED", got)
    return None


@case(
    "submit/order/3", MUST, "not in the document: a client can't match an unknown handle to its job"
)
def created_first(it: ServerKit) -> None:
    """JOB_CREATED precedes all other packets about the job, even if the worker is fast."""
    client, worker = it.client(), it.worker()
    for _ in range(10):
        client.send(SubmitJob(it.function, b"", b"data"))
        worker.send(WorkComplete(worker.soon().handle, b"result"))
        handle = client.expect(JobCreated).handle
        client.expect(WorkComplete, handle=handle, data=b"result")


@case("submit/order/4", MUST)
def interleaved(it: ServerKit) -> None:
    """Jobs of one connection can end in any order, and each result has its job's handle.

    Source: the example: "could have multiple jobs being run over a single socket"
    """
    client, worker = it.client(), it.worker()
    made = [client.submit(b"%d" % number) for number in range(5)]
    jobs = {job.handle: job.data for job in (worker.grab() for _ in made)}
    for handle in reversed(made):
        worker.send(WorkStatus(handle, b"1", b"2"))
        worker.complete(handle, jobs[handle])
        client.gets(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, jobs[handle]))
    client.nothing()


@case("submit/payload/1", MUST, _BYTES)
def payload(it: ServerKit) -> None:
    """The worker receives the data of a job byte for byte."""
    client, worker = it.client(), it.worker()
    for data in (bytes(range(256)), b"\0", b"\0\0a\0", b"\0REQ\0\0\0\x10\0\0\0\0", b"a\r\nb\n"):
        client.submit(data, kind=SubmitJobBg)
        worker.run(data=data)


@case("submit/payload/2", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def result(it: ServerKit) -> None:
    """The client receives the result of a job byte for byte."""
    client, worker = it.client(), it.worker()
    for data in (bytes(range(256)), b"\0", b"\0\0a\0", b"\0RES\0\0\0\x10\0\0\0\0", b"a\r\nb\n"):
        handle = client.submit()
        worker.run(data)
        client.expect(WorkComplete, handle=handle, data=data)


@case("submit/function/1", MUST, 'SUBMIT_JOB: "function name"')
def other_function(it: ServerKit) -> None:
    """A job is not assigned to workers of a function with a longer or shorter name."""
    client, workers = it.client(), [it.worker(it.function[:-1]), it.worker(it.another("more"))]
    client.submit(kind=SubmitJobBg)
    for worker in workers:
        worker.grab_nothing()
    job = it.worker().run()
    demand(job.function == it.function, f"{it.function!r}", job)


@case("submit/function/2", SHOULD, "not in the document: gearmand 1.1 and 2.0 compare bytes")
def case_of_letters(it: ServerKit) -> None:
    """Function names are case-sensitive."""
    client, worker = it.client(), it.worker(it.function.upper())
    client.submit(kind=SubmitJobBg)
    worker.grab_nothing()
    it.worker().run()


@case(
    "submit/function/3",
    INFO,
    known={**_KNOWN, "it is a function": GEARMANDS, "refused with ERROR": ("perl",)},
)
def empty_function(it: ServerKit) -> str:
    """Reaction to a job whose function has an empty name.

    Source: not in the document: gearmand 1.1 and 2.0 accept it like any other name
    """
    client = it.client()
    client.send(SubmitJobBg(b"", it.another("unique"), b"data"))
    behaviour = client.behaviour(JOB_CREATED="it is a function")
    if behaviour == "it is a function":
        it.worker(b"").run()
    return behaviour


@case("submit/unique/1", MUST, requires=("grab-uniq",))
def unique(it: ServerKit) -> None:
    """The worker receives the unique of a job unchanged, up to a length of 63 bytes.

    Source: JOB_ASSIGN_UNIQ: "with the client assigned unique ID"
    """
    client, worker = it.client(), it.worker()
    for sent in (b"", it.another("u")[-63:], it.another("\x80 \t").ljust(63, b"u")[-63:]):
        client.submit(unique=sent, kind=SubmitJobBg)
        worker.run(unique=sent)


def _long_unique(it: ServerKit, size: int) -> str:
    """Submit a job with a unique of `size` bytes. Return the name of the server's behaviour."""
    client, worker, sent = it.client(), it.worker(), it.function[-40:].ljust(size, b"u")
    client.send_raw(pack(BY_NAME["SUBMIT_JOB_BG"], [it.function, sent, b"data"], MAGIC_REQUEST))
    behaviour = client.behaviour(JOB_CREATED="kept")
    if behaviour == "kept":
        job = worker.run()
        return "kept" if (job.unique, job.data) == (sent, b"data") else "cut"
    return behaviour


@case(
    "submit/unique/2",
    INFO,
    known={**_KNOWN, "kept": ("perl",), "cut": GEARMANDS},
    requires=("grab-uniq",),
)
def unique_of_64(it: ServerKit) -> str:
    """Handling of a unique of 64 bytes.

    Source: not in the document: gearmand 1.1 and 2.0 keep 63 bytes and put a second NUL before
    the data
    """
    return _long_unique(it, 64)


@case(
    "submit/unique/3",
    INFO,
    known={"kept": ("perl",), "cut": (), **_KNOWN, "refused with ERROR": GEARMANDS},
    requires=("grab-uniq",),
)
def unique_of_65(it: ServerKit) -> str:
    """Handling of a unique of 65 bytes.

    Source: not in the document: gearmand 1.1 and 2.0 answer with ERROR ARGUMENT_TOO_LARGE
    """
    return _long_unique(it, 65)


@case("submit/leaving/1", SHOULD, "not in the document: gearmand 1.1 and 2.0 do this")
def leaves_at_once(it: ServerKit) -> None:
    """A background job runs even if its client disconnects right after the submit."""
    worker, client = it.worker(), it.client()
    worker.sleep()
    client.send(SubmitJobBg(it.function, it.another("unique"), it.another("data")))
    client.close()
    worker.woken(data=it.another("data"))


@case("submit/epoch/1", SHOULD, _EPOCH, requires=("epoch",))
def past(it: ServerKit) -> None:
    """A SUBMIT_JOB_EPOCH job with a past time runs at once, like a background job."""
    client, worker = it.client(), it.worker()
    for epoch in (b"0", b"1", b"%d" % (it.wall() - 3600)):
        handle = client.created(SubmitJobEpoch(it.function, b"", epoch, b"data"))
        job = worker.run()
        demand((job.handle, job.data) == (handle, b"data"), f"the job {handle.decode()}", job)
        client.nothing()


@case("submit/epoch/2", SHOULD, _EPOCH, requires=("epoch",), slow=True)
def due(it: ServerKit) -> None:
    """A SUBMIT_JOB_EPOCH job is assigned at the given time, and not before."""
    client, worker, epoch = it.client(), it.worker(), int(it.wall()) + 2
    handle = client.created(SubmitJobEpoch(it.function, b"", b"%d" % epoch, b"data"))
    while worker.is_silent(0.1) and it.wall() < epoch - 0.3:
        worker.grab_nothing()
        status = client.status(handle)
        demand((status.known, status.running) == (b"1", b"0"), "a queued job", status)
    worker.is_silent(epoch + 1.1 - it.wall())
    demand(worker.run().handle == handle, f"the job {handle.decode()}", "another")


@case(
    "submit/epoch/3",
    INFO,
    known={
        "taken": (),
        "refused with ERROR": (),
        "not answered": (),
        "the connection is closed": (),
    },
    requires=("epoch", "echo"),
)
def out_of_range(it: ServerKit) -> str:
    """Reaction to a SUBMIT_JOB_EPOCH whose time does not fit into 64 bits.

    Source: not in the document: gearmand 1.1 and 2.0 do not answer, and sometimes close the
    connection
    """
    client = it.client()
    client.send_anyway(SubmitJobEpoch(it.function, b"", b"9" * 30, b"data"), EchoReq(b"after"))
    return client.behaviour(JOB_CREATED="taken")


@case("submit/sched/1", INFO, known={**_KNOWN, "taken": (), "refused with ERROR": EVERY})
def sched(it: ServerKit) -> str:
    """Reaction to SUBMIT_JOB_SCHED.

    Source: SUBMIT_JOB_SCHED: "This is not currently used and may be removed"
    """
    client = it.client()
    when = (b"0", b"0", b"1", b"1", b"0")
    client.send_anyway(SubmitJobSched(it.function, b"", *when, b"data"))
    return client.behaviour(JOB_CREATED="taken")


@case("submit/reduce/1", SHOULD, _REDUCE, requires=("reduce", "grab-all", "grab-uniq"))
def reduce(it: ServerKit) -> None:
    """A worker that sends GRAB_JOB_ALL receives the reducer of a job."""
    client, worker = it.client(), it.worker()
    handle = client.created(
        SubmitReduceJob(it.function, it.another("u"), b"reducer", b"", b"da\0ta")
    )
    worker.send(GrabJobAll())
    job = worker.expect(JobAssignAll, handle=handle, function=it.function, data=b"da\0ta")
    demand(
        (job.unique, job.reducer) == (it.another("u"), b"reducer"), "the unique and reducer", job
    )
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle, data=b"result")


@case("submit/reduce/2", SHOULD, _REDUCE, requires=("reduce", "grab-uniq"))
def reduce_unasked(it: ServerKit) -> None:
    """A worker that sends GRAB_JOB_UNIQ receives a job with a reducer like any other job."""
    client, worker = it.client(), it.worker()
    handle = client.created(
        SubmitReduceJob(it.function, it.another("u"), b"reducer", b"", b"da\0ta")
    )
    job = worker.run()
    demand(
        (job.handle, job.unique, job.data) == (handle, it.another("u"), b"da\0ta"),
        "the submitted job",
        job,
    )
    client.expect(WorkComplete, handle=handle, data=b"result")
