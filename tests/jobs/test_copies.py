"""Copies, deep copies and pickles of requests, jobs and errors."""

from __future__ import annotations

import copy
import pickle
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.jobs import tracking
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import GearmanJob, WorkerJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.jobs.tracking import TrackedRequest
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
from tests.jobs.played import played, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.wire.packets import Event


class Upper(NoopEncoder):
    """An encoder whose effect is visible."""

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return decodable_string.decode().upper()


class TextJob(GearmanJob):
    """An application's subclass with another attribute."""

    color: str = "none"


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle])


_CREATED = JobCreated(b"H:1")
_UPDATES = (
    WorkData(b"H:1", b"part"),
    WorkWarning(b"H:1", b"careful"),
    WorkStatus(b"H:1", b"1", b"2"),
    WorkData(b"H:1", b"more"),
)


def after(*answers: Event, **options: Any) -> Callable[[], GearmanJobRequest]:
    return lambda: played(*answers, encoder=Upper, **options)


def changed(change: Callable[[GearmanJobRequest], object]) -> Callable[[], GearmanJobRequest]:
    def make() -> GearmanJobRequest:
        request = played(_CREATED, encoder=Upper)
        change(request)
        return request

    return make


STATES: dict[str, Callable[[], GearmanJobRequest]] = {
    "new": lambda: World().request(encoder=Upper),
    "pending": after(),
    "pending-background": after(background=True),
    "refused": after(Error(b"QUEUE_ERROR", b"full")),
    "created": after(_CREATED),
    "created-background": after(_CREATED, background=True),
    "updated": after(_CREATED, *_UPDATES),
    "complete": after(_CREATED, WorkComplete(b"H:1", b"result")),
    "complete-updated": after(_CREATED, *_UPDATES, WorkComplete(b"H:1", b"result")),
    "complete-empty": after(_CREATED, WorkComplete(b"H:1", b"")),
    "failed": after(_CREATED, WorkWarning(b"H:1", b"reason"), WorkFail(b"H:1")),
    "failed-exception": after(_CREATED, WorkException(b"H:1", b"reason")),
    "lost": changed(lambda it: tracking.lose(it, ConnectionError("lost"))),
    "timed-out": changed(lambda it: setattr(it, "timed_out", True)),
    "orphaned": changed(tracking.orphan),
    "from-handle": lambda: GearmanJobRequest.from_handle("H:1", "localhost"),
    "made-of-job": lambda: GearmanJobRequest(TextJob(None, None, "task", "u", b"data")),
}


def value_of(value: Any) -> Any:
    """Return a form of an attribute that tests can compare."""
    if isinstance(value, UpdateQueue):
        return [*value]
    if isinstance(value, GearmanJob):
        names = ("connection", "handle", "task", "unique", "data")
        return type(value), [getattr(value, name) for name in names]
    if isinstance(value, Exception):
        return type(value), str(value), vars(value)
    return value


def public(request: GearmanJobRequest) -> dict[str, Any]:
    names = [name for name in dir(request) if not name.startswith("_")]
    values = {name: getattr(request, name) for name in names}
    return {name: value_of(value) for name, value in values.items() if not callable(value)}


@COPIES
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("state", STATES)
def test_copy_of_request_in_each_state_has_the_same_public_attributes(
    state: str, read: bool, copied: Callable[[Any], Any]
) -> None:
    request = STATES[state]()
    if read:
        public(request)
    other = copied(request)
    assert type(other) is type(request)
    assert public(other) == public(request)
    assert (other._gm_waits, other._gm_payload) == ((), None)


@pytest.mark.parametrize("change", ["end", "read"])
def test_copy_of_request_that_another_thread_changes_meanwhile_has_the_result(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [_CREATED] if change == "end" else [_CREATED, WorkComplete(b"H:1", b"result")]
    request = played(*answers, encoder=Upper)

    def interrupted(self: GearmanJobRequest) -> tuple[Any, Any]:
        state: Any = object.__getstate__(self)
        attributes, slots = state
        if change == "end":
            # The slots are copied one by one, the state last.
            self._gm_raw_result, self.state = b"result", JOB_COMPLETE
            slots["state"] = self.state
        else:
            assert self.result == "RESULT"
        return attributes, slots

    monkeypatch.setattr(TrackedRequest, "__getstate__", interrupted, raising=False)
    other = copy.copy(request)
    assert (other.state, other.result) == (JOB_COMPLETE, "RESULT")


@COPIES
def test_copy_of_request_shares_nothing_mutable(copied: Callable[[Any], Any]) -> None:
    request = played(_CREATED, *_UPDATES, encoder=Upper)
    assert request.job.handle == "H:1"
    other = copied(request)
    assert other.data_updates.popleft() == "PART"
    assert [*request.data_updates] == ["PART", "MORE"]
    assert other.data_updates._unread == len(b"more") + 200
    other.job.task = "another"
    assert (request.task, request.job.task) == ("task", "task")


@COPIES
def test_copy_of_job_has_its_own_fields(copied: Callable[[Any], Any]) -> None:
    job = TextJob(None, "H:1", "task", "u", b"data")
    job.color = "red"
    for other in (copied(job), copied(GearmanJobRequest(job)).job):
        assert (type(other), other.color) == (TextJob, "red")
        assert (other.handle, other.unique, other.data) == ("H:1", "u", b"data")
        other.task = "another"
        assert job.task == "task"


@COPIES
@pytest.mark.parametrize("answers", [[], [_CREATED]], ids=["pending", "created"])
def test_copy_of_request_under_way_belongs_to_no_client(
    answers: list[Event], copied: Callable[[Any], Any]
) -> None:
    """A client treats the copy as a request whose connection was lost."""
    request = played(*answers, encoder=Upper)
    other, again = copied(request), copied(request)
    assert World().wait_completed(other).done
    assert other.state == JOB_UNKNOWN
    assert "the request is a copy" in str(other.reason)
    again.reset()
    prepare([again], Upper)
    submit(again).send(JobCreated(b"H:2"), WorkComplete(b"H:2", b"again"))
    assert (again.state, again.result) == (JOB_COMPLETE, "AGAIN")
    assert request.state == (JOB_CREATED if answers else JOB_PENDING)


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
