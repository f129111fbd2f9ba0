"""Cases about the answers to the three kinds of GRAB_JOB."""

from __future__ import annotations

import itertools
from typing import Final

from gearman_proto.testing.conformance.case import GEARMANDS, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    NoJob,
    SubmitJobBg,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkStatus,
)

_GRAB: Final = 'GRAB_JOB: "respond with either NO_JOB or JOB_ASSIGN"'
_UNIQUE: Final = 'GRAB_JOB_UNIQ: "return JOB_ASSIGN_UNIQ when there is a job"'
_ASSIGNED: Final = 'JOB_ASSIGN_UNIQ: "with the client assigned unique ID"'
_ALL: Final = 'GRAB_JOB_ALL: "return JOB_ASSIGN_ALL when there is a job"'
_FIRST: Final = 'Introduction: "The first worker to wake up and retrieve the job will then execute'
_ONCE: Final = f'{_FIRST} it"'


@case("grab/none/1", MUST, 'NO_JOB: "there are no pending jobs that need to run"')
def empty_queue(it: ServerKit) -> None:
    """Each kind of GRAB_JOB is answered with NO_JOB if the queue is empty."""
    worker = it.worker()
    kinds = {"grab": GrabJob(), "grab-uniq": GrabJobUniq(), "grab-all": GrabJobAll()}
    for name, grab in kinds.items():
        if name in it.has:
            worker.send(grab)
            worker.expect(NoJob)
    worker.nothing()


@case("grab/none/2", MUST, _GRAB)
def nothing_registered(it: ServerKit) -> None:
    """A connection without registered functions receives NO_JOB, even if jobs are queued."""
    client, worker = it.client(), it.client()
    client.submit(kind=SubmitJobBg)
    worker.grab_nothing()
    worker.nothing()
    it.worker().run()


@case("grab/plain/1", MUST, _GRAB, requires=("grab",))
def plain(it: ServerKit) -> None:
    """JOB_ASSIGN contains the job's handle, function and data, including any NULs."""
    client, worker = it.client(), it.worker()
    for data in (b"", b"a\0b\0", bytes(range(256))):
        handle = client.submit(data, unique=it.another("unique"), kind=SubmitJobBg)
        worker.send(GrabJob())
        worker.expect(JobAssign, handle=handle, function=it.function, data=data)
        worker.complete(handle)


@case("grab/unique/1", MUST, _ASSIGNED, requires=("grab-uniq",))
def with_unique(it: ServerKit) -> None:
    """JOB_ASSIGN_UNIQ also contains the job's unique as its client has sent it."""
    client, worker, unique = it.client(), it.worker(), it.another("unique")
    for data in (b"", b"a\0b\0", bytes(range(256))):
        handle = client.submit(data, unique=unique, kind=SubmitJobBg)
        worker.run(handle=handle, function=it.function, unique=unique, data=data)


@case("grab/unique/2", SHOULD, _ASSIGNED, requires=("grab-uniq",))
def without_unique(it: ServerKit) -> None:
    """JOB_ASSIGN_UNIQ contains an empty unique if the job has none."""
    _, worker, handle = it.queued(SubmitJobBg)
    worker.run(handle=handle, unique=b"")


@case("grab/all/1", SHOULD, _ALL, requires=("grab-all", "reduce"))
def with_reducer(it: ServerKit) -> None:
    """JOB_ASSIGN_ALL contains the job's reducer."""
    client, worker, unique = it.client(), it.worker(), it.another("unique")
    handle = client.created(
        SubmitReduceJobBackground(it.function, unique, b"reducer", b"", b"data\0")
    )
    worker.send(GrabJobAll())
    worker.gets(JobAssignAll(handle, it.function, unique, b"reducer", b"data\0"))
    worker.complete(handle)


@case("grab/all/2", SHOULD, _ALL, requires=("grab-all",), known={"JOB_ASSIGN_UNIQ": GEARMANDS})
def without_reducer(it: ServerKit) -> str | None:
    """GRAB_JOB_ALL is answered with JOB_ASSIGN_ALL even if the job has no reducer."""
    client, worker, unique = it.client(), it.worker(), it.another("unique")
    handle = client.submit(b"data\0", unique=unique, kind=SubmitJobBg)
    worker.send(GrabJobAll())
    got = worker.next()
    plain = JobAssignUniq(handle, it.function, unique, b"data\0")
    job = JobAssignAll(handle, it.function, unique, b"", b"data\0")
    demand(got in (plain, job), f"{job}", got)
    worker.complete(handle)
    return "JOB_ASSIGN_UNIQ" if got == plain else None


@case("grab/all/3", SHOULD, _UNIQUE, requires=("grab-uniq", "reduce"))
def reducer_not_asked_for(it: ServerKit) -> None:
    """GRAB_JOB_UNIQ is answered with JOB_ASSIGN_UNIQ even if the job has a reducer."""
    client, worker, unique = it.client(), it.worker(), it.another("unique")
    handle = client.created(
        SubmitReduceJobBackground(it.function, unique, b"reducer", b"", b"data")
    )
    worker.run(handle=handle, function=it.function, unique=unique, data=b"data")


@case("grab/order/1", MUST, _GRAB)
def many_grabs(it: ServerKit) -> None:
    """Each of several pipelined grabs gets one answer, and jobs are assigned oldest first."""
    client, worker = it.client(), it.worker()
    handles = [client.submit(b"%d" % number, kind=SubmitJobBg) for number in range(5)]
    worker.ask(12)
    for handle in handles:
        worker.assigned(handle=handle)
    worker.gets(*[NoJob()] * 7)
    worker.complete_all(handles)


@case("grab/order/2", MUST, "not in the document: gearmand 1.1 and 2.0 do this", requires=("echo",))
def in_order(it: ServerKit) -> None:
    """A server answers grabs and other requests of one connection in order."""
    worker = it.worker()
    worker.ask()
    worker.send(EchoReq(b"echo"))
    worker.ask()
    worker.gets(NoJob(), EchoRes(b"echo"), NoJob())


@case("grab/several/1", SHOULD, "not in the document: gearmand 1.1 and 2.0 do this")
def several_held(it: ServerKit) -> None:
    """A worker may hold several jobs and complete them in any order."""
    client, worker = it.client(), it.worker()
    handles = [client.submit(b"%d" % number) for number in range(3)]
    for handle in handles:
        worker.grab(handle=handle)
    for number in (1, 2, 0):
        worker.complete(handles[number], b"result of %d" % number)
        client.expect(WorkComplete, handle=handles[number], data=b"result of %d" % number)
    client.nothing()


@case("grab/once/1", MUST, _ONCE)
def one_worker(it: ServerKit) -> None:
    """A running job is not assigned again, even after an update from its worker."""
    client, worker, other = it.client(), it.worker(), it.worker()
    handle = client.submit(kind=SubmitJobBg)
    worker.grab()
    other.grab_nothing()
    worker.tell(WorkStatus(handle, b"1", b"2"))
    other.grab_nothing()
    worker.grab_nothing()
    worker.complete(handle)
    other.grab_nothing()


@case("grab/once/2", MUST, _ONCE)
def shared(it: ServerKit) -> None:
    """Each job of a function with two workers is assigned once, in the order of submission."""
    client, workers = it.client(), (it.worker(), it.worker())
    handles = [client.submit(kind=SubmitJobBg) for _ in range(6)]
    for number, handle in enumerate(handles):
        job = workers[number % 2].grab()
        demand(job.handle == handle, f"the job {handle!r}", job)
    for worker in workers:
        worker.grab_nothing()
    for number, handle in enumerate(handles):
        workers[number % 2].complete(handle)


@case("grab/next/1", MUST, 'WORK_COMPLETE: "the job completed successfully"')
def next_one(it: ServerKit) -> None:
    """A worker that sends GRAB_JOB right after WORK_COMPLETE receives the next job."""
    client, worker = it.client(), it.worker()
    handles = [client.submit() for _ in range(3)]
    worker.grab()
    for handle, next_handle in itertools.pairwise(handles):
        worker.send(WorkComplete(handle, b"result"))
        worker.grab(handle=next_handle)
    worker.send(WorkComplete(handles[-1], b"result"))
    worker.grab_nothing()
    for handle in handles:
        client.expect(WorkComplete, handle=handle, data=b"result")
