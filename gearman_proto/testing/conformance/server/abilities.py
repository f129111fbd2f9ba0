"""Cases about the functions that workers register, and the jobs that they get."""

from __future__ import annotations

from typing import Any, Final

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    Event,
    NoJob,
    Noop,
    ResetAbilities,
    SetClientId,
    SubmitJobBg,
    WorkComplete,
)

_CAN_DO: Final = 'CAN_DO: "the worker is able to perform the given function"'
_CANT_DO: Final = 'CANT_DO: "the worker is no longer able to perform the given function"'
_RESET: Final = 'RESET_ABILITIES: "no longer able to do any functions it previously registered"'
_TIMEOUT: Final = 'CAN_DO_TIMEOUT: "Same as CAN_DO, but with a timeout value"'


def _gets_one(it: ServerKit, worker: Line, *said: Event) -> None:
    """Send `said` as a worker, and demand that this worker gets a job."""
    worker.tell(*said)
    it.client().submit(kind=SubmitJobBg)
    worker.run()


def _gets_none(it: ServerKit, worker: Line, *said: Event) -> None:
    """Send `said` as a worker, and demand that only another worker gets the job."""
    worker.tell(*said)
    it.client().submit(kind=SubmitJobBg)
    worker.grab_nothing()
    it.worker().run()


@case("ability/function/1", MUST, _CAN_DO)
def other_function(it: ServerKit) -> None:
    """A job is given to a worker that has registered for its function, and to no other."""
    client, other, worker = it.client(), it.worker(it.another("other")), it.worker()
    client.submit(kind=SubmitJobBg)
    other.grab_nothing()
    worker.run(function=it.function)


@case("ability/function/2", MUST, _CAN_DO)
def several_functions(it: ServerKit) -> None:
    """A worker of two functions gets the jobs of both, each with the name of its function."""
    client, other = it.client(), it.another("other")
    worker = it.worker(it.function, other)
    made = {client.submit(kind=SubmitJobBg, function=name): name for name in (it.function, other)}
    for _ in range(2):
        job = worker.run()
        demand(made.pop(job.handle, b"") == job.function, "each job, with its function", job)


@case("ability/function/3", SHOULD, _CAN_DO)
def many_functions(it: ServerKit) -> None:
    """A worker may register for a hundred functions."""
    functions = [it.another(f"{number}") for number in range(100)]
    client, worker = it.client(), it.worker(*functions)
    for function in (functions[0], functions[50], functions[99]):
        client.submit(kind=SubmitJobBg, function=function)
        worker.run(function=function)


@case(
    "ability/function/4", INFO, known={"as any other name": GEARMANDS, "it gets no jobs": ("perl",)}
)
def empty_name(it: ServerKit) -> str:
    """What comes of CAN_DO with an empty name; other functions of the worker are as they were.

    Source: not in the document: gearmand 1.1 and 2.0 take the empty name as any other
    """
    client, worker = it.client(), it.worker()
    _gets_one(it, worker, CanDo(b""))
    client.send(SubmitJobBg(b"", it.another("unique"), b"data"))
    client.next()
    worker.ask()
    job: Any = worker.next()
    if isinstance(job, NoJob):
        return "it gets no jobs"
    worker.complete(job.handle)
    return "as any other name"


@case("ability/again/1", SHOULD, "not in the document: gearmand 1.1 and 2.0 do not mind")
def registered_twice(it: ServerKit) -> None:
    """A worker that registers twice for a function is woken once, and gets each job once."""
    client, worker = it.client(), it.worker(it.function, it.function)
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    worker.nothing()
    worker.run()
    worker.grab_nothing()


@case("ability/cant/1", MUST, _CANT_DO)
def cant_do(it: ServerKit) -> None:
    """After CANT_DO a worker gets no more jobs of that function."""
    _gets_none(it, it.worker(), CantDo(it.function))


@case("ability/cant/2", MUST, _CANT_DO)
def cant_do_one(it: ServerKit) -> None:
    """CANT_DO of one function leaves the others."""
    _gets_one(it, it.worker(it.function, it.another("other")), CantDo(it.another("other")))


@case("ability/cant/3", SHOULD, "not in the document: gearmand 1.1 and 2.0 ignore it")
def cant_do_unknown(it: ServerKit) -> None:
    """CANT_DO of a function that was not registered does nothing, and the connection stays."""
    _gets_one(it, it.worker(), CantDo(it.another("unknown")))


@case("ability/cant/4", SHOULD, _CANT_DO)
def cant_do_after_two(it: ServerKit) -> None:
    """One CANT_DO is enough, however often the function was registered."""
    _gets_none(it, it.worker(it.function, it.function), CantDo(it.function))


@case("ability/cant/5", MUST, _CAN_DO)
def registered_anew(it: ServerKit) -> None:
    """After CANT_DO a function may be registered anew."""
    _gets_one(it, it.worker(), CantDo(it.function), CanDo(it.function))


@case("ability/cant/6", INFO, known={"it is taken away": GEARMANDS, "it stays": ("perl",)})
def cant_do_while_holding(it: ServerKit) -> str:
    """What becomes of the job that a worker has in hand when it sends CANT_DO.

    Source: not in the document: gearmand 1.1 and 2.0 give the job to another worker
    """
    client, worker, handle = it.running()
    worker.tell(CantDo(it.function))
    other = it.worker()
    other.ask()
    taken = not isinstance(other.next(), NoJob)
    (other if taken else worker).complete(handle)
    client.expect(WorkComplete, handle=handle)
    return "it is taken away" if taken else "it stays"


@case("ability/reset/1", MUST, _RESET)
def reset(it: ServerKit) -> None:
    """After RESET_ABILITIES a worker gets no more jobs of any function."""
    client, functions = it.client(), (it.function, it.another("other"))
    worker = it.worker(*functions)
    worker.tell(ResetAbilities())
    for function in functions:
        client.submit(kind=SubmitJobBg, function=function)
    worker.grab_nothing()
    other = it.worker(*functions)
    other.run_all(len(functions))


@case("ability/reset/2", MUST, _RESET)
def reset_first(it: ServerKit) -> None:
    """After RESET_ABILITIES a worker may register anew; some workers begin so."""
    _gets_one(
        it,
        it.worker(it.another("other")),
        SetClientId(it.another("id")),
        ResetAbilities(),
        CanDo(it.function),
    )


@case("ability/timeout/1", MUST, _TIMEOUT, requires=("timeouts",))
def timeout(it: ServerKit) -> None:
    """CAN_DO_TIMEOUT registers as CAN_DO does: the worker is woken, and gets the job."""
    client, worker = it.client(), it.worker(it.another("other"))
    worker.send(CanDoTimeout(it.function, b"60000"))
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("ability/timeout/2", SHOULD, _CANT_DO, requires=("timeouts",))
def cant_do_timeout(it: ServerKit) -> None:
    """CANT_DO ends what CAN_DO_TIMEOUT has begun."""
    _gets_none(
        it, it.worker(it.another("other")), CanDoTimeout(it.function, b"60000"), CantDo(it.function)
    )


@case("ability/id/1", SHOULD, 'SET_CLIENT_ID: "different connections … from the same worker"')
def same_id(it: ServerKit) -> None:
    """Two connections with one client id are two workers, each with functions of its own."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("other"))
    for each in (worker, other):
        each.tell(SetClientId(it.another("id")))
    other.tell(ResetAbilities())
    client.submit(kind=SubmitJobBg)
    other.grab_nothing()
    worker.run()
