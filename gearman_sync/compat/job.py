"""Jobs and requests (`gearman.job`), whose names are str and can be decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto import jobs
from gearman_proto.address import parse_address
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)
from gearman_proto.names import to_wire

from .connection import GearmanConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto import HostSpec, ServerAddress

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_NONE",
    "GearmanJob",
    "GearmanJobRequest",
    "WorkerJob",
]


class _Name(str):
    """A name: a str that also has what programs for gearman3 do with bytes.

    It can be decoded, and is equal to the bytes that it is on the wire.
    """

    __slots__ = ()

    @classmethod
    def of(cls, name: str | None) -> Self | None:
        """Return `name` as one of these; None if it is None."""
        return None if name is None else cls(name)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return it as a plain str, as `bytes.decode` would."""
        return to_wire(self).decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        return to_wire(self) == other if isinstance(other, bytes) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    # CPython gives the same hash to bytes of ASCII, so that either finds the other in a dict.
    __hash__ = str.__hash__


def _same(value: Any) -> Any:
    return value


def _address_of(connection: GearmanConnection | HostSpec | None) -> ServerAddress | None:
    """Return what a job is to have for its server, whatever a program has for it."""
    if connection is None:
        return None
    if isinstance(connection, GearmanConnection):
        return connection.address
    return parse_address(connection)


def _changed(
    kind: Any, name: str, change: Callable[[Any], Any], back: Callable[[Any], Any] = _same
) -> Any:
    """Return a property with what the attribute `name` of `kind` has.

    Args:
        kind: The class that has the attribute.
        name: Its name.
        change: Makes what is read of what is there.
        back: Makes what is put there of what is assigned.
    """
    attribute = getattr(kind, name)

    def get(self: object) -> Any:
        return change(attribute.__get__(self, type(self)))

    def put(self: object, value: Any) -> None:
        attribute.__set__(self, back(value))

    return property(get, put)


def _settable(name: str, put: Callable[[Any, Any], None]) -> Any:
    """Return a property of requests that was read-only, and now is set by `put`."""
    read_only: Any = getattr(jobs.GearmanJobRequest, name)
    return property(read_only.fget, put)


class GearmanJob(jobs.GearmanJob):
    """A job (python-gearman: `GearmanJob`). Tests of workers make some by hand.

    Args:
        connection: One of a client's `connection_list`, or the address of a server, or None.
        handle: The server's name for it, or None.
        task: The function that it is for, or None.
        unique: The submitter's name for it, or None.
        data: What to do it with.
    """

    __slots__ = ()

    connection: Any = _changed(
        jobs.GearmanJob,
        "connection",
        lambda address: None if address is None else GearmanConnection.to(address),
        _address_of,
    )
    handle: Any = _changed(jobs.GearmanJob, "handle", _Name.of)
    # Without a task it is empty: that is what a request without one has.
    task: Any = _changed(jobs.GearmanJob, "task", lambda task: _Name.of(task or None))
    unique: Any = _changed(jobs.GearmanJob, "unique", _Name.of)

    def __init__(
        self,
        connection: GearmanConnection | HostSpec | None,
        handle: str | bytes | None,
        task: str | bytes | None,
        unique: str | bytes | None,
        data: Any,
    ) -> None:
        super().__init__(_address_of(connection), handle, task or "", unique, data)

    def to_dict(self) -> dict[str, Any]:
        """Return its fields."""
        return {
            "task": self.task,
            "job_handle": self.handle,
            "unique": self.unique,
            "data": self.data,
        }


class WorkerJob(jobs.WorkerJob, GearmanJob):
    """A job as a callback gets it."""

    __slots__ = ()


class GearmanJobRequest(jobs.GearmanJobRequest):
    """A request (python-gearman: `GearmanJobRequest`). Tests of clients make some by hand.

    While it is not under way, its `result`, `exception`, `status` and `state` can be set.

    Args:
        gearman_job: The job. Anything else, such as a mock, is what `job` returns.
        initial_priority: As in gearman_sync.
        background: As in gearman_sync.
        max_attempts: As in gearman_sync. It may be 0.
    """

    _job_class = GearmanJob
    # What stands for the job, if that is none.
    _stand_in: Any = None

    handle: Any = _changed(jobs.GearmanJobRequest, "handle", _Name.of)
    task: Any = _changed(jobs.GearmanJobRequest, "task", _Name)
    unique: Any = _changed(jobs.GearmanJobRequest, "unique", _Name.of)

    def __init__(
        self,
        gearman_job: Any,
        initial_priority: str | None = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
        **options: Any,
    ) -> None:
        is_job = isinstance(gearman_job, jobs.GearmanJob)
        job = gearman_job if is_job else GearmanJob(None, None, None, None, None)
        super().__init__(job, initial_priority, background, max_attempts or 1, **options)
        self.connection: ServerAddress | None = _address_of(self.connection)
        self.max_connection_attempts: int = max_attempts
        if not is_job:
            self._stand_in = gearman_job

    @property
    def job(self) -> Any:
        """The job."""
        return super().job if self._stand_in is None else self._stand_in

    def _set_result(self, result: Any) -> None:
        self._check_idle()
        self._result = result

    def _set_exception(self, exception: Any) -> None:
        self._check_idle()
        self._exception = exception

    def _set_status(self, status: Any) -> None:
        self._check_idle()
        self.set_status(status)

    result: Any = _settable("result", _set_result)
    exception: Any = _settable("exception", _set_exception)
    status: Any = _settable("status", _set_status)
