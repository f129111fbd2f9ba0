"""Cases about jobs whose client disconnects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import EVERY, GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import SubmitJob, SubmitJobBg, WorkComplete, WorkStatus

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PlainSubmit

_GEARMAND: Final = "not in the document: gearmand 1.1 and 2.0 do this"
_RUNNING: Final = 'SUBMIT_JOB: "This includes jobs already in progress"'
_JOINED: Final = ("unique-status", "coalescing")


@case(
    "leave/queued/1",
    INFO,
    known={"forgotten at once": (), "thrown away when a worker asks": EVERY, "run": ()},
    requires=("unique-status",),
)
def queued(it: ServerKit) -> str:
    """Fate of a queued job whose only client has disconnected.

    Source: not in the document: gearmand 1.1 and 2.0 discard it when a worker sends GRAB_JOB
    """
    client, worker, handle = it.queued(unique=it.another("u"))
    it.gone(client, it.another("u"))
    if it.client().status(handle).known == b"0":
        worker.grab_nothing()
        return "forgotten at once"
    return "run" if worker.runs() else "thrown away when a worker asks"


@case(
    "leave/queued/2",
    INFO,
    known={
        "run": (),
        "not run, and the client hears nothing": GEARMANDS,
        "not run, and the client is told": (),
    },
    requires=("unique-status",),
)
def again(it: ServerKit) -> str:
    """Fate of a submit with the unique of a queued job whose client has disconnected.

    Source: not in the document: gearmand 1.1 and 2.0 join it to that job, which never runs
    """
    client, worker, _ = it.queued(unique=it.another("u"))
    it.gone(client, it.another("u"))
    other = it.client()
    handle = other.submit(unique=it.another("u"))
    if worker.runs():
        other.expect(WorkComplete, handle=handle)
        return "run"
    told = other.settle()
    return f"not run, and the client {'is told' if told else 'hears nothing'}"


def _after_both(it: ServerKit, *kinds: type[PlainSubmit]) -> str:
    """Submit a job with both kinds, disconnect the foreground client, and return the job's fate."""
    worker, clients, unique = it.worker(), [it.client() for _ in kinds], it.another("u")
    for client, kind in zip(clients, kinds, strict=True):
        client.submit(unique=unique, kind=kind)
    it.gone(clients[kinds.index(SubmitJob)], unique)
    return "run" if worker.runs() else "lost"


@case("leave/queued/3", INFO, known={"run": (), "lost": GEARMANDS}, requires=_JOINED)
def joined_background(it: ServerKit) -> str:
    """Fate of a background job after a client joined it and disconnected.

    Source: not in the document: gearmand 1.1 and 2.0 lose the job
    """
    return _after_both(it, SubmitJobBg, SubmitJob)


@case("leave/queued/8", INFO, known={"run": (), "lost": GEARMANDS}, requires=_JOINED)
def background_joined(it: ServerKit) -> str:
    """Fate of a queued job after a background submit has joined it and its client disconnected.

    Source: not in the document: gearmand 1.1 and 2.0 lose the job
    """
    return _after_both(it, SubmitJob, SubmitJobBg)


@case("leave/queued/4", MUST, 'SUBMIT_JOB_BG: "it is detached"')
def background(it: ServerKit) -> None:
    """A background job runs although its client has disconnected."""
    worker, client, other = it.worker(), it.client(), it.client()
    handle = client.submit(kind=SubmitJobBg)
    client.half_close()
    # Once the server has closed too, it has noticed the disconnect.
    client.rest()
    status = other.status(handle)
    demand(status.known == b"1", f"a known job {handle.decode()}", status)
    worker.run(handle=handle)


def _one_of_two_leaves(it: ServerKit, *, runs: bool) -> tuple[Line, Line, bytes]:
    """Submit a job from two clients, and disconnect the first one.

    Args:
        it: The kit.
        runs: True to start the job before the second submit.

    Returns:
        The second client, a worker, and the handle.
    """
    unique = it.another("u")
    client, worker, handle = (it.running if runs else it.queued)(unique=unique)
    other = it.client()
    other.submit(unique=unique)
    client.close()
    it.until(lambda: other.status_unique(unique).clients == b"1", "one waiting client")
    return other, worker, handle


@case("leave/queued/5", SHOULD, _GEARMAND, requires=_JOINED)
def one_of_two(it: ServerKit) -> None:
    """If one of a queued job's two clients disconnects, the other still receives the result."""
    other, worker, handle = _one_of_two_leaves(it, runs=False)
    worker.run()
    other.expect(WorkComplete, handle=handle, data=b"result")


@case("leave/queued/6", SHOULD, _GEARMAND, requires=("unique-status",))
def next_job(it: ServerKit) -> None:
    """A job whose client has disconnected does not block the jobs queued after it."""
    client, other, worker = it.client(), it.client(), it.worker()
    left = client.submit(unique=it.another("u"))
    handle = other.submit()
    it.gone(client, it.another("u"))
    job = worker.run()
    if job.handle == left:
        job = worker.run()
    demand(job.handle == handle, f"the job {handle.decode()}", job)
    other.expect(WorkComplete, handle=handle)


@case("leave/queued/7", SHOULD, _GEARMAND, requires=("unique-status",))
def other_jobs(it: ServerKit) -> None:
    """If a client with several jobs disconnects, other clients' jobs still run."""
    client, other, worker = it.client(), it.client(), it.worker()
    handle = other.submit(b"other")
    for number in range(3):
        client.submit(unique=it.another(f"{number}"))
    it.gone(client, it.another("0"))
    worker.run()
    other.expect(WorkComplete, handle=handle)
    it.until(lambda: not worker.runs(), "an empty queue")


@case("leave/running/1", SHOULD, _GEARMAND, requires=("unique-status",))
def running(it: ServerKit) -> None:
    """A worker may complete a job whose client has disconnected, and then receives the next job."""
    client, worker, handle = it.running(unique=it.another("u"))
    it.gone(client, it.another("u"))
    worker.tell(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    other = it.client()
    second = other.submit()
    worker.run(handle=second)
    other.expect(WorkComplete, handle=second)


@case("leave/running/2", SHOULD, _RUNNING, requires=_JOINED)
def rejoined(it: ServerKit) -> None:
    """A client may join a running job whose client has disconnected, and receives the result."""
    client, worker, handle = it.running(unique=it.another("u"))
    it.gone(client, it.another("u"))
    other = it.client()
    joined = other.submit(unique=it.another("u"))
    demand(joined == handle, f"the handle {handle.decode()} again", joined)
    worker.complete(handle)
    other.expect(WorkComplete, handle=handle, data=b"result")


@case("leave/running/3", SHOULD, _GEARMAND, requires=_JOINED)
def one_of_two_running(it: ServerKit) -> None:
    """If one of a running job's two clients disconnects, the other still receives its packets."""
    other, worker, handle = _one_of_two_leaves(it, runs=True)
    said = WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result")
    worker.tell(*said)
    other.gets(*said)
