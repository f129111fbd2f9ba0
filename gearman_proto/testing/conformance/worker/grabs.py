"""Cases about workers that ask for jobs, sleep and wake."""

from __future__ import annotations

from typing import Any

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Closed, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.testing.conformance.session import GRABS
from gearman_proto.wire.packets import GrabJobAll, JobAssignAll, NoJob, Noop, PreSleep

# Maximum number of grabs per second. More would be a busy loop.
_FEW = 10


@worker_case("grab/asks/1", MUST, 'GRAB_JOB: "to request any available jobs on the queue"')
def asks(it: WorkerKit) -> None:
    """A worker that has registered asks for a job, or says that it sleeps and asks when woken."""
    it.connected().grabs()


@worker_case("grab/first/1", INFO, known={"asks first": (), "sleeps first": ()})
def first(it: WorkerKit) -> str:
    """Does a worker that has connected ask for a job at once, or sleep until it is woken?

    Source: GRAB_JOB, PRE_SLEEP: which of them is first is not said; servers take either
    """
    event = it.connected().asked()
    return "sleeps first" if isinstance(event, PreSleep) else "asks first"


@worker_case("grab/kind/1", INFO, known={"GRAB_JOB": (), "GRAB_JOB_UNIQ": (), "GRAB_JOB_ALL": ()})
def kind(it: WorkerKit) -> str:
    """With which packet does a worker ask for a job?

    Source: GRAB_JOB_UNIQ: "Just like GRAB_JOB, but return JOB_ASSIGN_UNIQ"
    """
    return it.connected().grabs().packet.name


@worker_case("grab/all/1", MUST, 'GRAB_JOB_ALL: "return JOB_ASSIGN_ALL when there is a job"')
def everything(it: WorkerKit) -> None:
    """A worker that asks with GRAB_JOB_ALL takes JOB_ASSIGN_ALL, of a job without a reducer.

    (gearmand sends JOB_ASSIGN_UNIQ then.) Whatever it asks with, it takes the answer that fits.
    """
    worker = it.ready()
    grab = worker.grabs()
    job: Any = worker.job_for(grab, b"data")
    if isinstance(grab, GrabJobAll):
        job = JobAssignAll(job.handle, job.function, b"unique", b"", b"data")
    worker.send(job)
    worker.end_of(job.handle)
    worker.asked()


@worker_case("grab/sleep/1", SHOULD)
def sleep(it: WorkerKit) -> None:
    """A worker that was told that there is no job says that it sleeps, so that it is woken.

    Source: PRE_SLEEP: "about to sleep, and that it should be woken up with a NOOP packet"
    """
    worker = it.connected()
    worker.grabs()
    worker.send(NoJob())
    worker.refuse()


@worker_case("grab/wake/1", MUST, 'NOOP: "to wake up a sleeping worker so that it may grab"')
def wake(it: WorkerKit) -> None:
    """A worker that is woken asks for a job, and does it."""
    worker = it.ready()
    worker.end_of(worker.assign(worker.wakes(), b"data"))
    worker.serve()


@worker_case("grab/wake/2", MUST)
def nothing(it: WorkerKit) -> None:
    """A worker that was woken and then got no job sleeps again, and is woken again.

    Source: NOOP, NO_JOB: another worker may have been faster; gearmand 1.1, 2.0
    """
    worker = it.ready()
    for _ in range(3):
        worker.wakes()
        worker.send(NoJob())
        worker.refuse()
    worker.serve()


@worker_case("grab/noop/1", MUST)
def between(it: WorkerKit) -> None:
    """A NOOP that comes before the answer to a grab is not that answer: the job behind it is.

    Source: not in the document: on gearmand 1.1, 2.0 a NOOP may lie between a grab and its answer
    """
    worker = it.ready()
    grab = worker.grabs()
    worker.send(Noop())
    worker.end_of(worker.assign(grab, b"data"))
    worker.serve()


@worker_case("grab/noop/2", MUST)
def refused(it: WorkerKit) -> None:
    """The same where the answer behind the NOOP is that there is no job.

    Source: not in the document: on gearmand 1.1, 2.0 a NOOP may lie between a grab and its answer
    """
    worker = it.ready()
    worker.grabs()
    worker.send(Noop(), NoJob())
    worker.refuse()
    worker.serve()


@worker_case("grab/noop/3", MUST)
def working(it: WorkerKit) -> None:
    """NOOPs that come while a worker does a job harm nothing.

    Source: NOOP: "so that it may grab a pending job"; it is no order, and no answer
    """
    worker = it.ready()
    handle = worker.give(b"slow")
    worker.send(Noop(), Noop())
    worker.end_of(handle)
    worker.serve()


@worker_case("grab/noop/4", MUST, "NOOP: nothing says that a server sends only one")
def several(it: WorkerKit) -> None:
    """Several NOOPs at once wake a worker that sleeps as one does."""
    worker = it.ready()
    worker.send(Noop(), Noop(), Noop())
    worker.serve()
    worker.serve()


@worker_case("grab/busy/1", SHOULD, slow=True)
def busy(it: WorkerKit) -> None:
    """A worker for which there is no job does not ask for one again and again.

    Source: PRE_SLEEP: "should be woken up with a NOOP packet if a job comes in"
    """
    count = it.ready().grabs_within(1.0)
    demand(count <= _FEW, f"{_FEW} GRAB_JOB in a second at the most", f"{count} of them")


@worker_case("grab/late/1", MUST, slow=True, known={"connects again": ()})
def late(it: WorkerKit) -> str | None:
    """An answer to a grab that comes after two seconds is taken like any other.

    Source: GRAB_JOB: "The server will respond"; how soon is not said
    """
    worker = it.ready()
    grab = worker.grabs()
    try:
        others = worker.grabs_within(2.0, answer=False)
    except Closed:
        it.again().serve()
        return "connects again"
    handle = worker.assign(grab, b"data")
    worker.send(*[NoJob()] * others)
    worker.end_of(handle)
    worker.serve()
    return None


@worker_case(
    "grab/unanswered/1",
    INFO,
    slow=True,
    known={"waits": (), "asks again": (), "something else": ()},
)
def unanswered(it: WorkerKit) -> str:
    """What does a worker do within three seconds if the server does not answer its grab?

    Source: GRAB_JOB: "The server will respond"; what if it does not is not said
    """
    worker = it.ready()
    worker.grabs()
    count = len(worker.events)
    if worker.is_silent(3.0):
        return "waits"
    came = worker.events[count:]
    return "asks again" if came and isinstance(came[0], GRABS) else "something else"
