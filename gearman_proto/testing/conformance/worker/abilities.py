"""Cases about the functions that a worker registers."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.wire.packets import CanDo, CanDoTimeout, NoJob, PreSleep, SetClientId


@worker_case("ability/register/1", MUST)
def register(it: WorkerKit) -> None:
    """A worker has registered for a function before it asks for a job or goes to sleep.

    Source: Gearman Protocol: "Initially, the workers register functions they can perform"
    """
    worker = it.connected()
    event = worker.asked()
    demand(worker.functions, "a CAN_DO or CAN_DO_TIMEOUT before", event)


@worker_case("ability/name/1", MUST, "CAN_DO: the only argument is the function name")
def name(it: WorkerKit) -> None:
    """A worker registers for the bare name, without a NUL byte behind it.

    A NUL would be a part of the name, and no job has a function of that name.
    """
    for function in it.ready().functions:
        demand(function and b"\0" not in function, "a name without a NUL", function)


@worker_case("ability/limit/1", MUST)
def limit(it: WorkerKit) -> None:
    """If a worker tells how long a job may run, that is a number in decimal digits.

    Source: CAN_DO_TIMEOUT: "Timeout value (in milliseconds)"; a number in digits
    """
    for event in it.ready().events:
        if isinstance(event, CanDoTimeout):
            demand(event.timeout.isdigit(), "a number of milliseconds", event)


@worker_case("ability/later/1", INFO, known={"before it asks": (), "while it asks": ()})
def when(it: WorkerKit) -> str:
    """Does a worker register for all its functions before it first asks for a job or sleeps?

    Source: CAN_DO: "is then put on a list to be woken up"; when, the document does not say
    """
    worker = it.connected()
    event = worker.asked()
    count = len(worker.functions)
    if not isinstance(event, PreSleep):
        worker.send(NoJob())
    worker.serve()
    return "before it asks" if len(worker.functions) == count else "while it asks"


@worker_case("ability/limit/2", INFO, known={"CAN_DO": (), "CAN_DO_TIMEOUT": (), "both": ()})
def kind(it: WorkerKit) -> str:
    """With which packets does a worker register?

    Source: CAN_DO_TIMEOUT: "Same as CAN_DO, but with a timeout value"
    """
    events = it.ready().events
    limited = any(isinstance(event, CanDoTimeout) for event in events)
    if not any(isinstance(event, CanDo) for event in events):
        return "CAN_DO_TIMEOUT"
    return "both" if limited else "CAN_DO"


@worker_case("ability/id/1", INFO, known={"it has a name": (), "it has none": ()})
def identity(it: WorkerKit) -> str:
    """Does a worker tell the server a name by which it is known in lists?

    Source: SET_CLIENT_ID: "commands can uniquely identify the various workers"
    """
    worker = it.ready()
    named = any(isinstance(event, SetClientId) for event in worker.events)
    return "it has a name" if named else "it has none"


@worker_case("ability/again/1", MUST)
def again(it: WorkerKit) -> None:
    """After a lost connection a worker registers again, for the same functions.

    Source: CAN_DO: "notify the server"; servers forget a connection that has ended (gearmand 1.1,
    2.0)
    """
    worker = it.ready()
    worker.close()
    it.again()


@worker_case("ability/unknown/1", SHOULD, known={"connects again": ()})
def unknown(it: WorkerKit) -> str | None:
    """A worker that gets a job of a function it has not registered for goes on with the next job.

    It may say that the job has failed, or nothing about it.

    Source: JOB_ASSIGN: "the worker should run the given function"; what if it has none is not said
    """
    worker = it.ready()
    stray = worker.give(b"data", function=it.function + b"-unknown", handle=b"H:conformance:stray")
    return it.goes_on(worker, despite=stray)
