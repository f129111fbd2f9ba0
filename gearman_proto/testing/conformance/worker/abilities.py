"""Cases about the functions that a worker registers."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, content, worker_case
from gearman_proto.wire.packets import CanDo, CanDoTimeout, NoJob, PreSleep, SetClientId


@worker_case("ability/register/1", MUST)
def register(it: WorkerKit) -> None:
    """A worker registers for a function before it asks for a job or sleeps.

    Source: Gearman Protocol: "Initially, the workers register functions they can perform"
    """
    worker = it.connected()
    event = worker.asked()
    demand(worker.functions, "a CAN_DO or CAN_DO_TIMEOUT first", event)


@worker_case("ability/name/1", MUST, "CAN_DO: the only argument is the function name")
def name(it: WorkerKit) -> None:
    """A worker registers the bare name of a function, without a NUL after it."""
    # A NUL would become part of the name. No job would match it.
    for function in it.ready().functions:
        demand(function and b"\0" not in function, "a name without a NUL", function)


@worker_case("ability/limit/1", MUST)
def limit(it: WorkerKit) -> None:
    """The timeout in CAN_DO_TIMEOUT is a decimal number.

    Source: CAN_DO_TIMEOUT: "Timeout value (in milliseconds)"; numbers are decimal text
    """
    for event in it.ready().events:
        if isinstance(event, CanDoTimeout):
            demand(event.timeout.isdigit(), "a number of milliseconds", event)


@worker_case("ability/later/1", INFO, known={"before it asks": (), "while it asks": ()})
def when(it: WorkerKit) -> str:
    """Order of the registrations and the first grab or PRE_SLEEP.

    Source: CAN_DO: "is then put on a list to be woken up"; the document does not say when
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
    """Types of packets used for registration.

    Source: CAN_DO_TIMEOUT: "Same as CAN_DO, but with a timeout value"
    """
    events = it.ready().events
    limited = any(isinstance(event, CanDoTimeout) for event in events)
    if not any(isinstance(event, CanDo) for event in events):
        return "CAN_DO_TIMEOUT"
    return "both" if limited else "CAN_DO"


@worker_case("ability/id/1", INFO, known={"it has a name": (), "it has none": ()})
def identity(it: WorkerKit) -> str:
    """Use of SET_CLIENT_ID, the worker's name in the server's lists.

    Source: SET_CLIENT_ID: "commands can uniquely identify the various workers"
    """
    worker = it.ready()
    named = any(isinstance(event, SetClientId) for event in worker.events)
    return "it has a name" if named else "it has none"


@worker_case("ability/again/1", MUST)
def again(it: WorkerKit) -> None:
    """After a lost connection, a worker registers for the same functions again.

    Source: CAN_DO: "notify the server"; gearmand 1.1 and 2.0 forget the functions of a closed
    connection
    """
    worker = it.ready()
    worker.close()
    it.again(may_end=True)


@worker_case("ability/again/2", MUST)
def again_and_again(it: WorkerKit) -> None:
    """After each of three lost connections, a worker registers for the same functions.

    Source: CAN_DO: "notify the server"; gearmand 1.1 and 2.0 forget the functions of a closed
    connection
    """
    worker = it.ready()
    for number in range(3):
        worker.serve(content(20, number))
        worker.close()
        worker = it.again(may_end=True)
    worker.serve()


@worker_case("ability/each/1", MUST, 'CAN_DO: "able to perform the given function"')
def each(it: WorkerKit) -> None:
    """A worker runs a job of each function that it has registered."""
    worker = it.ready()
    for function in [*worker.functions, *reversed(worker.functions)]:
        worker.end_of(worker.give(content(20, function), function=function))


@worker_case("ability/unknown/1", SHOULD, known={"connects again": ()})
def unknown(it: WorkerKit) -> str | None:
    """A worker that receives a job for an unknown function continues with the next job.

    Source: JOB_ASSIGN: "the worker should run the given function"; no rule for unknown functions
    """
    worker = it.ready()
    # The worker can report the job as failed or ignore it.
    stray = worker.give(b"data", function=it.function + b"-unknown", handle=b"H:conformance:stray")
    return it.goes_on(worker, despite=stray)
