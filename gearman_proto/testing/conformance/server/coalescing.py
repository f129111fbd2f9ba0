"""Cases about coalescing: submits that join an existing job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import EVERY, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    WorkComplete,
    WorkStatus,
)

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PlainSubmit

_MAY: Final = 'SUBMIT_JOB: "the server may attach this request to the already existing job"'
_RUNNING: Final = 'SUBMIT_JOB: "This includes jobs already in progress"'
_KEY: Final = "not in the document: gearmand 1.1 and 2.0 do this"
_NEEDS: Final = ("coalescing",)


def _demand_one(handle: bytes, other: bytes) -> None:
    demand(handle == other, f"the handle {handle.decode()} again", other)


def _joined(
    it: ServerKit, kind: type[PlainSubmit], joins: type[PlainSubmit]
) -> tuple[Line, Line, Line, bytes]:
    """Return a client, a second client that has joined its job, a worker, and the handle."""
    client, worker, handle = it.queued(kind, unique=it.another("u"))
    other = it.client()
    _demand_one(handle, other.submit(unique=it.another("u"), kind=joins))
    return client, other, worker, handle


@case("submit/coalesce/1", SHOULD, _MAY, requires=_NEEDS)
def two_clients(it: ServerKit) -> None:
    """If two clients submit the same unique, the job runs once and both receive its result."""
    client, other, worker, handle = _joined(it, SubmitJob, SubmitJob)
    worker.run()
    for each in (client, other):
        each.expect(WorkComplete, handle=handle, data=b"result")
        each.nothing()
    worker.grab_nothing()


@case("submit/coalesce/2", SHOULD, _MAY, requires=_NEEDS)
def background_joined(it: ServerKit) -> None:
    """If a foreground submit joins a background job, only its client receives the result."""
    client, other, worker, handle = _joined(it, SubmitJobBg, SubmitJob)
    worker.run()
    other.expect(WorkComplete, handle=handle, data=b"result")
    client.nothing()
    worker.grab_nothing()


@case("submit/coalesce/3", SHOULD, _MAY, requires=_NEEDS)
def background_joins(it: ServerKit) -> None:
    """If a background submit joins a foreground job, its client does not receive the result."""
    client, other, worker, handle = _joined(it, SubmitJob, SubmitJobBg)
    worker.run()
    client.expect(WorkComplete, handle=handle, data=b"result")
    other.nothing()
    worker.grab_nothing()


@case("submit/coalesce/4", MUST, _KEY)
def other_function(it: ServerKit) -> None:
    """Jobs of different functions are never coalesced, even if their uniques are equal."""
    client, other = it.client(), it.another("other")
    handle = client.submit(unique=it.another("u"), kind=SubmitJobBg)
    second = client.submit(unique=it.another("u"), kind=SubmitJobBg, function=other)
    demand(handle != second, "two handles", handle)
    for function, made in ((it.function, handle), (other, second)):
        _demand_one(made, it.worker(function).run().handle)


@case("submit/coalesce/5", MUST, _KEY)
def empty_unique(it: ServerKit) -> None:
    """Jobs with an empty unique are never coalesced, even if their data is equal."""
    client, other, worker = it.client(), it.client(), it.worker()
    made = [each.submit(kind=SubmitJobBg) for each in (client, other, client)]
    demand(len(set(made)) == len(made), "three handles", made)
    worker.run_all(len(made))


@case("submit/coalesce/6", SHOULD, requires=_NEEDS)
def by_data(it: ServerKit) -> None:
    """Jobs with the unique `-` are coalesced if and only if their data is equal.

    Source: not in the document: gearmand 1.1, gearmand 2.0 and Perl's server do this
    """
    client, worker = it.client(), it.worker()
    handle = client.submit(it.another("a"), unique=b"-", kind=SubmitJobBg)
    _demand_one(handle, client.submit(it.another("a"), unique=b"-", kind=SubmitJobBg))
    second = client.submit(it.another("b"), unique=b"-", kind=SubmitJobBg)
    demand(second != handle, "a different handle", second)
    worker.run_all(2)
    worker.grab_nothing()


@case("submit/coalesce/7", MUST, _KEY)
def after_the_end(it: ServerKit) -> None:
    """A submit with the unique of a finished job creates a new job."""
    client, worker = it.client(), it.worker()
    handles = []
    for data in (b"first", b"second"):
        handles.append(client.submit(data, unique=it.another("u"), kind=SubmitJobBg))
        worker.run(data=data)
    demand(handles[0] != handles[1], "a new handle", handles[1])


@case("submit/coalesce/8", SHOULD, _KEY, requires=_NEEDS)
def first_data(it: ServerKit) -> None:
    """A submit that joins a job does not change the job's data."""
    client, worker = it.client(), it.worker()
    for data in (b"first", b"second"):
        client.submit(data, unique=it.another("u"), kind=SubmitJobBg)
    worker.run(data=b"first")
    worker.grab_nothing()


@case("submit/coalesce/9", SHOULD, _RUNNING, requires=_NEEDS)
def while_running(it: ServerKit) -> None:
    """A client that joins a running job receives all later packets about it."""
    client, worker, handle = it.running(unique=it.another("u"))
    other = it.client()
    worker.tell(WorkStatus(handle, b"1", b"3"))
    _demand_one(handle, other.submit(unique=it.another("u")))
    said = WorkStatus(handle, b"2", b"3"), WorkComplete(handle, b"result")
    worker.tell(*said)
    client.expect(WorkStatus, numerator=b"1")
    for each in (client, other):
        each.gets(*said)


@case("submit/coalesce/12", MUST, _KEY)
def alike(it: ServerKit) -> None:
    """Jobs are coalesced only if all bytes of their uniques are equal."""
    client, worker = it.client(), it.worker()
    uniques = [it.another(name) for name in ("unique", "uniqu", "Unique", "unique ")]
    made = [client.submit(unique=unique, kind=SubmitJobBg) for unique in uniques]
    demand(len(set(made)) == len(made), "four handles", made)
    worker.run_all(len(made))


@case("submit/coalesce/10", INFO, known={"once": (), "twice": EVERY}, requires=_NEEDS)
def same_connection(it: ServerKit) -> str:
    """Number of results sent to a connection that has submitted the same unique twice.

    Source: not in the document: gearmand 1.1 and 2.0 send each packet twice
    """
    client, worker = it.client(), it.worker()
    client.send(*[SubmitJob(it.function, it.another("u"), b"data")] * 2)
    handle = client.expect(JobCreated).handle
    client.expect(JobCreated, handle=handle)
    worker.run()
    got = [client.expect(WorkComplete, handle=handle), *client.settle()]
    demand(got == got[:1] * len(got) and len(got) <= 2, "one or two equal results", got)
    return "once" if len(got) == 1 else "twice"


@case(
    "submit/coalesce/11", INFO, known={"stays as it was": EVERY, "is raised": ()}, requires=_NEEDS
)
def priority(it: ServerKit) -> str:
    """Priority of a queued job after a submit of higher priority has joined it.

    Source: not in the document: gearmand 1.1 and 2.0 do not change it
    """
    client, worker = it.client(), it.worker()
    first = client.submit()
    second = client.submit(unique=it.another("u"))
    _demand_one(second, client.submit(unique=it.another("u"), kind=SubmitJobHigh))
    given = [worker.run().handle for _ in range(2)]
    demand(set(given) == {first, second}, "both jobs", given)
    return "is raised" if given[0] == second else "stays as it was"
