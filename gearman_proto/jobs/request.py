"""Requests: jobs as their submitter sees them. Text is `str`; the encoder converts data.

Encoding and decoding
    Encoders are the application's code, so they run in the application's calls and never in an
    engine. `prepare` encodes all data before the engine sends any. Received data is stored as
    bytes and decoded when it is first read, so that only reading an undecodable result raises.

Size
    An application can have a hundred thousand requests at once. Requests therefore have slots, and
    the parts that few requests need (updates, a status) are made on first use.

The bookkeeping of engines is in `tracking`.
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto.address import HostSpec, ServerAddress, parse_address
from gearman_proto.checks import check_count
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    PRIORITY_NONE,
)
from gearman_proto.errors import ArgumentTypeError
from gearman_proto.names import to_text

from . import tracking
from .job import GearmanJob, Missing
from .updates import MAX_REASON, JobData, JobEnded, JobProgress, JobStatus, JobUpdate, JobWarning

if TYPE_CHECKING:
    from datetime import datetime

    from gearman_proto.constants import Priority

    from .updates import UpdateQueue

# Maximum length of the reason in a repr, in characters.
_SHORT: Final = 200


class GearmanJobRequest(tracking.TrackedRequest):
    """A job as its submitter sees it (python-gearman: `gearman.job.GearmanJobRequest`).

    Args:
        gearman_job: The job.
        initial_priority: PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH.
        background: If true, the submitter does not wait for the job's end.
        max_attempts: Maximum number of attempts to submit the job if connections are lost before
            the server acknowledges it.
        run_at: The earliest time to run the job: a `datetime` (local time if it is naive), or
            seconds since 1970. Only for background jobs without a priority.
        reducer: The function that reduces the results. Only for jobs without a priority.

    Raises:
        TypeError: `gearman_job` is not a GearmanJob, or `max_attempts` is not an integer.
        ValueError: `max_attempts` is less than 1.

    Attributes:
        task, data, unique, handle, connection: As in GearmanJob.
        priority, background, run_at, reducer: As the arguments.
        max_connection_attempts: As the argument `max_attempts`.
        connection_attempts: Number of attempts since the request was last submitted.
        state: JOB_UNKNOWN, JOB_PENDING, JOB_CREATED, JOB_FAILED or JOB_COMPLETE.
        timed_out: True if the last call that waited for this request gave up before its end.
        error: The reason for JOB_FAILED or JOB_UNKNOWN, unless the worker ended the job: a
            ServerError if the server refused the job, or the reason that the client could not
            send it, that the connection was lost, or that the server has lost the job. None
            otherwise.
    """

    __slots__ = ()

    # The class of `job`, unless the application gave a job.
    _gm_job_class: ClassVar[type[GearmanJob]] = GearmanJob
    # The job that the application gave, or a weak reference to the last view of the request.
    _gm_job: weakref.ref[GearmanJob] | GearmanJob | None = None

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: Priority = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
        *,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
    ) -> None:
        job = gearman_job
        if not isinstance(job, GearmanJob):
            raise ArgumentTypeError(f"a request is made of a GearmanJob, not {job!r}")
        check_count("max_attempts", max_attempts, 1)
        tracking.set_up(self, job.task, job.data, initial_priority, bool(background), max_attempts)
        self.connection: ServerAddress | None = job.connection
        self.handle: str | None = job.handle
        self.unique: str | None = job.unique
        tracking.set_options(self, run_at, reducer)
        self._gm_job = job
        job._gm_fields = self

    @classmethod
    def from_handle(cls, handle: str | bytes, server: HostSpec | None = None) -> GearmanJobRequest:
        """Return a request for a job that was submitted before, to ask for its status.

        Args:
            handle: The job's handle, as in `request.job.handle`.
            server: The server of the job, in any form that a host list takes. If None, the client
                asks all of its servers.
        """
        return _submitted(cls, GearmanJob(_address(server), to_text(handle), "", None, b""))

    @classmethod
    def from_unique(cls, unique: str | bytes, server: HostSpec | None = None) -> GearmanJobRequest:
        """Return a request for a job that was submitted before, to ask for its status by unique.

        Args:
            unique: The job's unique.
            server: The server of the job, in any form that a host list takes. If None, the client
                asks all of its servers.
        """
        return _submitted(cls, GearmanJob(_address(server), None, "", to_text(unique), b""))

    def __repr__(self) -> str:
        timed_out = ", timed out" if self.timed_out else ""
        reason = self.reason
        because = "" if reason is None else f" reason={reason[:_SHORT]!r}"
        return (
            f"<GearmanJobRequest {self.state}{timed_out} task={self.task!r} "
            f"unique={self.unique!r} handle={self.handle!r}{because}>"
        )

    @property
    def reason(self) -> str | None:
        """The reason for a failure or a loss, as text for people; None if no reason is known.

        This is the text of `error`, if there is an `error`. For a job that its worker failed, it is
        the data of the worker's exception, or else of its last warning: workers that send no
        exceptions give the reason in a warning.
        """
        if self.error is not None:
            return str(self.error)
        if self.state != JOB_FAILED:
            return None
        text = self._gm_raw_exception
        if text is None and self._gm_exception is not Missing:
            text = self._gm_exception
        if text is None and self._gm_updates is not None:
            text = self._gm_updates.last_warning
        if isinstance(text, bytes):
            return text[:MAX_REASON].decode("utf-8", "replace")
        return None if text is None else str(text)

    @property
    def job(self) -> GearmanJob:
        """The job, a view of this request with the same attributes."""
        job = self._gm_job() if isinstance(self._gm_job, weakref.ref) else self._gm_job
        if job is None:
            kind = self._gm_job_class
            job = kind.__new__(kind)
            job._gm_fields = self
            # A strong reference would be a cycle, and requests with their results would stay in
            # memory until the cycle collector runs.
            self._gm_job = weakref.ref(job)
        return job

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the state for a copy: everything except the request's place in a client.

        A copy of a request in flight keeps the request's state, but belongs to no client.
        """
        state: Any = super().__getstate__()
        slots: dict[str, Any] = state[1]
        # Other threads might end the request or read its result meanwhile. They write the exception
        # and the raw result before the state, and the decoded result before they drop the raw one.
        attributes = dict(self.__dict__)
        slots["_gm_raw_result"] = self._gm_raw_result
        slots["_gm_result"] = self._gm_result
        slots["_gm_payload"], slots["_gm_waits"], slots["_gm_unclaimed"] = None, (), True
        is_created = slots["state"] == JOB_CREATED and slots["_gm_link"] is not None
        slots["_gm_link"] = (
            tracking.Orphaned if is_created or slots["state"] == JOB_PENDING else None
        )
        for name in ("_gm_tried", "_gm_job", "_gm_updates"):
            attributes.pop(name, None)
        if isinstance(self._gm_job, GearmanJob):
            attributes["_gm_job"] = copy.copy(self._gm_job)
        if self._gm_updates is not None:
            attributes["_gm_updates"] = copy.copy(self._gm_updates)
        return attributes, slots

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        for part in state:
            for name, value in part.items():
                setattr(self, name, value)
        if isinstance(self._gm_job, GearmanJob):
            self._gm_job._gm_fields = self

    @property
    def gearman_job(self) -> GearmanJob:
        """The same as `job` (python-gearman's `gearman_job`)."""
        return self.job

    @property
    def complete(self) -> bool:
        """True if there is nothing left to wait for.

        A background request is complete once it is JOB_CREATED, a foreground one once it is
        JOB_FAILED or JOB_COMPLETE. A request that the server refused is JOB_FAILED.
        """
        if self.background and self.state == JOB_CREATED:
            return True
        return self.state in (JOB_FAILED, JOB_COMPLETE)

    @property
    def result(self) -> Any:
        """The decoded result of the job; None until it has one.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._gm_result is Missing:
            if self._gm_raw_result is None:
                return None
            self._gm_result = self._gm_encoder.decode(self._gm_raw_result)
            self._gm_raw_result = None
        return self._gm_result

    @property
    def exception(self) -> Any:
        """The decoded data of the exception that the job failed with; None without an exception.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._gm_exception is Missing:
            if self._gm_raw_exception is None:
                return None
            self._gm_exception = self._gm_encoder.decode(self._gm_raw_exception)
            self._gm_raw_exception = None
        return self._gm_exception

    @property
    def status(self) -> JobStatus:
        """The last known progress of the job, see JobStatus; empty until the server sends one."""
        return self._gm_status if self._gm_status is not None else {}

    @property
    def data_updates(self) -> UpdateQueue:
        """The unread data of WORK_DATA, decoded."""
        return tracking.updates_of(self).data

    @property
    def warning_updates(self) -> UpdateQueue:
        """The unread data of WORK_WARNING, decoded."""
        return tracking.updates_of(self).warnings

    @property
    def status_updates(self) -> UpdateQueue:
        """The unread (numerator, denominator) pairs of WORK_STATUS; the last 1,000 at most."""
        return tracking.updates_of(self).progress

    def reset(self) -> None:
        """Return the request to the state before its first submit (python-gearman: `reset`).

        Raises:
            InvalidClientState: The request is in flight.
        """
        tracking.check_idle(self)
        tracking.reset(self)
        self.connection = self._gm_payload = None


def _submitted(kind: type[GearmanJobRequest], job: GearmanJob) -> GearmanJobRequest:
    request = kind(job, background=True)
    request.state = JOB_CREATED
    return request


def _address(server: HostSpec | None) -> ServerAddress | None:
    return None if server is None else parse_address(server)


def next_update(request: GearmanJobRequest) -> JobUpdate | None:
    """Remove and return the oldest unread update of `request`, or return None.

    Raises:
        Exception: Any exception that the encoder's `decode` raises. The update is removed anyway.
    """
    updates = request._gm_updates
    if updates is None:
        return None
    queues = updates.data, updates.warnings, updates.progress
    while True:
        queue = min(queues, key=lambda queue: queue._first)
        entry = queue._pop()
        if entry is not None:
            break
        if not any(queues):  # Else another thread has taken that update.
            return None
    value = queue._read(entry)
    if queue is updates.progress:
        return JobProgress(*value)
    return JobData(value) if queue is updates.data else JobWarning(value)


def ended(request: GearmanJobRequest) -> JobEnded:
    """Return the final state, the result and the exception of `request`.

    Raises:
        Exception: Any exception that the encoder's `decode` raises.
    """
    return JobEnded(request.state, request.result, request.exception)
