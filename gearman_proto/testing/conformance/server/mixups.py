"""Cases about jobs and connections that a server could confuse with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    ResetAbilities,
    SetClientId,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORWARDS: Final = (
    'Client Responses: "the server forwards these packets from the worker to clients"'
)
_GEARMAND: Final = "not in the document: gearmand 1.1 and 2.0 do this"
_LISTENING: Final = 'WORK_EXCEPTION: "notify the server (and any listening clients)"'
_PERFORM: Final = 'CAN_DO: "the worker is able to perform the given function"'
_GRABS: Final = "GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL: each is answered with its own packet"
_ASSIGNED: Final = 'JOB_ASSIGN_UNIQ: "with the client assigned unique ID"'
_IDS: Final = 'workers: "FD IP-ADDRESS CLIENT-ID : FUNCTION ..."'
_WAITS: Final = "the server waits for the WORK_FAIL of the worker"
_NUL: Final = "WORK_FAIL with a NUL after the handle"


def _updates(handle: bytes, name: bytes) -> Sequence[Event]:
    """Return updates of a job that differ from those of all other jobs."""
    number = b"%d" % len(name)
    return (
        WorkData(handle, name + b"\0data"),
        WorkStatus(handle, number, number + b"00"),
        WorkWarning(handle, b"warning\0" + name),
        WorkData(handle, name + b" again"),
    )


# Packets of several jobs.


@case("work/clients/3", MUST, _FORWARDS, requires=("data",))
def two_jobs(it: ServerKit) -> None:
    """The updates of each of a worker's two jobs reach only the client of that job, unchanged."""
    clients, worker = (it.client(), it.client()), it.worker()
    handles = [client.submit(b"%d" % number) for number, client in enumerate(clients)]
    for handle in handles:
        worker.grab(handle=handle)
    names = it.another("one"), it.another("second")
    sent = [_updates(handle, name) for handle, name in zip(handles, names, strict=True)]
    for first, second in zip(*sent, strict=True):
        worker.send(first, second)
    ends = [WorkComplete(handle, b"end of " + handle) for handle in handles]
    worker.tell(*reversed(ends))
    for client, updates, end in zip(clients, sent, ends, strict=True):
        client.gets(*updates, end)
        client.nothing()


@case("work/clients/4", MUST, _FORWARDS)
def many_results(it: ServerKit) -> None:
    """Each of twenty clients receives the result and status of its own job, and no others."""
    clients, workers = [it.client() for _ in range(20)], [it.worker(), it.worker()]
    for number, client in enumerate(clients):
        client.submit(b"%d" % number)
    held = [(workers[number % 2], workers[number % 2].grab()) for number in range(20)]
    for worker, job in reversed(held):
        worker.send(
            WorkStatus(job.handle, job.data, b"99"), WorkComplete(job.handle, b"for " + job.data)
        )
    for worker in workers:
        worker.nothing()
    for number, (client, (_, job)) in enumerate(zip(clients, held, strict=True)):
        name = b"%d" % number
        client.gets(WorkStatus(job.handle, name, b"99"), WorkComplete(job.handle, b"for " + name))
        client.nothing()


@case("work/clients/5", SHOULD, _FORWARDS, requires=("data", "coalescing"))
def all_kinds_to_all(it: ServerKit) -> None:
    """All clients of a job receive its WORK_DATA, WORK_WARNING, WORK_STATUS and WORK_FAIL."""
    clients, worker = [it.client() for _ in range(3)], it.worker()
    for client in clients:
        client.submit(unique=it.another("u"))
    handle = worker.grab().handle
    sent = [*_updates(handle, it.another("job")), WorkFail(handle)]
    for event in sent:
        worker.send(event)
        for client in clients:
            client.gets(event)
    for client in clients:
        client.nothing()


@case("work/fail/4", MUST, _FORWARDS)
def one_fails(it: ServerKit) -> None:
    """If one of a worker's jobs fails, only its client is told, and the others go on."""
    clients, worker = [it.client() for _ in range(3)], it.worker()
    handles = [client.submit(b"%d" % number) for number, client in enumerate(clients)]
    for handle in handles:
        worker.grab(handle=handle)
    worker.send(WorkFail(handles[1]))
    clients[1].gets(WorkFail(handles[1]))
    for client, handle in zip(clients, handles, strict=True):
        known = client.status(handle).known
        demand(
            known == (b"0" if handle == handles[1] else b"1"), "only the failed one unknown", known
        )
    worker.grab_nothing()
    for client, handle in ((clients[2], handles[2]), (clients[0], handles[0])):
        worker.send(WorkComplete(handle, b"for " + handle))
        client.gets(WorkComplete(handle, b"for " + handle))
    for client in clients:
        client.nothing()


@case("wire/order/2", MUST, "not in the document: servers keep connections apart")
def many_connections(it: ServerKit) -> None:
    """Each of twenty connections receives its own answers, in order."""
    clients, worker = [it.client() for _ in range(20)], it.worker()
    handles = [client.submit(kind=SubmitJobBg) for client in clients]
    for number, client in enumerate(clients):
        data = b"%d\0" % number * (20 - number)
        client.send(*[EchoReq(data)] if client.has_echo else [], GetStatus(b"H:%d" % number))
        client.send(SubmitJobBg(it.function, b"", data), GetStatus(handles[number]))
    made = []
    for number, client in enumerate(clients):
        if client.has_echo:
            client.gets(EchoRes(b"%d\0" % number * (20 - number)))
        client.expect(StatusRes, handle=b"H:%d" % number, known=b"0")
        made.append(client.expect(JobCreated).handle)
        client.expect(StatusRes, handle=handles[number], known=b"1")
    jobs = {job.handle: job.data for job in worker.run_all(40)}
    for number, handle in enumerate(made):
        wanted = b"%d\0" % number * (20 - number)
        demand(jobs[handle] == wanted, f"the data {wanted!r} for {handle!r}", jobs[handle])


@case("exception/forward/3", MUST, _LISTENING, requires=("options",))
def several_exceptions(it: ServerKit) -> None:
    """The exception of each of a worker's jobs reaches only the client of that job, at once."""
    clients, worker = [it.client(exceptions=True) for _ in range(3)], it.worker()
    handles = [client.submit(b"%d" % number) for number, client in enumerate(clients)]
    for handle in handles:
        worker.grab(handle=handle)
    for number in (1, 2, 0):
        error = WorkException(handles[number], b"\0exception of %d" % number)
        worker.send(error)
        clients[number].gets(error)
        clients[number].nothing()
    for client, handle in zip(clients, handles, strict=True):
        worker.send(WorkFail(handle))
        worker.heard()
        client.settle()


@case("status/handle/10", MUST, 'WORK_STATUS: "The job server should store this information"')
def separate_progress(it: ServerKit) -> None:
    """The progress of each of a worker's jobs is stored separately."""
    client, worker = it.client(), it.worker()
    handles = [client.submit(b"%d" % number, kind=SubmitJobBg) for number in range(3)]
    for handle in handles:
        worker.grab(handle=handle)
    wanted = dict.fromkeys(handles, (b"0", b"0"))
    for number in (2, 0, 1, 2):
        wanted[handles[number]] = b"%d" % (number + 4), b"%d0" % (number + 4)
        worker.tell(WorkStatus(handles[number], *wanted[handles[number]]))
        for handle, numbers in wanted.items():
            status = client.status(handle)
            got = status.numerator or b"0", status.denominator or b"0"
            demand(got == numbers, f"the progress {numbers}", status)
    worker.complete_all(handles)


@case("grab/kinds/1", MUST, _GRABS, requires=("grab", "grab-uniq", "grab-all", "reduce"))
def mixed_grabs(it: ServerKit) -> None:
    """Pipelined grabs of different types are answered in order, each with its own packet."""
    client, worker, unique, job = it.client(), it.worker(), it.another("u"), it.function
    made = [
        client.created(SubmitReduceJobBackground(job, b"", b"reducer", b"", b"all\0\0")),
        client.submit(b"\0plain", unique=unique, kind=SubmitJobBg),
        client.submit(b"uniq\0", kind=SubmitJobBg),
    ]
    worker.send(GrabJobAll(), GrabJob(), GrabJobUniq(), GrabJob(), GrabJobUniq())
    worker.gets(
        JobAssignAll(made[0], job, b"", b"reducer", b"all\0\0"),
        JobAssign(made[1], job, b"\0plain"),
        JobAssignUniq(made[2], job, b"", b"uniq\0"),
        *[NoJob()] * 2,
    )
    worker.complete_all(made)


@case("grab/unique/3", SHOULD, _ASSIGNED, requires=("grab-uniq",))
def uniques_of_several(it: ServerKit) -> None:
    """Each job is assigned with its own unique and data, even after jobs with longer ones."""
    client, worker = it.client(), it.worker()
    uniques = [it.another("a long unique"), b"", it.another("short"), b"", it.another("u")]
    for number, unique in enumerate(uniques):
        client.submit(unique * 3 + b"%d" % number, unique=unique, kind=SubmitJobBg)
    for number, unique in enumerate(uniques):
        worker.run(unique=unique, data=unique * 3 + b"%d" % number)
    worker.grab_nothing()


@case("submit/reduce/3", SHOULD, requires=("reduce", "grab", "grab-uniq", "grab-all"))
def every_grab(it: ServerKit) -> None:
    """Jobs with a reducer reach all types of grabs with their unique and data unchanged.

    Source: SUBMIT_REDUCE_JOB_BACKGROUND: "Just like SUBMIT_REDUCE_JOB, but for a background job"
    """
    client, worker, job = it.client(), it.worker(), it.function
    for kind in (SubmitReduceJob, SubmitReduceJobBackground):
        for number, grab in enumerate((GrabJobAll(), GrabJobUniq(), GrabJob())):
            unique, data = it.another(f"{kind.__name__[6:]}{number}")[-60:], b"\0a\0%d\0" % number
            handle = client.created(kind(job, unique, b"by %d" % number, b"", data))
            worker.send(grab)
            worker.gets(
                (
                    JobAssignAll(handle, job, unique, b"by 0", data),
                    JobAssignUniq(handle, job, unique, data),
                    JobAssign(handle, job, data),
                )[number]
            )
            worker.complete(handle, data)
            client.gets(*[WorkComplete(handle, data)] if kind is SubmitReduceJob else [])
            client.nothing()


# Exceptions of several clients.


@case(
    "exception/clients/1",
    SHOULD,
    _LISTENING,
    known={_NUL: GEARMANDS, _WAITS: ("perl",)},
    requires=("options", "coalescing", "data"),
)
def four_clients(it: ServerKit) -> str | None:
    """Each client of a job receives its warning, and its exception as requested or as WORK_FAIL."""
    clients = [it.client(exceptions=number % 2 == 0) for number in range(4)]
    worker = it.worker()
    for client in clients:
        client.submit(unique=it.another("u"))
    handle = worker.grab().handle
    worker.send(WorkWarning(handle, b"a\0warning"), WorkException(handle, b"an\0exception"))
    worker.settle()
    for client in clients:
        client.gets(WorkWarning(handle, b"a\0warning"))
    for client in clients[::2]:
        client.gets(WorkException(handle, b"an\0exception"))
        client.nothing()
    got = [client.settle() for client in clients[1::2]]
    if got == [[], []]:
        worker.send(WorkFail(handle))
        for client in clients[1::2]:
            client.gets(WorkFail(handle))
        return _WAITS
    known = [[WorkFail(handle)]] * 2, [[WorkFail(handle, b"")]] * 2
    demand(got in known, f"{WorkFail(handle)} for both", got)
    return _NUL if got == known[1] else None


@case("option/exceptions/3", MUST, requires=("options",))
def after_an_error(it: ServerKit) -> None:
    """The option remains in effect after an ERROR and after earlier exceptions.

    Source: OPTION_REQ: "Forward WORK_EXCEPTION packets to the client"
    """
    client, worker = it.client(exceptions=True), it.worker()
    for number in range(3):
        client.send(OptionReq(b"conformance"))
        client.expect(Error)
        handle = client.submit()
        worker.grab()
        worker.send(WorkException(handle, b"exception %d" % number))
        worker.settle()
        client.gets(WorkException(handle, b"exception %d" % number))
        worker.send(WorkFail(handle))
        worker.heard()
        client.settle()


# Packets that affect other connections.


def _closed(*lines: Line) -> None:
    """Half-close connections, and wait until the server has closed them too."""
    for line in lines:
        line.half_close()
        line.rest()
        line.close()


@case("leave/new/1", MUST, _FORWARDS)
def new_connections(it: ServerKit) -> None:
    """New connections inherit neither jobs, functions, nor options of closed ones."""
    client, worker, asleep = it.client(), it.worker(), it.worker()
    handle = client.submit()
    worker.grab(handle=handle)
    # On Perl's server, this removes the assigned job from the queue.
    asleep.grab_nothing()
    asleep.sleep()
    _closed(client, asleep)
    others = [it.client() for _ in range(4)]
    for other in others:
        other.nothing()
    worker.send(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    worker.heard()
    others[0].submit(kind=SubmitJobBg)
    for other in others:
        other.nothing()
        other.grab_nothing()
    worker.run()


@case("option/new/1", MUST, known={_NUL: GEARMANDS, _WAITS: ("perl",)}, requires=("options",))
def new_options(it: ServerKit) -> str | None:
    """A new connection does not inherit the option of a closed one.

    Source: OPTION_REQ: "Set an option for the connection"
    """
    _closed(*[it.client(exceptions=True) for _ in range(3)])
    clients, worker, told = [it.client() for _ in range(3)], it.worker(), None
    for client in clients:
        handle = client.submit()
        worker.grab()
        worker.send(WorkException(handle, b"exception"))
        worker.settle()
        got = client.settle()
        if not got:
            worker.send(WorkFail(handle))
            got, told = [client.expect(WorkFail, handle=handle)], _WAITS
        kinds = [WorkFail(handle)], [WorkFail(handle, b"")]
        demand(got in kinds, f"{WorkFail(handle)}", got)
        told = _NUL if got == kinds[1] else told
    return told


def _ids(it: ServerKit) -> dict[bytes, bytes]:
    """Return the id of each connection of this case with a function, by its first function."""
    words = [line.partition(b" : ") for line in it.admin().list(b"workers")]
    return {
        functions.split(b" ")[0]: head.split(b" ")[-1]
        for head, _, functions in words
        if functions.startswith(it.function)
    }


@case("id/new/1", SHOULD, _IDS, requires=("workers",))
def own_ids(it: ServerKit) -> None:
    """`workers` lists each connection with its own id, which remains after other packets."""
    names = [it.another(f"{number}") for number in range(3)]
    workers = [it.worker(name) for name in names]
    for worker, name in zip(workers, names, strict=True):
        worker.tell(SetClientId(b"id-of-" + name))
    workers[0].grab_nothing()
    workers[1].sleep()
    it.client().submit(kind=SubmitJobBg, function=names[2])
    workers[2].run()
    wanted = {name: b"id-of-" + name for name in names}
    ids = _ids(it)
    demand(ids == wanted, f"{wanted}", ids)


@case("id/new/2", SHOULD, _IDS, requires=("workers",))
def no_old_id(it: ServerKit) -> None:
    """A new connection does not inherit the id of a closed one."""
    lines = [it.worker() for _ in range(3)]
    for line in lines:
        line.tell(SetClientId(it.another("old")))
    _closed(*lines)
    names = [it.another(f"new{number}") for number in range(3)]
    workers = [it.worker(name) for name in names]
    ids = _ids(it)
    demand(len(ids) == len(workers), "a line for each new worker", ids)
    demand(it.another("old") not in ids.values(), "no id, or another one", ids)


def _affects_only_itself(it: ServerKit, packet: Event) -> None:
    """Check that a packet of one worker does not affect others of the same function."""
    client, worker, other = it.client(), it.worker(), it.worker()
    worker.sleep()
    other.tell(packet)
    for _ in range(2):
        client.submit(kind=SubmitJobBg)
        worker.woken()
        worker.grab_nothing()
        worker.sleep()
        other.grab_nothing()


@case("ability/cant/7", MUST, _PERFORM)
def cant_do_of_another(it: ServerKit) -> None:
    """CANT_DO does not affect other workers of the function, even while they sleep."""
    _affects_only_itself(it, CantDo(it.function))


@case("ability/reset/3", MUST, _PERFORM)
def reset_of_another(it: ServerKit) -> None:
    """RESET_ABILITIES does not affect other workers, even while they sleep."""
    _affects_only_itself(it, ResetAbilities())


@case("ability/close/1", MUST, _PERFORM)
def end_of_another(it: ServerKit) -> None:
    """The end of a worker does not affect other workers of the function, even while they sleep."""
    client, worker, others = it.client(), it.worker(), [it.worker() for _ in range(3)]
    for each in (worker, *others):
        each.sleep()
    _closed(*others)
    for _ in range(2):
        client.submit(kind=SubmitJobBg)
        worker.woken()
        worker.grab_nothing()
        worker.sleep()


@case("ability/cant/8", SHOULD, _PERFORM)
def holds_another(it: ServerKit) -> None:
    """A worker keeps its job if it removes or adds other functions, or registers the same again."""
    client, worker, other = it.client(), it.worker(it.another("x"), it.function), it.worker()
    handle = client.submit()
    worker.grab(handle=handle)
    worker.tell(CantDo(it.another("x")), CanDo(it.another("y")), CanDo(it.function))
    worker.tell(SetClientId(it.another("id")))
    other.grab_nothing()
    worker.tell(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    client.gets(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    client.nothing()


@case(
    "work/error/1", MUST, 'ERROR: "whenever the server encounters an error"', requires=("options",)
)
def keeps_its_state(it: ServerKit) -> None:
    """After an ERROR, a client keeps its job, and a worker its jobs, functions and sleep."""
    client, worker, handle = it.running()
    for line in (client, worker):
        line.send(OptionReq(b"conformance"))
        line.expect(Error)
    worker.send(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    client.gets(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    worker.grab_nothing()
    worker.sleep()
    worker.send(OptionReq(b"conformance"))
    worker.expect(Error)
    handle = client.submit()
    worker.woken(handle=handle)
    client.gets(WorkComplete(handle, b"result"))


@case("sleep/other/1", SHOULD, _GEARMAND, requires=("options",))
def busy_sleeper(it: ServerKit) -> None:
    """A sleeping worker is still woken after requests of any type, except a grab."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("other"))
    worker.sleep()
    handle = worker.submit(function=it.another("other"))
    worker.send(GetStatus(handle), OptionReq(b"exceptions"), SetClientId(it.another("id")))
    worker.expect(StatusRes, handle=handle, known=b"1")
    worker.settle()
    other.run(b"result", handle=handle)
    worker.gets(WorkComplete(handle, b"result"))
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/join/1", SHOULD, _GEARMAND, requires=("coalescing",))
def joining_wakes_nobody(it: ServerKit) -> None:
    """A submit that joins a running job wakes no worker."""
    client, worker, handle = it.running(unique=it.another("u"))
    asleep, joiners = it.worker(), (it.client(), it.client())
    # On Perl's server, this removes the assigned job from the queue.
    asleep.grab_nothing()
    asleep.sleep()
    for joiner, kind in zip(joiners, (SubmitJob, SubmitJobBg), strict=True):
        again = joiner.submit(unique=it.another("u"), kind=kind)
        demand(again == handle, f"the handle {handle!r} again", again)
        asleep.nothing()
    worker.complete(handle)
    for each in (client, joiners[0]):
        each.gets(WorkComplete(handle, b"result"))
    second = client.submit(unique=it.another("u"))
    asleep.woken(handle=second)


@case("sleep/holding/2", SHOULD, 'PRE_SLEEP: "woken up with a NOOP packet if a job comes in"')
def one_of_two_holds(it: ServerKit) -> None:
    """A job wakes as many of two sleeping workers if one of them holds a job as if none does."""
    client, pair, held = it.client(), (it.worker(), it.worker()), []
    counts = []
    for number in (0, 1, 0):
        for worker in pair:
            worker.sleep()
        handle = client.submit(kind=SubmitJobBg)
        got = [worker.settle() for worker in pair]
        demand(all(each in ([], [Noop()]) for each in got), "at most one NOOP for each", got)
        counts.append(sum(map(len, got)))
        pair[number].grab(handle=handle)
        pair[1 - number].grab_nothing()
        held.append(handle)
        if len(held) > 1:
            pair[1 - number].complete(held.pop(0))
    pair[0].complete(held[0])
    demand(len({*counts}) == 1 and counts[0], "the same number each time", counts)


@case("sleep/again/1", INFO, known={"it is not woken": GEARMANDS, "it is woken": ("perl",)})
def sleeps_after_noop(it: ServerKit) -> str:
    """Wake-up of a worker that has answered a NOOP with PRE_SLEEP instead of a grab.

    Source: not in the document: gearmand 1.1 and 2.0 wake it only after a grab
    """
    client, worker, other = it.client(), it.worker(), it.worker()
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    other.run()
    other.grab_nothing()
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    got = worker.settle()
    demand(got in ([], [Noop()]), "one NOOP, or none", got)
    worker.run()
    return "it is woken" if got else "it is not woken"
