"""Cases about workers that ask for jobs, sleep and wake."""

from __future__ import annotations

from typing import Any

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Closed, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, content, worker_case
from gearman_proto.testing.conformance.session import GRABS
from gearman_proto.wire.packets import GrabJobAll, JobAssignAll, NoJob, Noop, PreSleep

# Maximum number of grabs per second. More would be a busy loop.
_FEW = 10


@worker_case("grab/asks/1", MUST, 'GRAB_JOB: "to request any available jobs on the queue"')
def asks(it: WorkerKit) -> None:
    """A registered worker asks for a job at once, or sleeps and asks after a NOOP."""
    it.connected().grabs()


@worker_case("grab/first/1", INFO, known={"asks first": (), "sleeps first": ()})
def first(it: WorkerKit) -> str:
    """The first packet after the registration: a grab or PRE_SLEEP.

    Source: GRAB_JOB, PRE_SLEEP: the document prescribes no order; servers accept both
    """
    event = it.connected().asked()
    return "sleeps first" if isinstance(event, PreSleep) else "asks first"


@worker_case("grab/kind/1", INFO, known={"GRAB_JOB": (), "GRAB_JOB_UNIQ": (), "GRAB_JOB_ALL": ()})
def kind(it: WorkerKit) -> str:
    """Type of the packet that asks for a job.

    Source: GRAB_JOB_UNIQ: "Just like GRAB_JOB, but return JOB_ASSIGN_UNIQ"
    """
    return it.connected().grabs().packet.name


@worker_case("grab/all/1", MUST, 'GRAB_JOB_ALL: "return JOB_ASSIGN_ALL when there is a job"')
def everything(it: WorkerKit) -> None:
    """A worker accepts the answer to its grab, even JOB_ASSIGN_ALL without a reducer."""
    # If a job has no reducer, gearmand answers GRAB_JOB_ALL with JOB_ASSIGN_UNIQ.
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
    """After NO_JOB, a worker sends PRE_SLEEP, so that the server wakes it for the next job.

    Source: PRE_SLEEP: "about to sleep, and that it should be woken up with a NOOP packet"
    """
    worker = it.connected()
    worker.grabs()
    worker.send(NoJob())
    worker.refuse()


@worker_case("grab/wake/1", MUST, 'NOOP: "to wake up a sleeping worker so that it may grab"')
def wake(it: WorkerKit) -> None:
    """A worker that is woken asks for a job and runs it."""
    worker = it.ready()
    worker.end_of(worker.assign(worker.wakes(), b"data"))
    worker.serve()


@worker_case("grab/wake/2", MUST)
def nothing(it: WorkerKit) -> None:
    """A worker that is woken but gets NO_JOB sleeps again until the next NOOP.

    Source: NOOP, NO_JOB: another worker can be faster (gearmand 1.1, 2.0)
    """
    worker = it.ready()
    for _ in range(3):
        worker.wakes()
        worker.send(NoJob())
        worker.refuse()
    worker.serve()


@worker_case("grab/wake/3", MUST, 'NOOP: "to wake up a sleeping worker so that it may grab"')
def always(it: WorkerKit) -> None:
    """A worker asks after each of 50 NOOPs, whether it gets NO_JOB or a job then."""
    worker = it.ready()
    for number in range(50):
        grab = worker.wakes()
        if number % 7 == 3:
            worker.end_of(worker.assign(grab, content(20, number)))
        else:
            worker.send(NoJob())
        worker.refuse()
    worker.serve()


@worker_case("grab/noop/5", MUST)
def early(it: WorkerKit) -> None:
    """If a NOOP arrives with the job or after its end, the worker asks again and runs a job.

    Source: not in the document: gearmand 1.1 and 2.0 can send a NOOP before the answer to a grab
    """
    worker = it.ready()
    for number in range(5):
        job = worker.job_for(worker.grabs(), content(20, number))
        worker.send(job, Noop())
        worker.end_of(job.handle)
        worker.send(Noop())
    worker.serve()
    worker.refuse()
    worker.serve()


@worker_case("grab/noop/1", MUST)
def between(it: WorkerKit) -> None:
    """If a NOOP arrives between a grab and a job, the worker runs the job.

    Source: not in the document: gearmand 1.1 and 2.0 can send a NOOP before the answer to a grab
    """
    worker = it.ready()
    grab = worker.grabs()
    worker.send(Noop())
    worker.end_of(worker.assign(grab, b"data"))
    worker.serve()


@worker_case("grab/noop/2", MUST)
def refused(it: WorkerKit) -> None:
    """If a NOOP arrives between a grab and NO_JOB, the worker sleeps until the next NOOP.

    Source: not in the document: gearmand 1.1 and 2.0 can send a NOOP before the answer to a grab
    """
    worker = it.ready()
    worker.grabs()
    worker.send(Noop(), NoJob())
    worker.refuse()
    worker.serve()


@worker_case("grab/noop/3", MUST)
def working(it: WorkerKit) -> None:
    """A worker finishes its job even if NOOPs arrive meanwhile.

    Source: NOOP: "so that it may grab a pending job", not a command and not an answer
    """
    worker = it.ready()
    handle = worker.give(b"slow")
    worker.send(Noop(), Noop())
    worker.end_of(handle)
    worker.serve()


@worker_case("grab/noop/4", MUST, "NOOP: the document does not limit their number")
def several(it: WorkerKit) -> None:
    """Several NOOPs at once wake a sleeping worker like a single one."""
    worker = it.ready()
    worker.send(Noop(), Noop(), Noop())
    worker.serve()
    worker.serve()


@worker_case("grab/busy/1", SHOULD, slow=True)
def busy(it: WorkerKit) -> None:
    """A worker without jobs does not poll in a busy loop.

    Source: PRE_SLEEP: "should be woken up with a NOOP packet if a job comes in"
    """
    count = it.ready().grabs_within(1.0)
    demand(count <= _FEW, f"at most {_FEW} grabs per second", str(count))


@worker_case("grab/busy/2", SHOULD, slow=True)
def busy_unanswered(it: WorkerKit) -> None:
    """A worker does not repeat a grab in a busy loop until it is answered.

    Source: GRAB_JOB: "The server will respond", so a second request gains nothing
    """
    worker = it.ready()
    worker.grabs()
    try:
        count = worker.grabs_within(1.0, answer=False)
    except Closed:
        return  # `grab/late/1` decides whether this is a failure.
    demand(count <= _FEW, f"at most {_FEW} grabs per second", str(count))


@worker_case("grab/busy/3", SHOULD, slow=True)
def busy_after(it: WorkerKit) -> None:
    """After jobs, failures and NOOPs, a worker does not poll in a busy loop.

    Source: PRE_SLEEP: "should be woken up with a NOOP packet if a job comes in"
    """
    worker = it.ready()
    for payload in (b"data", b"fail", b"updates"):
        worker.serve(payload)
    worker.refuse()
    worker.send(Noop(), Noop())
    count = worker.grabs_within(1.0)
    demand(count <= _FEW, f"at most {_FEW} grabs per second", str(count))
    worker.serve()


@worker_case("grab/late/1", MUST, slow=True, known={"connects again": ()})
def late(it: WorkerKit) -> str | None:
    """A worker accepts an answer to its grab that arrives after two seconds.

    Source: GRAB_JOB: "The server will respond", without a time limit
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
    """Reaction to a grab that is not answered for three seconds.

    Source: GRAB_JOB: "The server will respond"; no rule for a missing answer
    """
    worker = it.ready()
    worker.grabs()
    count = len(worker.events)
    if worker.is_silent(3.0):
        return "waits"
    came = worker.events[count:]
    return "asks again" if came and isinstance(came[0], GRABS) else "something else"
