"""Cases about the second and the tenth packet of a type, and about those of other connections."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import MUST, SHOULD, demand
from gearman_proto.testing.conformance.kit import noise
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    GrabJobAll,
    JobAssignAll,
    Noop,
    OptionReq,
    OptionRes,
    ResetAbilities,
    SetClientId,
    SubmitJobBg,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkException,
    WorkFail,
    WorkStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.wire.packets import Event

_ABILITIES: Final = 'CAN_DO: "the worker is able to perform the given function"'
_CANT_DO: Final = 'CANT_DO: "the worker is no longer able to perform the given function"'
_FORWARDS: Final = (
    'Client Responses: "the server forwards these packets from the worker to clients"'
)
_STATUS: Final = 'STATUS_RES_UNIQUE: "in response to a GET_STATUS_UNIQUE request"'
_IDS: Final = 'workers: "FD IP-ADDRESS CLIENT-ID : FUNCTION ..."'
_OPTION: Final = 'OPTION_REQ: "Set an option for the connection"'
_ALL: Final = "JOB_ASSIGN_ALL: with the reducer of the job"
_SLEEP: Final = 'PRE_SLEEP: "woken up with a NOOP packet if a job comes in"'


def _names(it: ServerKit) -> list[bytes]:
    return [it.another(f"{number}-{number * number}") for number in range(12)]


def _serves_all(it: ServerKit, register: Callable[[bytes], Event]) -> None:
    """Check that a worker gets the jobs of twelve functions, and another worker gets none."""
    names, client, other = _names(it), it.client(), it.worker()
    worker = it.worker(it.another("x"))
    worker.tell(*map(register, names))
    for name in names:
        other.nothing()
        handle = client.submit(name, function=name, kind=SubmitJobBg)
        other.grab_nothing()
        worker.run(handle=handle, function=name, data=name)
    other.nothing()


@case("ability/again/3", MUST, _ABILITIES)
def twelve_functions(it: ServerKit) -> None:
    """A worker with twelve functions gets the jobs of each, and another worker gets none."""
    _serves_all(it, CanDo)


@case("ability/again/5", MUST, _ABILITIES, requires=("timeouts",))
def twelve_limited_functions(it: ServerKit) -> None:
    """Twelve functions can be registered with CAN_DO_TIMEOUT, and only by their own worker."""
    _serves_all(it, lambda name: CanDoTimeout(name, b"60000"))


@case("ability/again/4", MUST, _CANT_DO)
def twelve_removed(it: ServerKit) -> None:
    """A worker that removes each of its twelve functions gets no jobs, even if it does so twice."""
    names, client = _names(it), it.client()
    worker, other = it.worker(*names), it.worker(*names)
    for name in names:
        client.submit(function=name, kind=SubmitJobBg)
    worker.tell(*map(CantDo, names))
    worker.grab_nothing()
    for name in names:
        worker.tell(CanDo(name), ResetAbilities())
        worker.grab_nothing()
    other.run_all(len(names))


@case("ability/others/1", MUST, _ABILITIES, requires=("timeouts",))
def abilities_of_others(it: ServerKit) -> None:
    """The registrations of one worker do not affect those of another."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("x"))
    limit = CanDoTimeout(it.another("t"), b"60000")
    for each in (CantDo(it.function), ResetAbilities(), limit):
        other.tell(each)
        worker.grab_nothing()
        client.submit(function=it.another("t"), kind=SubmitJobBg)
        worker.run(handle=client.submit(kind=SubmitJobBg))
        worker.grab_nothing()
        other.tell(limit)
        other.run(function=it.another("t"))


@case("sleep/others/1", MUST, _SLEEP)
def sleep_of_others(it: ServerKit) -> None:
    """A worker that has not sent PRE_SLEEP gets no NOOP, however often others sleep."""
    client, worker, awake = it.client(), it.worker(), it.worker()
    for _ in range(12):
        awake.grab_nothing()
        worker.sleep()
        awake.nothing()
        handle = client.submit(kind=SubmitJobBg)
        awake.nothing()
        worker.expect(Noop)
        worker.nothing()
        worker.run(handle=handle)


@case("work/again/1", MUST, _FORWARDS)
def twelve_updates(it: ServerKit) -> None:
    """Each of twelve WORK_STATUS reaches the client at once, and no other client."""
    client, worker, handle = it.running()
    other = it.client()
    other.submit(function=it.another("other"))
    for number in range(12):
        update = WorkStatus(handle, b"%d" % number, b"%d" % (number + 100))
        worker.send(update)
        client.gets(update)
    other.nothing()
    worker.send(WorkFail(handle))
    client.gets(WorkFail(handle))


@case("work/again/2", MUST, _FORWARDS)
def several_failures(it: ServerKit) -> None:
    """Each of twenty jobs that fail is reported once, at once, and to its own client."""
    client, other, worker = it.client(), it.client(), it.worker()
    for number in range(10):
        handles = client.submit(b"%d" % number), other.submit(b"other %d" % number)
        for handle in handles:
            worker.grab(handle=handle)
        for line, handle in zip((other, client), reversed(handles), strict=True):
            worker.send(WorkFail(handle))
            line.gets(WorkFail(handle))
        for line in (client, other, worker):
            line.nothing()


@case("exception/again/1", SHOULD, _FORWARDS, requires=("options",))
def several_exceptions(it: ServerKit) -> None:
    """Each of twelve exceptions is reported once, at once, and to its own client."""
    lines, worker = [it.client(exceptions=True) for _ in "12"], it.worker()
    for number in range(6):
        for line in lines:
            handle = line.submit(b"%d" % number)
            worker.grab(handle=handle)
            error = WorkException(handle, b"exception %d" % number)
            worker.send(error)
            line.gets(error)
            for each in lines:
                each.nothing()
            worker.send(WorkFail(handle))
            worker.heard()
            line.settle()


@case("status/unique/5", SHOULD, _STATUS, requires=("unique-status", "coalescing"))
def several_uniques(it: ServerKit) -> None:
    """GET_STATUS_UNIQUE reports the numbers of each of twelve running jobs."""
    client, other, worker = it.client(), it.client(), it.worker()
    for number in range(1, 13):
        client.submit(unique=it.another(f"u{number}"), kind=SubmitJobBg)
        handle = worker.grab().handle
        worker.tell(WorkStatus(handle, b"%d" % number, b"%d00" % number))
    for number in range(1, 13):
        got = client.status_unique(it.another(f"u{number}"))
        wanted = (b"1", b"1", b"%d" % number, b"%d00" % number, b"0")
        numbers = (got.known, got.running, got.numerator, got.denominator, got.clients)
        demand(numbers == wanted, f"{wanted}", got)
        other.nothing()


@case("text/workers/4", SHOULD, _IDS, requires=("workers",))
def several_ids(it: ServerKit) -> None:
    """The latest SET_CLIENT_ID of each connection counts, and does not affect the others."""
    names = [it.another(f"w{number}") for number in range(3)]
    workers = [it.worker(name) for name in names]
    for text in (b"id-%d-%d" % (number, number * number) for number in range(10)):
        for worker, name in zip(workers, names, strict=True):
            worker.tell(SetClientId(text + name))
        workers[0].nothing()
        got = it.admin().list(b"workers")
        for name in names:
            wanted = b" %s : %s" % (text + name, name)
            demand(any(line.endswith(wanted) for line in got), f"a line with {wanted!r}", got)


@case("option/again/1", MUST, _OPTION, requires=("options",))
def several_options(it: ServerKit) -> None:
    """Each of ten OPTION_REQ is answered once, and only on its own connection."""
    client, other, worker = it.client(), it.client(), it.worker()
    for _ in range(10):
        client.send(OptionReq(b"exceptions"))
        client.gets(OptionRes(b"exceptions"))
        other.nothing()
    handle = client.submit()
    worker.grab(handle=handle)
    worker.send(WorkException(handle, b"exception"))
    client.gets(WorkException(handle, b"exception"))


@case("grab/all/4", SHOULD, _ALL, requires=("reduce", "grab-all"))
def several_reducers(it: ServerKit) -> None:
    """Each of twenty jobs is assigned with its own reducer and data, small or large."""
    client, worker = it.client(), it.worker()
    for number, kind in itertools.product(range(10), (SubmitReduceJob, SubmitReduceJobBackground)):
        reducer = b"reducer %d of %d" % (number, kind.packet.number)
        sent = noise(reducer, 70_000 if number < 2 else number)
        handle = client.created(kind(it.function, b"", reducer, b"", sent))
        worker.send(GrabJobAll())
        worker.gets(JobAssignAll(handle, it.function, b"", reducer, sent))
        worker.tell(WorkComplete(handle, b"result"))
        client.gets(*[WorkComplete(handle, b"result")] * (kind is SubmitReduceJob))
        client.nothing()
    worker.grab_nothing()
