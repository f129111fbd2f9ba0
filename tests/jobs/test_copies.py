"""Requests, jobs and addresses that are copied, deep-copied or pickled."""

from __future__ import annotations

import copy
import pickle
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ServerUnavailable
from gearman_proto.jobs.assigned import WorkerJob
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.jobs.updates import UpdateQueue
from gearman_proto.wire.packets import (
    Error,
    JobCreated,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.engines.harness import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.wire.packets import Event


class Upper(NoopEncoder):
    """An encoder that can be seen to have run."""

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return decodable_string.decode().upper()


class TextJob(GearmanJob):
    """An application's job, with an attribute of its own."""

    color: str = "none"


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle])

# The engine's bookkeeping, which a copy does not have.
_ENGINE = {"link", "payload", "tried", "waits", "unclaimed", "is_stranded"}


def played(*answers: Event, background: bool = False, submit: bool = True) -> GearmanJobRequest:
    """A request whose server has sent `answers`."""
    world = World()
    request = world.request(background=background, encoder=Upper, data=b"data")
    if submit:
        world.submit(request)
        server = world.serve()
        server.take()
        server.send(*answers)
    return request


def lost() -> GearmanJobRequest:
    world = World()
    request = world.request(encoder=Upper)
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    server.lose()
    return request


def unavailable() -> GearmanJobRequest:
    world = World(servers=0)
    request = world.request(encoder=Upper)
    world.submit(request)
    return request


def timed_out() -> GearmanJobRequest:
    world = World()
    request = world.request(encoder=Upper)
    world.submit(request, timeout=1.0)
    world.serve()
    world.sleep(2.0)
    return request


def stranded() -> GearmanJobRequest:
    world = World()
    request = world.request(encoder=Upper)
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    world.release(wait)
    world.close()
    return request


_CREATED = JobCreated(b"H:1")
_UPDATES = (
    WorkData(b"H:1", b"part"),
    WorkWarning(b"H:1", b"careful"),
    WorkStatus(b"H:1", b"1", b"2"),
    WorkData(b"H:1", b"more"),
)

STATES: dict[str, Callable[[], GearmanJobRequest]] = {
    "new": lambda: played(submit=False),
    "pending": played,
    "pending-background": lambda: played(background=True),
    "refused": lambda: played(Error(b"QUEUE_ERROR", b"full")),
    "created": lambda: played(_CREATED),
    "created-background": lambda: played(_CREATED, background=True),
    "updated": lambda: played(_CREATED, *_UPDATES),
    "complete": lambda: played(_CREATED, WorkComplete(b"H:1", b"result")),
    "complete-updated": lambda: played(_CREATED, *_UPDATES, WorkComplete(b"H:1", b"result")),
    "complete-empty": lambda: played(_CREATED, WorkComplete(b"H:1", b"")),
    "failed": lambda: played(_CREATED, WorkWarning(b"H:1", b"reason"), WorkFail(b"H:1")),
    "failed-exception": lambda: played(_CREATED, WorkException(b"H:1", b"reason")),
    "lost": lost,
    "unavailable": unavailable,
    "timed-out": timed_out,
    "stranded": stranded,
    "from-handle": lambda: GearmanJobRequest.from_handle("H:1", "localhost"),
    "made-of-job": lambda: GearmanJobRequest(TextJob(None, None, "task", "u", b"data")),
}


def value_of(value: Any) -> Any:
    """A form of an attribute that can be compared."""
    if isinstance(value, UpdateQueue):
        return [*value]
    if isinstance(value, GearmanJob):
        names = ("connection", "handle", "task", "unique", "data")
        return type(value), [getattr(value, name) for name in names]
    if isinstance(value, Exception):
        return type(value), str(value), vars(value)
    return value


def attributes_of(request: GearmanJobRequest) -> dict[str, Any]:
    names = [name for name in dir(request) if not name.startswith("_") and name not in _ENGINE]
    values = {name: getattr(request, name) for name in names}
    return {name: value_of(v) for name, v in values.items() if not callable(v) or v is Upper}


def public(request: GearmanJobRequest, *, read: bool) -> dict[str, Any]:
    """The public attributes; but for the raw data, of which reading leaves none."""
    found = attributes_of(request)
    return {**found, "raw_result": None, "raw_exception": None} if not read else found


@COPIES
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("state", STATES)
def test_copy_of_request_in_each_state_has_its_public_attributes(
    state: str, read: bool, copied: Callable[[Any], Any]
) -> None:
    request = STATES[state]()
    if read:
        attributes_of(request)
    other = copied(request)
    assert type(other) is type(request)
    # The engine goes on with the request and does not touch the copy, and the other way round.
    assert public(other, read=read) == public(request, read=read)
    assert other.waits == ()
    assert other.payload is None


@COPIES
def test_copy_of_request_shares_nothing_that_changes(copied: Callable[[Any], Any]) -> None:
    request = played(_CREATED, *_UPDATES)
    assert request.job.handle == "H:1"
    other = copied(request)
    assert other.data_updates.popleft() == "PART"
    assert [*request.data_updates] == ["PART", "MORE"]
    assert other.data_updates.unread == len(b"more") + 200
    other.job.task = "another"
    assert (request.task, request.job.task) == ("task", "task")


@COPIES
def test_copy_of_job_has_fields_of_its_own(copied: Callable[[Any], Any]) -> None:
    job = TextJob(None, "H:1", "task", "u", b"data")
    job.color = "red"
    other = copied(job)
    other.task = "another"
    assert (other.color, other.handle, other.unique, other.data) == ("red", "H:1", "u", b"data")
    assert (type(other), job.task) == (TextJob, "task")


@COPIES
def test_copy_of_request_made_of_job_has_a_job_of_its_own(copied: Callable[[Any], Any]) -> None:
    job = TextJob(None, None, "task", None, b"data")
    job.color = "red"
    other = copied(GearmanJobRequest(job))
    assert (type(other.job), other.job.color) == (TextJob, "red")
    other.unique = "new"
    assert (other.job.unique, job.unique) == ("new", None)


@COPIES
@pytest.mark.parametrize("state", [JOB_PENDING, JOB_CREATED])
def test_copy_of_request_under_way_belongs_to_no_client(
    state: str, copied: Callable[[Any], Any]
) -> None:
    """To a client it is a request whose connection was lost, and it can be submitted again."""
    request = played(*([_CREATED] if state == JOB_CREATED else []))
    other, renewed = copied(request), copied(request)
    assert other.state == renewed.state == state
    world = World()
    assert world.wait_completed(other).done
    assert other.state == JOB_UNKNOWN
    assert "or it is a copy" in str(other.reason)
    renewed.reset()
    prepare([renewed], Upper)
    world.submit(renewed)
    world.serve()
    world.peers[0].take()
    world.peers[0].send(JobCreated(b"H:2"), WorkComplete(b"H:2", b"again"))
    assert (renewed.state, renewed.result) == (JOB_COMPLETE, "AGAIN")
    assert request.state == state


@COPIES
def test_copy_of_worker_job_is_refused_with_the_cure(copied: Callable[[Any], Any]) -> None:
    job = WorkerJob(SimpleNamespace(address=None, alive=True), b"H:1", b"f", b"u", b"in")
    with pytest.raises(TypeError, match=r"belongs to its worker.*pickle job\.data"):
        copied(job)


def test_request_at_address_with_ssl_context_is_pickled_without_its_connection() -> None:
    address = ServerAddress("localhost", ssl_context=ssl.create_default_context())
    request = GearmanJobRequest.from_handle("H:1", address)
    assert copy.deepcopy(request).connection is address
    with pytest.raises(TypeError, match="or set the request's connection to None"):
        pickle.dumps(request)
    request.connection = None
    assert by_pickle(request).handle == "H:1"


@COPIES
def test_copy_of_error_keeps_requests_that_refer_to_it(copied: Callable[[Any], Any]) -> None:
    (request,) = make_requests([{"task": "task", "data": b""}])
    error = request.error = ServerUnavailable("no server", [request])
    error.add_note("a note")
    other = copied(error)
    assert (type(other), str(other), other.__notes__) == (type(error), "no server", ["a note"])
    assert other.job_requests[0].error is (error if copied is copy.copy else other)
