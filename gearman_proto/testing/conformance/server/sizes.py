"""Cases about the sizes of packets, and about many packets, jobs, functions and clients.

All payloads differ from packet to packet and from byte to byte. Therefore, a case notices payloads
that are cut, altered or swapped.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import MUST, SHOULD, Unsupported, demand
from gearman_proto.testing.conformance.kit import around_powers, noise
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE: Final = 'Binary Packet: "the size of the data being sent after the header"'
_OPAQUE: Final = 'SUBMIT_JOB: "Opaque data that is given to the function as an argument"'
_RETURNED: Final = 'WORK_COMPLETE: "Opaque data that is returned to the client as a response"'
_FORWARDS: Final = (
    'Client Responses: "the server forwards these packets from the worker to clients"'
)
_ONCE: Final = "not in the document: all known servers do this"
#: Exponents of two: the quick cases test sizes around 4 KiB to 64 KiB, the slow ones up to 2 MiB.
_SMALL: Final = range(12, 17)
_BIG: Final = range(17, 22)
#: A size above 64 KiB that is no power of two.
_LARGE: Final = 100_000
_HUGE: Final = 1 << 24
# Seconds to wait for huge packets.
_MINUTE: Final = 60.0
#: Number of packets to send before reading the answers.
_BATCH: Final = 50


def _sizes(exponents: range, *empty: Event) -> list[int]:
    """Return payload sizes that make payloads and packets as large as powers of two, ± 1.

    Args:
        exponents: The exponents of two.
        empty: The packets without their payload.
    """
    overheads = [0, *[len(pack_event(event, MAGIC_REQUEST)) for event in empty]]
    return [size - overhead for size in around_powers(exponents) for overhead in overheads]


def _job(worker: Line, handle: bytes, sent: bytes) -> Event:
    """Return the answer to a grab that assigns this job."""
    if worker.has_uniq:
        return JobAssignUniq(handle, worker.function, b"", sent)
    return JobAssign(handle, worker.function, sent)


def _grabs(worker: Line, handle: bytes, sent: bytes) -> None:
    """Request a job, and check that it is this one, with all its data."""
    worker.ask()
    worker.gets(_job(worker, handle, sent))


def _echoes(it: ServerKit, exponents: range) -> None:
    """Check that ECHO_REQ packets of all sizes are answered with the same data."""
    client = it.client()
    for size in _sizes(exponents, EchoReq(b"")):
        sent = noise((it.function, size), size)
        client.send(EchoReq(sent))
        client.gets(EchoRes(sent))
    client.nothing()


def _assigns(it: ServerKit, exponents: range, *, has_uniq: bool = True) -> None:
    """Check that jobs with data of all sizes reach a worker unchanged, and run once each."""
    client, worker = it.client(), it.worker()
    worker.has_uniq &= has_uniq
    ends = [WorkComplete(client.submit(), b"result")]
    worker.grab(handle=ends[0].handle)
    empty = SubmitJob(it.function, b"", b""), _job(worker, ends[0].handle, b"")
    for size in _sizes(exponents, *empty):
        sent = noise((it.function, size), size)
        ends.append(WorkComplete(client.submit(sent), b"result of %d" % size))
        _grabs(worker, ends[-1].handle, sent)
    worker.grab_nothing()
    worker.tell(*ends)
    client.gets(*ends)
    client.nothing()


def _updates(it: ServerKit, exponents: range, kind: type[WorkData | WorkWarning]) -> None:
    """Check that updates of all sizes reach the client unchanged, in order, and once each."""
    client, worker, handle = it.running()
    for size in _sizes(exponents, kind(handle, b"")):
        update = kind(handle, noise((it.function, size), size))
        worker.send(update)
        client.gets(update)
    worker.complete(handle)
    client.gets(WorkComplete(handle, b"result"))
    client.nothing()


def _fails_too(client: Line, worker: Line, handle: bytes) -> None:
    """End a job after its WORK_EXCEPTION, because that does not end it on some servers."""
    worker.send(WorkFail(handle))
    worker.heard()
    got = client.settle()
    demand(got in ([], [WorkFail(handle)]), f"at most {WorkFail(handle)}", got)


def _ends(it: ServerKit, exponents: range, kind: type[WorkComplete | WorkException]) -> None:
    """Check that results or exceptions of all sizes reach the client unchanged, and once each."""
    client, worker = it.client(exceptions=kind is WorkException), it.worker()
    first = client.submit()
    worker.run(handle=first)
    client.gets(WorkComplete(first, b"result"))
    for size in _sizes(exponents, kind(first, b"")):
        end = kind(client.submit(), noise((it.function, size), size))
        worker.grab(handle=end.handle)
        worker.send(end)
        client.gets(end)
        if kind is WorkException:
            _fails_too(client, worker, end.handle)
    client.nothing()


@case("size/echo/1", MUST, _SIZE, requires=("echo",))
def echo(it: ServerKit) -> None:
    """ECHO_REQ is answered with the same data at sizes around powers of two up to 64 KiB."""
    _echoes(it, _SMALL)


@case("size/echo/2", MUST, _SIZE, requires=("echo",), slow=True)
def big_echo(it: ServerKit) -> None:
    """ECHO_REQ is answered with the same data at sizes around powers of two up to 2 MiB."""
    _echoes(it, _BIG)


@case("size/assign/1", MUST, _OPAQUE)
def assign(it: ServerKit) -> None:
    """Job data around powers of two up to 64 KiB reaches the worker unchanged."""
    _assigns(it, _SMALL)


@case("size/assign/2", MUST, _OPAQUE, requires=("grab",))
def plain_assign(it: ServerKit) -> None:
    """Job data around powers of two up to 64 KiB reaches a worker that sends GRAB_JOB unchanged."""
    _assigns(it, _SMALL, has_uniq=False)


@case("size/assign/3", MUST, _OPAQUE, slow=True)
def big_assign(it: ServerKit) -> None:
    """Job data around powers of two up to 2 MiB reaches the worker unchanged."""
    _assigns(it, _BIG)


@case("size/data/1", MUST, _FORWARDS, requires=("data",))
def data(it: ServerKit) -> None:
    """WORK_DATA around powers of two up to 64 KiB reaches the client unchanged."""
    _updates(it, _SMALL, WorkData)


@case("size/data/2", MUST, _FORWARDS, requires=("data",), slow=True)
def big_data(it: ServerKit) -> None:
    """WORK_DATA around powers of two up to 2 MiB reaches the client unchanged."""
    _updates(it, _BIG, WorkData)


@case("size/data/3", MUST, _FORWARDS, requires=("data",))
def many_data(it: ServerKit) -> None:
    """Two hundred WORK_DATA packets of different sizes reach the client in order, once each."""
    client, worker, handle = it.running()
    sent = [WorkData(handle, noise((it.function, n), n * n % 1999)) for n in range(200)]
    worker.send(*sent, WorkComplete(handle, b"result"))
    client.gets(*sent, WorkComplete(handle, b"result"))
    client.nothing()


@case("size/warning/1", MUST, _FORWARDS, requires=("data",))
def warning(it: ServerKit) -> None:
    """WORK_WARNING around powers of two up to 64 KiB reaches the client unchanged."""
    _updates(it, _SMALL, WorkWarning)


@case("size/warning/2", MUST, _FORWARDS, requires=("data",), slow=True)
def big_warning(it: ServerKit) -> None:
    """WORK_WARNING around powers of two up to 2 MiB reaches the client unchanged."""
    _updates(it, _BIG, WorkWarning)


@case("size/complete/1", MUST, _RETURNED)
def result(it: ServerKit) -> None:
    """A result around powers of two up to 64 KiB reaches the client unchanged."""
    _ends(it, _SMALL, WorkComplete)


@case("size/complete/2", MUST, _RETURNED, slow=True)
def big_result(it: ServerKit) -> None:
    """A result around powers of two up to 2 MiB reaches the client unchanged."""
    _ends(it, _BIG, WorkComplete)


@case("size/exception/1", MUST, _FORWARDS, requires=("options",))
def exception(it: ServerKit) -> None:
    """WORK_EXCEPTION around powers of two up to 64 KiB reaches the client unchanged."""
    _ends(it, _SMALL, WorkException)


@case("size/exception/2", MUST, _FORWARDS, requires=("options",), slow=True)
def big_exception(it: ServerKit) -> None:
    """WORK_EXCEPTION around powers of two up to 2 MiB reaches the client unchanged."""
    _ends(it, _BIG, WorkException)


@case("size/huge/1", SHOULD, _SIZE, slow=True)
def huge(it: ServerKit) -> None:
    """The data and the result of a job can have 16 MiB each."""
    client, worker = it.client(), it.worker()
    for line in (client, worker):
        line.sock.settimeout(_MINUTE)
    sent, end = noise((it.function, "data"), _HUGE), noise((it.function, "result"), _HUGE)
    handle = client.submit(sent)
    _grabs(worker, handle, sent)
    worker.send(WorkComplete(handle, end))
    client.gets(WorkComplete(handle, end))
    client.nothing()


@case("size/last/1", MUST, _RETURNED)
def last_result(it: ServerKit) -> None:
    """A large result reaches the client even if its worker sends nothing afterwards."""
    client, worker, handle = it.running()
    end = WorkComplete(handle, noise(it.function, _LARGE))
    worker.send(end)
    client.gets(end)
    client.nothing()


@case("size/last/2", MUST, _FORWARDS)
def last_fail(it: ServerKit) -> None:
    """WORK_FAIL reaches the client even if its worker sends nothing afterwards."""
    client, worker, handle = it.running()
    worker.send(WorkFail(handle))
    client.gets(WorkFail(handle))
    client.nothing()


@case("size/last/3", MUST, _FORWARDS, requires=("options",))
def last_exception(it: ServerKit) -> None:
    """A large WORK_EXCEPTION reaches the client even if its worker sends nothing afterwards."""
    client, worker = it.client(exceptions=True), it.worker()
    end = WorkException(client.submit(), noise(it.function, _LARGE))
    worker.grab(handle=end.handle)
    worker.send(end)
    client.gets(end)
    client.nothing()
    _fails_too(client, worker, end.handle)


@case("size/two/1", MUST, _FORWARDS)
def two_results(it: ServerKit) -> None:
    """If a worker holds the jobs of two clients, each client gets its own large result, whole."""
    clients, worker = [it.client(), it.client()], it.worker()
    handles = [client.submit() for client in clients]
    ends = [WorkComplete(handle, noise(handle, _LARGE)) for handle in handles]
    for end in ends:
        worker.grab(handle=end.handle)
    worker.send(*reversed(ends))
    for client, end in zip(clients, ends, strict=True):
        client.gets(end)
    for client in clients:
        client.nothing()


@case("size/two/2", MUST, _FORWARDS, requires=("data",))
def two_parts(it: ServerKit) -> None:
    """If a worker holds the jobs of two clients, each client gets its own large WORK_DATA."""
    clients, worker = [it.client(), it.client()], it.worker()
    handles = [client.submit() for client in clients]
    sent = [[WorkData(each, noise((each, n), _LARGE)) for n in range(2)] for each in handles]
    for handle in handles:
        worker.grab(handle=handle)
    worker.send(sent[1][0], sent[0][0], sent[0][1], sent[1][1])
    worker.complete_all(handles)
    for client, handle, parts in zip(clients, handles, sent, strict=True):
        client.gets(*parts, WorkComplete(handle, b"result"))
        client.nothing()


@case("size/requeue/1", MUST)
def second_run(it: ServerKit) -> None:
    """If a worker disconnects, its job reaches another worker with all its data.

    Source: not in the document: gearmand 1.1 and 2.0 assign the job to another worker
    """
    client, worker, other = it.client(), it.worker(), it.worker()
    sent = noise(it.function, _LARGE)
    handle = client.submit(sent)
    _grabs(worker, handle, sent)
    worker.close()
    it.until(lambda: other.status(handle).running == b"0", "a job that is not running")
    if (got := client.settle()) == [WorkFail(handle)]:
        raise Unsupported("a job fails when its worker disconnects")
    demand(not got, "no packet to the client", got)
    _grabs(other, handle, sent)
    other.complete(handle, sent[::-1])
    client.gets(WorkComplete(handle, sent[::-1]))


def _runs_each_once(it: ServerKit, count: int) -> None:
    """Check that `count` background jobs run exactly once each, on two workers."""
    client, workers, made, given = it.client(), [it.worker(), it.worker()], {}, {}
    for start in range(0, count, _BATCH):
        sent = [b"job %d" % number for number in range(start, start + _BATCH)]
        client.send(*[SubmitJobBg(it.function, b"", each) for each in sent])
        made.update({client.expect(JobCreated).handle: each for each in sent})
    for number in range(count):
        job = workers[number % 2].grab()
        demand(job.handle not in given, "a job that has not run", job)
        given[job.handle] = job.data
        workers[number % 2].send(WorkComplete(job.handle, b"result"))
    demand(given == made, "the jobs that were submitted", "others")
    for worker in workers:
        worker.grab_nothing()
    client.nothing()


@case("size/jobs/1", MUST, _ONCE)
def fifty_jobs(it: ServerKit) -> None:
    """Fifty background jobs run exactly once each, on two workers."""
    _runs_each_once(it, _BATCH)


@case("size/jobs/2", MUST, _ONCE, slow=True)
def many_jobs(it: ServerKit) -> None:
    """Five thousand background jobs run exactly once each, on two workers."""
    _runs_each_once(it, 100 * _BATCH)


def _keeps_data(it: ServerKit, *kinds: Callable[[bytes, bytes, bytes], Event]) -> None:
    """Check that ten queued jobs of each kind keep their data: three of 70,000 bytes, then 1000."""
    client, worker, made = it.client(), it.worker(), {}
    for number, kind in itertools.product(range(10), kinds):
        sent = noise((number, kinds.index(kind)), 70_000 if number < 3 else 1000)
        made[client.created(kind(it.function, b"", sent))] = sent
    given = {job.handle: job.data for job in worker.run_all(len(made))}
    demand(given.keys() == made.keys(), "the handles that the client received", [*given])
    wrong = [handle for handle in made if given[handle] != made[handle]]
    demand(not wrong, "the data of each job", f"other data for {wrong}")
    worker.grab_nothing()


@case("size/jobs/3", MUST, _OPAQUE)
def queued_jobs(it: ServerKit) -> None:
    """Queued jobs of one client keep their own data, even if all data has the same size."""
    _keeps_data(it, SubmitJob, SubmitJobHigh, SubmitJobBg)


@case("size/jobs/4", MUST, _OPAQUE)
def queued_low_jobs(it: ServerKit) -> None:
    """Queued jobs of all priorities keep their own data, even if all data has the same size."""
    _keeps_data(it, SubmitJob, SubmitJobLow, SubmitJobHighBg, SubmitJobLowBg)


@case("size/jobs/5", MUST, _OPAQUE, requires=("epoch",))
def jobs_for_later(it: ServerKit) -> None:
    """Jobs of SUBMIT_JOB_EPOCH keep their own data, even if all data has the same size."""
    _keeps_data(it, lambda function, unique, sent: SubmitJobEpoch(function, unique, b"1", sent))


@case("size/functions/1", SHOULD, 'CAN_DO: "the worker is able to perform the given function"')
def many_functions(it: ServerKit) -> None:
    """A worker with three hundred functions receives a job of each."""
    functions = [it.another(f"{number}") for number in range(300)]
    client, worker = it.client(), it.worker(*functions)
    client.send(*[SubmitJobBg(name, b"", b"for " + name) for name in functions])
    made = {client.expect(JobCreated).handle: name for name in functions}
    worker.ask(len(functions))
    jobs = [worker.assigned() for _ in functions]
    worker.tell(*[WorkComplete(job.handle, b"result") for job in jobs])
    given = {job.handle: job.function for job in jobs}
    demand(given == made, "a job of each function, with its handle", "others")
    demand(all(job.data == b"for " + job.function for job in jobs), "the data of each", "other")


@case("size/clients/1", MUST, _FORWARDS, requires=("coalescing",))
def many_clients(it: ServerKit) -> None:
    """A hundred clients that wait for the same job all receive its result, once each."""
    clients, worker = [it.client() for _ in range(100)], it.worker()
    handles = {client.submit(unique=it.another("u")) for client in clients}
    demand(len(handles) == 1, "one handle", sorted(handles))
    end = WorkComplete(handles.pop(), noise(it.function, 1000))
    worker.grab(handle=end.handle)
    worker.send(end)
    for client in clients:
        client.gets(end)
        client.nothing()
    worker.grab_nothing()


@case("size/status/1", MUST, 'STATUS_RES: "Percent complete numerator"')
def many_statuses(it: ServerKit) -> None:
    """Each of twelve running jobs has the progress that its worker has sent."""
    client, worker, asking = it.client(), it.worker(), it.client()
    handles = [client.submit(kind=SubmitJobBg) for _ in range(12)]
    for handle in handles:
        worker.grab(handle=handle)
    numbers = {handle: (b"%d" % n, b"%d" % (n * n + 50)) for n, handle in enumerate(handles, 1)}
    worker.tell(*[WorkStatus(handle, *numbers[handle]) for handle in handles])
    asking.send(*[GetStatus(handle) for handle in reversed(handles)])
    for handle in reversed(handles):
        asking.gets(StatusRes(handle, b"1", b"1", *numbers[handle]))
    worker.complete_all(handles)
