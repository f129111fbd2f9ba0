"""Jobs as applications see them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from gearman_proto.errors import InvalidWorkerState
from gearman_proto.names import to_text

from .encoder import NoopEncoder

if TYPE_CHECKING:
    from typing import Self

    from gearman_proto.address import ServerAddress


class Missing:
    """A sentinel for a missing value. The class itself is the sentinel; it is never instantiated.

    Pickling or copying a class returns the same class, so code can compare by identity.
    """


class Fields:
    """The storage for the attributes of a job."""

    __slots__ = ("connection", "data", "handle", "task", "unique")

    connection: ServerAddress | None
    handle: str | None
    task: str
    unique: str | None
    data: Any


_T = TypeVar("_T")


class _Forwarded(Generic[_T]):
    """An attribute of a job that is stored in the job's fields."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, job: None, owner: type) -> Self: ...
    @overload
    def __get__(self, job: GearmanJob, owner: type) -> _T: ...
    def __get__(self, job: GearmanJob | None, owner: type) -> Any:
        return self if job is None else getattr(job._gm_fields, self._name)

    def __set__(self, job: GearmanJob, value: _T) -> None:
        setattr(job._gm_fields, self._name, value)


class GearmanJob:
    """A function to run and its data (python-gearman: `gearman.job.GearmanJob`).

    A request stores these attributes itself, so a hundred thousand requests are not two hundred
    thousand objects. The request's `job` is a view of them, made when it is first read. Making a
    request from a job turns the job into such a view.

    Attributes:
        connection: The address of the job's server, or None.
        handle: The server's name for the job, or None.
        task: The name of the function.
        unique: The submitter's name for the job, or None.
        data: The data for the function, before encoding.
    """

    __slots__ = ("__dict__", "__weakref__", "_gm_fields")

    # The object that stores the attributes.
    _gm_fields: Fields

    connection: _Forwarded[ServerAddress | None] = _Forwarded()
    handle: _Forwarded[str | None] = _Forwarded()
    task: _Forwarded[str] = _Forwarded()
    unique: _Forwarded[str | None] = _Forwarded()
    data: _Forwarded[Any] = _Forwarded()

    def __init__(
        self,
        connection: ServerAddress | None,
        handle: str | bytes | None,
        task: str | bytes,
        unique: str | bytes | None,
        data: Any,
    ) -> None:
        fields = Fields()
        fields.connection = connection
        fields.handle = None if handle is None else to_text(handle, "handle")
        fields.task = to_text(task, "task")
        fields.unique = None if unique is None else to_text(unique, "unique")
        fields.data = data
        self._gm_fields = fields

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the state for a copy with its own fields."""
        state: Any = super().__getstate__()
        attributes, slots = state
        fields = Fields()
        for name in Fields.__slots__:
            setattr(fields, name, getattr(self._gm_fields, name))
        return attributes, {**slots, "_gm_fields": fields}

    def __repr__(self) -> str:
        return f"<GearmanJob task={self.task!r} unique={self.unique!r} handle={self.handle!r}>"


class WorkerJob(GearmanJob):
    """A job as its worker sees it.

    `task`, `unique`, `handle` and `connection` are as in GearmanJob.

    Attributes:
        ended: True if the worker has sent the job's result, failure or exception, or the connection
            was lost when the worker tried to send it.
        wire_handle: The handle as bytes, for the packets of a program that drives a WorkerEngine.
        wire_task: The task as bytes.
    """

    __slots__ = (
        "_gm_data",
        "_gm_deferred",
        "_gm_encoder",
        "_gm_is_finished",
        "_gm_is_left",
        "_gm_link",
        "_gm_payload",
        "_gm_worker",
        "ended",
        "wire_handle",
        "wire_task",
    )

    def __init__(
        self, link: Any, handle: bytes, task: bytes, unique: bytes | None, payload: bytes
    ) -> None:
        super().__init__(link.address, handle, task, unique, None)
        self.ended: bool = False
        self.wire_handle: bytes = handle
        self.wire_task: bytes = task
        # True once the engine knows that the callback has finished.
        self._gm_is_finished: bool = False
        # True once the callback has returned and left the job open.
        self._gm_is_left: bool = False
        # A weak reference to the DeferredJob, if there is one.
        self._gm_deferred: weakref.ref[DeferredJob] | None = None
        self._gm_encoder: Any = NoopEncoder
        # The connection of the engine. A job reads its `address` and `alive`, and fills `dropped`.
        self._gm_link: Any = link
        self._gm_payload = payload
        # The GearmanWorker that does the job; None in a program that drives the engine itself.
        self._gm_worker: Any = None
        self._gm_data: Any = Missing

    @property
    def data(self) -> Any:
        """The decoded data of the job.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._gm_data is Missing:
            self._gm_data = self._gm_encoder.decode(self._gm_payload)
        return self._gm_data

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} belongs to its worker, so it can't be copied or pickled: pickle job.data"
        )

    @property
    def is_lost(self) -> bool:
        """True if the connection was lost before the job ended. The server then requeues the job.

        Another worker will run the job again.
        """
        return not self.ended and not self._gm_link.alive

    def defer(self) -> DeferredJob:
        """Leave the job open when its callback returns, for another thread or task to end it.

        The callback's return value is then ignored. If the callback raises, the job fails. The job
        keeps its slot until it ends, and `after_job` is called then. `stop` waits for its end.

        Returns:
            An object that ends the job. Keep it, because an open job fails if this object is
            garbage-collected. The worker logs a warning then.

        Raises:
            InvalidWorkerState: The job has ended, or was deferred before.
        """
        if self.ended:
            raise InvalidWorkerState(f"{self!r} has ended")
        if self._gm_deferred is not None:
            raise InvalidWorkerState(f"{self!r} is deferred already: keep the result of defer()")
        deferred = DeferredJob(self)
        # A handle can be garbage-collected at any point, so this only stores the reference.
        self._gm_deferred = weakref.ref(deferred, self._gm_link.dropped.append)
        return deferred

    # The worker's methods for callbacks that take no worker. The result of an awaited worker's
    # method is awaited, except in the thread of a plain callback.

    def send_status(
        self,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> Any:
        """Report progress (WORK_STATUS). See `GearmanWorker.send_job_status`.

        Returns:
            None. (awaited) An awaitable, in an async callback.
        """
        return self._gm_worker.send_job_status(self, numerator, denominator, poll_timeout)

    def send_data(self, data: Any, poll_timeout: float | None = None) -> Any:
        """Send a part of the result (WORK_DATA). See `GearmanWorker.send_job_data`.

        Returns:
            None. (awaited) An awaitable, in an async callback.
        """
        return self._gm_worker.send_job_data(self, data, poll_timeout)

    def send_warning(self, data: Any, poll_timeout: float | None = None) -> Any:
        """Send a warning (WORK_WARNING). See `GearmanWorker.send_job_warning`.

        Returns:
            None. (awaited) An awaitable, in an async callback.
        """
        return self._gm_worker.send_job_warning(self, data, poll_timeout)


class DeferredJob:
    """A job that stays open after its callback, the result of `WorkerJob.defer`.

    (blocking) Any thread can call the methods. (awaited) Await them in the event loop's thread. In
    threads that anyio has started, they block if a plain callback has deferred the job. If an async
    one has, call them with `anyio.from_thread.run`. Other threads have to let the event loop call
    them.

    Attributes:
        job: The job.
    """

    __slots__ = ("__weakref__", "job")

    def __init__(self, job: WorkerJob) -> None:
        self.job: WorkerJob = job

    def __repr__(self) -> str:
        return f"<DeferredJob of {self.job!r}>"

    def complete(self, data: Any = None, poll_timeout: float | None = None) -> Any:
        """Complete the job (WORK_COMPLETE). See `GearmanWorker.send_job_complete`.

        Returns:
            None. (awaited) An awaitable, in the event loop's thread.
        """
        return self.job._gm_worker.send_job_complete(self.job, data, poll_timeout)

    def fail(self, poll_timeout: float | None = None) -> Any:
        """Fail the job (WORK_FAIL). See `GearmanWorker.send_job_failure`.

        Returns:
            None. (awaited) An awaitable, in the event loop's thread.
        """
        return self.job._gm_worker.send_job_failure(self.job, poll_timeout)

    def send_status(
        self,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> Any:
        """Report progress (WORK_STATUS). See `GearmanWorker.send_job_status`.

        Returns:
            None. (awaited) An awaitable, in the event loop's thread.
        """
        return self.job.send_status(numerator, denominator, poll_timeout)
