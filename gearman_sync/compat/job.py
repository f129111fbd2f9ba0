"""Jobs and requests (`gearman.job`). Their names are str and can be decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto import jobs
from gearman_proto.address import parse_address
from gearman_proto.constants import *  # noqa: F403 - python-gearman's module has them
from gearman_proto.constants import PRIORITY_NONE
from gearman_proto.jobs import tracking
from gearman_proto.names import to_wire

from .connection import GearmanConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto import HostSpec, ServerAddress
    from gearman_proto.constants import Priority


class _Name(str):
    """A str that also supports the operations that programs for gearman3 use on bytes.

    A name can be decoded, and is equal to its bytes on the wire.
    """

    __slots__ = ()

    @classmethod
    def of(cls, name: str | None) -> Self | None:
        """Return `name` as a _Name, or None if it is None."""
        return None if name is None else cls(name)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the name as a plain str, as `bytes.decode` would."""
        return to_wire(self).decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        return to_wire(self) == other if isinstance(other, bytes) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    # CPython hashes ASCII bytes like the equal str, so a dict finds one by the other.
    __hash__ = str.__hash__


def _address_of(connection: GearmanConnection | HostSpec | None) -> ServerAddress | None:
    """Return the server's address for a job, from any form that a program can have."""
    if connection is None:
        return None
    if isinstance(connection, GearmanConnection):
        return connection.address
    return parse_address(connection)


def _converted(kind: type, name: str, change: Callable[[Any], Any] = _Name.of) -> Any:
    """Return a property that converts the values of an attribute of `kind` when they are read."""
    attribute = getattr(kind, name)

    def get(self: object) -> Any:
        return change(attribute.__get__(self, type(self)))

    return property(get, attribute.__set__)


def _settable(name: str) -> Any:
    """Return a property for a read-only attribute of requests that can be set when idle."""

    def put(self: jobs.GearmanJobRequest, value: Any) -> None:
        tracking.check_idle(self)
        setattr(self, f"_gm_{name}", value)

    read_only: Any = getattr(jobs.GearmanJobRequest, name)
    return property(read_only.fget, put)


class GearmanJob(jobs.GearmanJob):
    """A job (python-gearman: `GearmanJob`). Tests of workers can create jobs.

    Args:
        connection: An item of a client's `connection_list`, the address of a server, or None.
        handle: The job's handle, assigned by the server, or None.
        task: The name of the function, or None.
        unique: The job's unique, assigned by the submitter, or None.
        data: The job's data.
    """

    __slots__ = ()

    handle: Any = _converted(jobs.GearmanJob, "handle")
    # A request without a task has an empty task.
    task: Any = _converted(jobs.GearmanJob, "task", lambda task: _Name.of(task or None))
    unique: Any = _converted(jobs.GearmanJob, "unique")

    def __init__(
        self,
        connection: GearmanConnection | HostSpec | None,
        handle: str | bytes | None,
        task: str | bytes | None,
        unique: str | bytes | None,
        data: Any,
    ) -> None:
        super().__init__(_address_of(connection), handle, task or "", unique, data)

    @property  # type: ignore[override]
    def connection(self) -> GearmanConnection | None:
        """A connection to the job's server."""
        address = super().connection
        return None if address is None else GearmanConnection.to(address)

    @connection.setter
    def connection(self, connection: GearmanConnection | HostSpec | None) -> None:
        jobs.GearmanJob.connection.__set__(self, _address_of(connection))

    def to_dict(self) -> dict[str, Any]:
        """Return the job's fields as a dict."""
        return {
            "task": self.task,
            "job_handle": self.handle,
            "unique": self.unique,
            "data": self.data,
        }


class WorkerJob(jobs.WorkerJob, GearmanJob):
    """A job for a callback."""

    __slots__ = ()


class GearmanJobRequest(jobs.GearmanJobRequest):
    """A request (python-gearman: `GearmanJobRequest`). Tests of clients can create requests.

    While a request is not in flight, its `result`, `exception`, `status` and `state` can be set.

    Args:
        gearman_job: The job. `job` returns any other object, such as a mock, as it is.
        initial_priority: As in gearman_sync.
        background: As in gearman_sync.
        max_attempts: As in gearman_sync, and can be 0.
    """

    _gm_job_class = GearmanJob
    # The object given instead of a job, if any.
    _stand_in: Any = None

    handle: Any = _converted(jobs.GearmanJobRequest, "handle")
    task: Any = _converted(jobs.GearmanJobRequest, "task")
    unique: Any = _converted(jobs.GearmanJobRequest, "unique")

    def __init__(
        self,
        gearman_job: Any,
        initial_priority: Priority = PRIORITY_NONE,
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

    result: Any = _settable("result")
    exception: Any = _settable("exception")
    status: Any = _settable("status")
