"""Cases about what a server could forget, keep too long, or lose after many repetitions."""

from __future__ import annotations

from typing import Final

from gearman_proto.testing.conformance.case import (
    MUST,
    SHOULD,
    demand,
)
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    Error,
    GetStatus,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    ResetAbilities,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

_STORED: Final = 'WORK_STATUS: "The job server should store this information"'
_GEARMAND: Final = "not in the document: gearmand 1.1 and 2.0 do this"
_RUNNING: Final = 'SUBMIT_JOB: "This includes jobs already in progress"'
_EPOCH: Final = 'SUBMIT_JOB_EPOCH: "Just like SUBMIT_JOB_BG, but run job at given time"'
_RESET: Final = 'RESET_ABILITIES: "no longer able to do any functions it previously registered"'
_CANT_DO: Final = 'CANT_DO: "the worker is no longer able to perform the given function"'
_WOKEN: Final = 'PRE_SLEEP: "woken up with a NOOP packet if a job comes in"'
_ENDED: Final = 'STATUS_RES: "to see if the job has been completed"'
_CREATED: Final = 'SUBMIT_JOB: "assign a job handle and respond with a JOB_CREATED packet"'
_MANY: Final = 120


# Progress and status.


@case("status/handle/9", SHOULD, _STORED)
def third_update(it: ServerKit) -> None:
    """STATUS_RES reports the latest of many updates, even if they go down or arrive together."""
    client, worker, handle = it.running(SubmitJobBg)
    numbers = [(b"1", b"9"), (b"10", b"90"), (b"3", b"8"), (b"0", b"7"), (b"77", b"777")]
    for numerator, denominator in numbers:
        worker.tell(WorkStatus(handle, numerator, denominator))
        got = client.status(handle)
        demand((got.numerator, got.denominator) == (numerator, denominator), "the latest", got)
    worker.tell(*[WorkStatus(handle, *pair) for pair in numbers[:4] * 3])
    got = client.status(handle)
    demand((got.known, got.running) == (b"1", b"1"), "a running job", got)
    demand((got.numerator, got.denominator) == numbers[3], "the latest update", got)
    worker.complete(handle)


@case("status/handle/11", MUST, _ENDED, known={"it goes on": ("perl",)})
def raised(it: ServerKit) -> str | None:
    """If a client is told of its job's failure after WORK_EXCEPTION, the job is unknown."""
    client, worker, handle = it.running(unique=it.another("u"))
    worker.tell(WorkStatus(handle, b"1", b"3"), WorkException(handle, b"exception"))
    client.expect(WorkStatus, handle=handle)
    told, status = client.settle(), client.status(handle)
    if not told:
        worker.send(WorkFail(handle))
        client.expect(WorkFail, handle=handle)
        return "it goes on"
    numbers = (status.known, status.running, status.numerator, status.denominator)
    demand(numbers[:2] == (b"0", b"0"), "an unknown job", status)
    demand({*numbers[2:]} <= {b"0", b""}, "no progress", status)
    worker.grab_nothing()
    second = client.submit(unique=it.another("u"))
    demand(second != handle, "a new job", second)
    worker.run(handle=second)
    return None


@case("status/again/1", MUST, 'STATUS_RES: "NULL byte terminated job handle"')
def many_questions(it: ServerKit) -> None:
    """Each of a hundred pipelined GET_STATUS is answered in order, between other requests."""
    client, worker, handle = it.running(SubmitJobBg)
    queued = client.submit(kind=SubmitJobBg)
    worker.tell(WorkStatus(handle, b"5", b"6"))
    for _ in range(25):
        client.send(GetStatus(handle), GetStatus(queued), GetStatus(b"H:none"), GetStatus(handle))
    for _ in range(25):
        client.expect(StatusRes, handle=handle, running=b"1", numerator=b"5", denominator=b"6")
        client.expect(StatusRes, handle=queued, known=b"1", running=b"0")
        client.expect(StatusRes, handle=b"H:none", known=b"0", running=b"0")
        client.expect(StatusRes, handle=handle, running=b"1", numerator=b"5", denominator=b"6")
    worker.complete(handle)
    worker.run(handle=queued)


@case("submit/coalesce/13", SHOULD, _RUNNING, requires=("coalescing", "data"))
def no_old_updates(it: ServerKit) -> None:
    """A client that joins a running job receives no packet that was sent before."""
    client, worker, handle = it.running(unique=it.another("u"))
    old = [
        WorkData(handle, b"old\0"),
        WorkWarning(handle, b"\0old"),
        WorkStatus(handle, b"1", b"9"),
    ]
    worker.tell(*old)
    other = it.client()
    other.submit(unique=it.another("u"))
    other.nothing()
    new = [WorkData(handle, b"new\0"), WorkStatus(handle, b"2", b"9"), WorkComplete(handle, b"end")]
    worker.tell(*new)
    other.gets(*new)
    client.gets(*old, *new)
    for each in (client, other):
        each.nothing()


@case("submit/coalesce/14", MUST, _GEARMAND)
def after_a_failure(it: ServerKit) -> None:
    """A submit with the unique of a failed job creates a new job, whose client gets its result."""
    client, other, worker = it.client(), it.client(), it.worker()
    handle = client.submit(b"first", unique=it.another("u"))
    worker.grab(handle=handle)
    worker.tell(WorkFail(handle))
    client.gets(WorkFail(handle))
    second = other.submit(b"second", unique=it.another("u"))
    demand(second != handle, "a new handle", second)
    worker.run(b"of the second", handle=second, data=b"second")
    other.gets(WorkComplete(second, b"of the second"))
    client.nothing()


# Functions.


@case("ability/reset/4", MUST, _RESET, requires=("timeouts",))
def reset_with_timeout(it: ServerKit) -> None:
    """RESET_ABILITIES also removes functions registered with CAN_DO_TIMEOUT."""
    client, other, asleep = it.client(), it.worker(it.another("x")), it.worker(it.another("x"))
    for line in (other, asleep):
        line.tell(CanDoTimeout(it.function, b"60000"), CanDo(it.another("y")), ResetAbilities())
    asleep.sleep()
    client.submit(kind=SubmitJobBg)
    asleep.nothing()
    other.grab_nothing()
    it.worker().run()


@case("ability/timeout/3", SHOULD, _CANT_DO, requires=("timeouts",))
def both_registrations(it: ServerKit) -> None:
    """CANT_DO removes a function that was registered with both CAN_DO and CAN_DO_TIMEOUT."""
    client, workers, limit = it.client(), (it.worker(), it.worker(it.another("x"))), b"60000"
    workers[0].tell(CanDoTimeout(it.function, limit), CantDo(it.function))
    workers[1].tell(CanDoTimeout(it.function, limit), CanDo(it.function), CantDo(it.function))
    client.submit(kind=SubmitJobBg)
    for worker in workers:
        worker.grab_nothing()
    workers[0].tell(CanDoTimeout(it.function, limit))
    workers[0].run()


@case("ability/again/2", SHOULD, _CANT_DO)
def many_registrations(it: ServerKit) -> None:
    """After a hundred CAN_DO and CANT_DO of a function, the last one counts."""
    client, worker, other = it.client(), it.worker(it.another("x")), it.worker(it.another("x"))
    worker.tell(*[CanDo(it.function), CantDo(it.function)] * 100, CanDo(it.function))
    other.tell(*[CanDo(it.function), CantDo(it.function)] * 100)
    for line in (worker, other):
        line.sleep()
    client.submit(kind=SubmitJobBg)
    other.nothing()
    other.grab_nothing()
    worker.expect(Noop)
    worker.nothing()
    worker.run()


@case("submit/function/4", SHOULD, "not in the document: gearmand 1.1 and 2.0 compare bytes")
def odd_names(it: ServerKit) -> None:
    """Function names with blanks or non-ASCII bytes reach workers unchanged, and stay different."""
    name = it.function
    names = [name, name + b" ", b" " + name, name + b" x", name + b"  x", name + b"\t"]
    names += [name + end for end in (b"\xc3\xbc", b"u\xcc\x88", b"\xff\x80", b"\xe9", b"\xff")]
    client, workers = it.client(), [it.worker(each) for each in names]
    handles = [client.submit(each + b"\0", function=each) for each in names]
    for worker, each, handle in zip(workers, names, handles, strict=True):
        job = worker.grab(handle=handle)
        demand((job.function, job.data) == (each, each + b"\0"), f"the function {each!r}", job)
        worker.complete(handle, b"\0" + each)
        worker.grab_nothing()
        client.gets(WorkComplete(handle, b"\0" + each))


# Jobs for later.


@case("submit/epoch/4", SHOULD, _EPOCH, requires=("epoch", "grab-uniq"))
def epoch_with_unique(it: ServerKit) -> None:
    """A SUBMIT_JOB_EPOCH job keeps its unique, and its data with NULs."""
    client, worker = it.client(), it.worker()
    worker.sleep()
    for number, data in enumerate((b"\0", b"a\0b\0\0", b"5\0" + bytes(range(256)), b"")):
        unique = it.another(f"u{number}")
        handle = client.created(SubmitJobEpoch(it.function, unique, b"1", data))
        worker.expect(Noop)
        worker.run(handle=handle, function=it.function, unique=unique, data=data)
        worker.grab_nothing()
        worker.sleep()
    client.nothing()


@case("submit/epoch/5", SHOULD, _EPOCH, requires=("epoch", "coalescing"))
def epoch_joined(it: ServerKit) -> None:
    """A SUBMIT_JOB_EPOCH job joins, and is joined, by its unique."""
    client, worker, unique = it.client(), it.worker(), it.another("u")
    handle = client.created(SubmitJobEpoch(it.function, unique, b"1", b"first"))
    for again in (
        SubmitJobEpoch(it.function, unique, b"2", b"x"),
        SubmitJob(it.function, unique, b"y"),
    ):
        got = client.created(again)
        demand(got == handle, f"the handle {handle!r} again", got)
    worker.run(handle=handle, data=b"first")
    client.gets(WorkComplete(handle, b"result"))
    client.nothing()
    worker.grab_nothing()


# Sleep.


@case("sleep/write/1", MUST, _WOKEN)
def one_write(it: ServerKit) -> None:
    """WORK_COMPLETE and PRE_SLEEP in one write both take effect."""
    client, worker, handle = it.running()
    for number in range(3):
        worker.send(WorkComplete(handle, b"result %d" % number), PreSleep())
        # Perl's server sends the NOOP too early.
        got = worker.settle()
        client.gets(WorkComplete(handle, b"result %d" % number))
        handle = client.submit()
        got += worker.settle()
        demand(got == [Noop()], "one NOOP", got)
        worker.grab(handle=handle)
    second = client.submit()
    # A job is queued, so the NOOP follows at once.
    worker.send(WorkFail(handle), PreSleep())
    worker.expect(Noop)
    client.gets(WorkFail(handle))
    worker.run(handle=second)
    client.gets(WorkComplete(second, b"result"))
    client.nothing()


@case("sleep/again/2", MUST, _WOKEN)
def many_times(it: ServerKit) -> None:
    """A worker is woken for each of more than a hundred jobs, and each client gets its result."""
    client, worker = it.client(), it.worker()
    handles = set()
    for number in range(_MANY):
        # If the submit is processed first, PRE_SLEEP is answered with NOOP at once.
        worker.send(PreSleep())
        handle = client.submit(b"%d" % number)
        worker.expect(Noop)
        worker.ask()
        worker.assigned(handle=handle, data=b"%d" % number)
        worker.send(
            WorkStatus(handle, b"%d" % number, b"999"), WorkComplete(handle, b"%d" % number)
        )
        client.gets(
            WorkStatus(handle, b"%d" % number, b"999"), WorkComplete(handle, b"%d" % number)
        )
        handles.add(handle)
    demand(len(handles) == _MANY, "a new handle for each job", f"{len(handles)} handles")


@case("submit/again/1", MUST, _CREATED)
def many_at_once(it: ServerKit) -> None:
    """A hundred jobs, sent in one write, run once each, with their own data and results."""
    client, worker = it.client(), it.worker()
    data = [b"%d\0" % number * (number % 7 + 1) for number in range(_MANY)]
    kinds = [(SubmitJobBg, SubmitJob)[number % 2] for number in range(_MANY)]
    client.send(*[kind(it.function, b"", each) for kind, each in zip(kinds, data, strict=True)])
    made = [client.expect(JobCreated).handle for _ in data]
    demand(len({*made}) == _MANY, "a handle for each job", len({*made}))
    worker.ask(_MANY + 1)
    for handle, each in zip(made, data, strict=True):
        worker.assigned(handle=handle, function=it.function, data=each)
    worker.gets(NoJob())
    ends = [WorkComplete(*pair) for pair in zip(made, data, strict=True)][::-1]
    worker.tell(*ends)
    client.gets(*ends[::2])
    client.nothing()


@case("wire/unexpected/3", SHOULD, 'ERROR: "whenever the server encounters an error"')
def many_errors(it: ServerKit) -> None:
    """After a hundred packets that are answered with ERROR, a connection still works."""
    client, worker = it.client(), it.worker()
    client.send_anyway(*[Noop()] * 100)
    for _ in range(100):
        client.expect(Error)
    handle = client.submit(b"after\0")
    worker.run(b"\0result", data=b"after\0")
    client.gets(WorkComplete(handle, b"\0result"))
    client.nothing()
