"""Cases about the functions that workers register, and the jobs that they receive."""

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


def _gets_one(it: ServerKit, worker: Line, *events: Event) -> None:
    """Send packets from a worker, then check that the worker receives a job."""
    worker.tell(*events)
    it.client().submit(kind=SubmitJobBg)
    worker.run()


def _gets_none(it: ServerKit, worker: Line, *events: Event) -> None:
    """Send packets from a worker, then check that only another worker receives the job."""
    worker.tell(*events)
    it.client().submit(kind=SubmitJobBg)
    worker.grab_nothing()
    it.worker().run()


@case("ability/function/1", MUST, _CAN_DO)
def other_function(it: ServerKit) -> None:
    """A job is assigned only to a worker that has registered its function."""
    client, other, worker = it.client(), it.worker(it.another("other")), it.worker()
    client.submit(kind=SubmitJobBg)
    other.grab_nothing()
    worker.run(function=it.function)


@case("ability/function/2", MUST, _CAN_DO)
def several_functions(it: ServerKit) -> None:
    """A worker with two functions receives the jobs of both, each with its function's name."""
    client, other = it.client(), it.another("other")
    worker = it.worker(it.function, other)
    made = {client.submit(kind=SubmitJobBg, function=name): name for name in (it.function, other)}
    for _ in range(2):
        job = worker.run()
        demand(made.pop(job.handle, b"") == job.function, "each job with its function's name", job)


@case("ability/function/3", SHOULD, _CAN_DO)
def many_functions(it: ServerKit) -> None:
    """A worker may register a hundred functions."""
    functions = [it.another(f"{number}") for number in range(100)]
    client, worker = it.client(), it.worker(*functions)
    for function in (functions[0], functions[50], functions[99]):
        client.submit(kind=SubmitJobBg, function=function)
        worker.run(function=function)


@case(
    "ability/function/4", INFO, known={"as any other name": GEARMANDS, "it gets no jobs": ("perl",)}
)
def empty_name(it: ServerKit) -> str:
    """Effect of CAN_DO with an empty name, sent by a worker with another function.

    Source: not in the document: gearmand 1.1 and 2.0 treat the empty name like any other
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


@case("ability/again/1", SHOULD, "not in the document: gearmand 1.1 and 2.0 allow it")
def registered_twice(it: ServerKit) -> None:
    """A worker that registers a function twice is woken once, and receives each job once."""
    client, worker = it.client(), it.worker(it.function, it.function)
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    worker.nothing()
    worker.run()
    worker.grab_nothing()


@case("ability/cant/1", MUST, _CANT_DO)
def cant_do(it: ServerKit) -> None:
    """After CANT_DO, a worker receives no jobs of that function."""
    _gets_none(it, it.worker(), CantDo(it.function))


@case("ability/cant/2", MUST, _CANT_DO)
def cant_do_one(it: ServerKit) -> None:
    """CANT_DO removes only the named function."""
    _gets_one(it, it.worker(it.function, it.another("other")), CantDo(it.another("other")))


@case("ability/cant/3", SHOULD, "not in the document: gearmand 1.1 and 2.0 ignore it")
def cant_do_unknown(it: ServerKit) -> None:
    """CANT_DO for an unregistered function has no effect, and the connection stays open."""
    _gets_one(it, it.worker(), CantDo(it.another("unknown")))


@case("ability/cant/4", SHOULD, _CANT_DO)
def cant_do_after_two(it: ServerKit) -> None:
    """One CANT_DO removes a function, even if the worker has registered it several times."""
    _gets_none(it, it.worker(it.function, it.function), CantDo(it.function))


@case("ability/cant/5", MUST, _CAN_DO)
def registered_anew(it: ServerKit) -> None:
    """A worker may register a function again after CANT_DO."""
    _gets_one(it, it.worker(), CantDo(it.function), CanDo(it.function))


@case("ability/cant/6", INFO, known={"it is taken away": GEARMANDS, "it stays": ("perl",)})
def cant_do_while_holding(it: ServerKit) -> str:
    """Fate of a running job whose worker sends CANT_DO for its function.

    Source: not in the document: gearmand 1.1 and 2.0 assign the job to another worker
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
    """After RESET_ABILITIES, a worker receives no jobs of its earlier functions."""
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
    """A worker may register functions after RESET_ABILITIES, as some do when they connect."""
    _gets_one(
        it,
        it.worker(it.another("other")),
        SetClientId(it.another("id")),
        ResetAbilities(),
        CanDo(it.function),
    )


@case("ability/timeout/1", MUST, _TIMEOUT, requires=("timeouts",))
def timeout(it: ServerKit) -> None:
    """CAN_DO_TIMEOUT registers a function as CAN_DO does, so the worker is woken for its jobs."""
    client, worker = it.client(), it.worker(it.another("other"))
    worker.send(CanDoTimeout(it.function, b"60000"))
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("ability/timeout/2", SHOULD, _CANT_DO, requires=("timeouts",))
def cant_do_timeout(it: ServerKit) -> None:
    """CANT_DO also removes a function that was registered with CAN_DO_TIMEOUT."""
    _gets_none(
        it, it.worker(it.another("other")), CanDoTimeout(it.function, b"60000"), CantDo(it.function)
    )


@case("ability/id/1", SHOULD, 'SET_CLIENT_ID: "different connections … from the same worker"')
def same_id(it: ServerKit) -> None:
    """Two connections with the same client id are separate workers with separate functions."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("other"))
    for each in (worker, other):
        each.tell(SetClientId(it.another("id")))
    other.tell(ResetAbilities())
    client.submit(kind=SubmitJobBg)
    other.grab_nothing()
    worker.run()
