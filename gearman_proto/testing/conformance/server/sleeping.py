"""Cases about sleeping workers, and the NOOP that wakes them."""

from __future__ import annotations

from typing import Any, Final

from gearman_proto.testing.conformance.case import EVERY, GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CantDo,
    Event,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    ResetAbilities,
    SubmitJobBg,
    SubmitJobEpoch,
)

_WOKEN: Final = 'PRE_SLEEP: "woken up with a NOOP packet if a job comes in"'
_FOR: Final = 'PRE_SLEEP: "for a function the worker is able to perform"'
_WAITING: Final = "not in the document: gearmand 1.1, 2.0 and Perl's server do"
_ONE: Final = "not in the document: gearmand 1.1 and 2.0 do"


def _asleep(it: ServerKit, *functions: bytes) -> tuple[Line, Line]:
    """Return a client, and a worker of these functions that sleeps."""
    client, worker = it.client(), it.worker(*functions)
    worker.sleep()
    return client, worker


@case("sleep/waiting/1", MUST, _WAITING)
def job_waiting(it: ServerKit) -> None:
    """PRE_SLEEP is answered with NOOP at once if a job waits; some workers never ask before."""
    _, worker, _ = it.queued(SubmitJobBg)
    worker.send(PreSleep())
    worker.woken()


@case("sleep/waiting/2", INFO, _ONE, known={"a NOOP for each": EVERY, "one NOOP": ()})
def sleeps_twice(it: ServerKit) -> str:
    """How many NOOP a worker gets that sends PRE_SLEEP twice while a job waits."""
    _, worker, _ = it.queued(SubmitJobBg)
    worker.send(PreSleep(), PreSleep())
    count = len(worker.settle())
    demand(count, "a NOOP", "nothing")
    worker.run()
    return "one NOOP" if count == 1 else "a NOOP for each"


@case("sleep/new/1", MUST, _WOKEN)
def new_job(it: ServerKit) -> None:
    """A worker that sleeps is woken with NOOP when a job for it comes in."""
    client, worker = _asleep(it)
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/new/2", MUST, _WOKEN)
def woken_again(it: ServerKit) -> None:
    """A worker that goes to sleep again after its job is woken again."""
    client, worker = it.client(), it.worker()
    for _ in range(3):
        worker.sleep()
        client.submit(kind=SubmitJobBg)
        worker.woken()
        worker.grab_nothing()


@case("sleep/new/3", MUST, _WOKEN)
def job_taken(it: ServerKit) -> None:
    """A woken worker whose job another one was given gets NO_JOB, sleeps, and is woken again."""
    (client, worker), other = _asleep(it), it.worker()
    client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    other.run()
    worker.grab_nothing()
    worker.sleep()
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/new/4", MUST, _WOKEN)
def sleeper_leaves(it: ServerKit) -> None:
    """That one of the sleeping workers has left does not keep another one from being woken."""
    client, worker, other = it.client(), it.worker(), it.worker()
    for each in (other, worker):
        each.sleep()
    other.close()
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/several/1", INFO, _WOKEN, known={"all": GEARMANDS, "some": ("perl",)})
def several_sleep(it: ServerKit) -> str:
    """Whether all of five sleeping workers are woken for one job, or some of them."""
    client, workers = it.client(), [it.worker() for _ in range(5)]
    for worker in workers:
        worker.sleep()
    client.submit(kind=SubmitJobBg)
    woken = [worker for worker in workers if worker.settle()]
    demand(woken, "a NOOP to one of them", "none")
    woken[0].run()
    return "all" if woken == workers else "some"


@case("sleep/once/1", SHOULD, _ONE)
def one_noop(it: ServerKit) -> None:
    """Until it asks for a job, a worker is woken once, however many jobs come in."""
    client, worker = _asleep(it)
    for _ in range(3):
        client.submit(kind=SubmitJobBg)
    came = worker.settle()
    demand(came == [Noop()], "one NOOP", came)
    worker.run_all(3)


@case("sleep/awake/1", SHOULD, _WOKEN)
def awake(it: ServerKit) -> None:
    """A worker that has not gone to sleep is not woken."""
    client, worker, _ = it.queued(SubmitJobBg)
    worker.nothing()
    worker.run()
    worker.grab_nothing()
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    worker.run()


@case("sleep/awake/2", SHOULD, _ONE)
def grab_wakes(it: ServerKit) -> None:
    """A worker that asks for a job does not sleep any more, even if there is none."""
    client, worker = _asleep(it)
    worker.grab_nothing()
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    worker.run()


@case("sleep/function/1", SHOULD, _FOR)
def other_function(it: ServerKit) -> None:
    """A worker is not woken for the job of a function for which it has not registered."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("other"))
    other.sleep()
    client.submit(kind=SubmitJobBg)
    other.nothing()
    worker.run()


@case("sleep/function/2", MUST, _FOR)
def any_function(it: ServerKit) -> None:
    """A worker of several functions is woken for the jobs of each."""
    client, functions = it.client(), (it.function, it.another("other"))
    worker = it.worker(*functions)
    for function in functions:
        worker.sleep()
        client.submit(kind=SubmitJobBg, function=function)
        worker.woken()
        worker.grab_nothing()


def _is_not_woken(it: ServerKit, said: Event) -> None:
    """Demand that a worker that says this while it sleeps is not woken any more."""
    client, worker = _asleep(it)
    worker.tell(said)
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    it.worker().run()


@case("sleep/function/3", SHOULD, _FOR)
def cant_do(it: ServerKit) -> None:
    """A worker that sends CANT_DO while it sleeps is not woken for that function any more."""
    _is_not_woken(it, CantDo(it.function))


@case("sleep/function/4", SHOULD, _FOR)
def reset(it: ServerKit) -> None:
    """A worker that sends RESET_ABILITIES while it sleeps is not woken any more."""
    _is_not_woken(it, ResetAbilities())


@case("sleep/register/1", SHOULD, 'CAN_DO: "put on a list to be woken up"')
def registers_asleep(it: ServerKit) -> None:
    """A worker that registers for a function while it sleeps is woken for new jobs of it."""
    client, worker = _asleep(it, it.another("other"))
    worker.tell(CanDo(it.function))
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case(
    "sleep/register/2",
    INFO,
    _ONE.replace("do", "do not wake it"),
    known={"it is not woken": EVERY, "it is woken": ()},
)
def registers_with_job_waiting(it: ServerKit) -> str:
    """Whether a worker is woken that registers while it sleeps, where a job waits already."""
    client, worker = _asleep(it, it.another("other"))
    client.submit(kind=SubmitJobBg)
    worker.send(CanDo(it.function))
    came = worker.settle()
    worker.run()
    return "it is woken" if came else "it is not woken"


@case("sleep/grab/1", MUST, 'GRAB_JOB: "respond with either NO_JOB or JOB_ASSIGN"')
def noop_and_grab(it: ServerKit) -> None:
    """A NOOP is the answer to no grab: each grab that crosses one is still answered once."""
    client, worker = _asleep(it)
    handle = client.submit(kind=SubmitJobBg)
    worker.ask(2)
    answers: list[Any] = [event for event in worker.settle() if event != Noop()]
    handles = [getattr(event, "handle", event) for event in answers]
    demand(handles == [handle, NoJob()], f"the job {handle!r} and NO_JOB", answers)
    worker.complete(handle)


@case("sleep/holding/1", SHOULD, _WOKEN)
def holds_a_job(it: ServerKit) -> None:
    """A worker that holds a job may sleep, is woken for the next one, and gets that."""
    client, worker, first = it.running(SubmitJobBg)
    worker.grab_nothing()
    worker.sleep()
    second = client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    worker.grab(handle=second)
    worker.complete_all((first, second))


@case("sleep/both/1", INFO, known={"the NOOP": GEARMANDS, "the JOB_CREATED": ("perl",)})
def client_and_worker(it: ServerKit) -> str:
    """What comes first to a sleeping worker that submits a job for itself.

    Source: not in the document: gearmand 1.1 and 2.0 wake first
    """
    line = it.worker()
    line.sleep()
    line.send(SubmitJobBg(it.function, b"", b"data"))
    came = [line.next(), line.next()]
    demand(Noop() in came, "a NOOP and a JOB_CREATED", came)
    line.run()
    return "the JOB_CREATED" if isinstance(came[0], JobCreated) else "the NOOP"


@case(
    "sleep/due/1",
    INFO,
    known={"it is woken": ("gearmand-2.0",), "it is not woken": ("gearmand-1.1",)},
    requires=("epoch",),
    slow=True,
)
def becomes_due(it: ServerKit) -> str:
    """Whether a sleeping worker is woken when a job for later is due.

    Source: SUBMIT_JOB_EPOCH: "run job at given time instead of immediately"
    """
    client, worker = it.client(), it.worker()
    client.created(SubmitJobEpoch(it.function, b"", b"%d" % (it.wall() + 2), b"data"))
    worker.sleep()
    asleep = worker.is_silent(5.0)
    worker.run()
    return "it is not woken" if asleep else "it is woken"
