"""Cases about sleeping workers and the NOOP that wakes them."""

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
_WAITING: Final = "not in the document: gearmand 1.1, gearmand 2.0 and Perl's server do this"
_ONE: Final = "not in the document: gearmand 1.1 and 2.0 do this"


def _asleep(it: ServerKit, *functions: bytes) -> tuple[Line, Line]:
    """Return a client and a sleeping worker of these functions."""
    client, worker = it.client(), it.worker(*functions)
    worker.sleep()
    return client, worker


@case("sleep/waiting/1", MUST, _WAITING)
def job_waiting(it: ServerKit) -> None:
    """If a job is queued, PRE_SLEEP is answered with NOOP at once."""
    _, worker, _ = it.queued(SubmitJobBg)
    # Some workers rely on this: they never send GRAB_JOB before PRE_SLEEP.
    worker.send(PreSleep())
    worker.woken()


@case("sleep/waiting/2", INFO, _ONE, known={"a NOOP for each": EVERY, "one NOOP": ()})
def sleeps_twice(it: ServerKit) -> str:
    """Number of NOOPs for a worker that sends PRE_SLEEP twice while a job is queued."""
    _, worker, _ = it.queued(SubmitJobBg)
    worker.send(PreSleep(), PreSleep())
    count = len(worker.settle())
    demand(count, "a NOOP", "nothing")
    worker.run()
    return "one NOOP" if count == 1 else "a NOOP for each"


@case("sleep/new/1", MUST, _WOKEN)
def new_job(it: ServerKit) -> None:
    """A sleeping worker is woken with NOOP when a job for it is submitted."""
    client, worker = _asleep(it)
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/new/2", MUST, _WOKEN)
def woken_again(it: ServerKit) -> None:
    """A worker that goes back to sleep after a job gets a NOOP for the next one."""
    client, worker = it.client(), it.worker()
    for _ in range(3):
        worker.sleep()
        client.submit(kind=SubmitJobBg)
        worker.woken()
        worker.grab_nothing()


@case("sleep/new/3", MUST, _WOKEN)
def job_taken(it: ServerKit) -> None:
    """A worker that was woken in vain is woken again for the next job."""
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
    """A sleeping worker is woken even if another sleeping worker has disconnected."""
    client, worker, other = it.client(), it.worker(), it.worker()
    for each in (other, worker):
        each.sleep()
    other.close()
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case("sleep/several/1", INFO, _WOKEN, known={"all": GEARMANDS, "some": ("perl",)})
def several_sleep(it: ServerKit) -> str:
    """Number of workers woken for one job while five are asleep."""
    client, workers = it.client(), [it.worker() for _ in range(5)]
    for worker in workers:
        worker.sleep()
    client.submit(kind=SubmitJobBg)
    woken = [worker for worker in workers if worker.settle()]
    demand(woken, "a NOOP for at least one worker", "none")
    woken[0].run()
    return "all" if woken == workers else "some"


@case("sleep/once/1", SHOULD, _ONE)
def one_noop(it: ServerKit) -> None:
    """A woken worker gets no second NOOP until it requests a job."""
    client, worker = _asleep(it)
    for _ in range(3):
        client.submit(kind=SubmitJobBg)
    got = worker.settle()
    demand(got == [Noop()], "one NOOP", got)
    worker.run_all(3)


@case("sleep/awake/1", SHOULD, _WOKEN)
def awake(it: ServerKit) -> None:
    """A worker that is awake gets no NOOP."""
    client, worker, _ = it.queued(SubmitJobBg)
    worker.nothing()
    worker.run()
    worker.grab_nothing()
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    worker.run()


@case("sleep/awake/2", SHOULD, _ONE)
def grab_wakes(it: ServerKit) -> None:
    """A sleeping worker that requests a job counts as awake, even if it gets NO_JOB."""
    client, worker = _asleep(it)
    worker.grab_nothing()
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    worker.run()


@case("sleep/function/1", SHOULD, _FOR)
def other_function(it: ServerKit) -> None:
    """A worker is not woken for a function that it has not registered."""
    client, worker, other = it.client(), it.worker(), it.worker(it.another("other"))
    other.sleep()
    client.submit(kind=SubmitJobBg)
    other.nothing()
    worker.run()


@case("sleep/function/2", MUST, _FOR)
def any_function(it: ServerKit) -> None:
    """A worker that has registered several functions is woken for jobs of each."""
    client, functions = it.client(), (it.function, it.another("other"))
    worker = it.worker(*functions)
    for function in functions:
        worker.sleep()
        client.submit(kind=SubmitJobBg, function=function)
        worker.woken()
        worker.grab_nothing()


def _is_not_woken(it: ServerKit, packet: Event) -> None:
    """Check that a sleeping worker is no longer woken after it has sent this packet."""
    client, worker = _asleep(it)
    worker.tell(packet)
    client.submit(kind=SubmitJobBg)
    worker.nothing()
    it.worker().run()


@case("sleep/function/3", SHOULD, _FOR)
def cant_do(it: ServerKit) -> None:
    """A sleeping worker that sends CANT_DO is no longer woken for that function."""
    _is_not_woken(it, CantDo(it.function))


@case("sleep/function/4", SHOULD, _FOR)
def reset(it: ServerKit) -> None:
    """A sleeping worker that sends RESET_ABILITIES is no longer woken."""
    _is_not_woken(it, ResetAbilities())


@case("sleep/register/1", SHOULD, 'CAN_DO: "put on a list to be woken up"')
def registers_asleep(it: ServerKit) -> None:
    """A sleeping worker that registers a function is woken for new jobs of that function."""
    client, worker = _asleep(it, it.another("other"))
    worker.tell(CanDo(it.function))
    client.submit(kind=SubmitJobBg)
    worker.woken()


@case(
    "sleep/register/2",
    INFO,
    "not in the document: gearmand 1.1, gearmand 2.0 and Perl's server do not wake it",
    known={"it is not woken": EVERY, "it is woken": ()},
)
def registers_with_job_waiting(it: ServerKit) -> str:
    """Wake-up of a sleeping worker that registers a function with queued jobs."""
    client, worker = _asleep(it, it.another("other"))
    client.submit(kind=SubmitJobBg)
    worker.send(CanDo(it.function))
    got = worker.settle()
    worker.run()
    return "it is woken" if got else "it is not woken"


@case("sleep/grab/1", MUST, 'GRAB_JOB: "respond with either NO_JOB or JOB_ASSIGN"')
def noop_and_grab(it: ServerKit) -> None:
    """Each GRAB_JOB that crosses a NOOP still gets its own reply."""
    client, worker = _asleep(it)
    handle = client.submit(kind=SubmitJobBg)
    worker.ask(2)
    answers: list[Any] = [event for event in worker.settle() if event != Noop()]
    handles = [getattr(event, "handle", event) for event in answers]
    demand(handles == [handle, NoJob()], f"the job {handle!r} and NO_JOB", answers)
    worker.complete(handle)


@case("sleep/holding/1", SHOULD, _WOKEN)
def holds_a_job(it: ServerKit) -> None:
    """A worker that sleeps while it holds a job is woken for the next job and can grab it."""
    client, worker, first = it.running(SubmitJobBg)
    worker.grab_nothing()
    worker.sleep()
    second = client.submit(kind=SubmitJobBg)
    worker.expect(Noop)
    worker.grab(handle=second)
    worker.complete_all((first, second))


@case("sleep/both/1", INFO, known={"the NOOP": GEARMANDS, "the JOB_CREATED": ("perl",)})
def client_and_worker(it: ServerKit) -> str:
    """First packet to a sleeping worker that submits a job for itself.

    Source: not in the document: gearmand 1.1 and 2.0 send the NOOP first
    """
    line = it.worker()
    line.sleep()
    line.send(SubmitJobBg(it.function, b"", b"data"))
    got = [line.next(), line.next()]
    demand(Noop() in got, "a NOOP and a JOB_CREATED", got)
    line.run()
    return "the JOB_CREATED" if isinstance(got[0], JobCreated) else "the NOOP"


@case(
    "sleep/due/1",
    INFO,
    known={"it is woken": ("gearmand-2.0",), "it is not woken": ("gearmand-1.1",)},
    requires=("epoch",),
    slow=True,
)
def becomes_due(it: ServerKit) -> str:
    """Wake-up of a sleeping worker when a SUBMIT_JOB_EPOCH job becomes due.

    Source: SUBMIT_JOB_EPOCH: "run job at given time instead of immediately"
    """
    client, worker = it.client(), it.worker()
    client.created(SubmitJobEpoch(it.function, b"", b"%d" % (it.wall() + 2), b"data"))
    worker.sleep()
    asleep = worker.is_silent(5.0)
    worker.run()
    return "it is not woken" if asleep else "it is woken"
