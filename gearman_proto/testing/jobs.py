"""A job for a callback that a test calls directly. It needs no connection and records its updates.

Tests use `gearman_sync.testing.JobDouble` and `gearman_anyio.testing.JobDouble`. The callback gets
a worker of the adapter's class, or a copy of the application's own. Only the `run` of its driver is
replaced, so packets about the job are passed to the job itself instead of an engine.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.address import ServerAddress
from gearman_proto.checks import check_callable, check_type
from gearman_proto.constants import JOB_COMPLETE, JOB_FAILED, MAX_UNIQUE_SIZE
from gearman_proto.errors import ConnectionError, InvalidWorkerState
from gearman_proto.jobs import tracking
from gearman_proto.jobs.encoder import encode_data
from gearman_proto.jobs.job import WorkerJob
from gearman_proto.jobs.results import result_event
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning
from gearman_proto.names import check_name, check_task, to_text
from gearman_proto.records import record
from gearman_proto.surface.callbacks import of_worker_and_job
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    Role,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
    number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.jobs.updates import JobUpdate
    from gearman_proto.wire.packets import PacketEvent

_HANDLE: Final = b"H:test:1"


@record(eq=False)
class _Link:
    """A stand-in for the connection of the job."""

    address: ServerAddress
    dropped: deque[Any]
    alive: bool = True


class JobDouble(WorkerJob):
    """A job as a callback gets it, which records the packets sent about it."""

    __slots__ = ("updates", "worker")

    #: The class of a worker.
    _worker_class: type
    #: The replacement for `run` of the driver. It calls `begin` with a `Desk` instead of an engine.
    _run: Any

    def __init__(
        self, task: str | bytes, data: Any, *, unique: str | bytes = "u", worker: Any = None
    ) -> None:
        """Make a job that was never submitted.

        Args:
            task: The name of the function.
            data: The input of the job, in the type that the worker's `data_encoder` encodes.
            unique: The submitter's name for the job.
            worker: A worker whose class, attributes and `data_encoder` the callback needs; None for
                a GearmanWorker. It is copied, and must not have connected.

        Raises:
            TypeError, ValueError: Servers would reject such a job; or `worker` is not a worker.
            Exception: The encoder's error.

        Attributes:
            worker: The worker that the callback gets as its first argument; (awaited) if the
                callback is async. Packets that it sends about the job are recorded in `updates`.
                Its other methods are those of a worker that is not connected.
            updates: The updates sent so far, in order, as `GearmanClient.updates` returns them to a
                client: JobData, JobWarning, JobProgress; and finally JobEnded, when the job has
                ended.
        """
        wire_task = check_task(to_text(task, "task"))
        wire_unique = check_name("unique", unique, MAX_UNIQUE_SIZE)
        kind = self._worker_class
        if worker is not None:
            check_type("worker", worker, kind, f"a {kind.__module__}.{kind.__name__}, or None")
        self.worker: Any = kind() if worker is None else copy.copy(worker)
        payload = encode_data(self.worker.data_encoder, data, None, wire_task)
        super().__init__(
            _Link(ServerAddress("localhost"), deque()), _HANDLE, wire_task, wire_unique, payload
        )
        tracking.attach(self, self.worker)
        self.updates: list[JobUpdate] = []
        # Nothing else is replaced. (Hooks of gearman_anyio send with `run_at_once`.)
        driver: Any = self.worker._gm_driver  # noqa: SLF001
        driver.run = driver.run_at_once = self._run

    def lose(self) -> None:
        """Lose the connection to the server. Sending then raises ConnectionError."""
        self._gm_link.alive = False

    def take_down(self, event: PacketEvent) -> None:
        """Record that the WORK_* packet `event` was sent.

        Raises:
            InvalidWorkerState: The job has ended, so nothing can be sent about it.
            ConnectionError: Its connection was lost.
            LocalProtocolError: Servers reject such a packet.
            Exception: The error of the encoder's `decode`, which the client would get.
        """
        if self.ended:
            raise InvalidWorkerState(f"{self!r} has ended")
        if not self._gm_link.alive:
            raise ConnectionError(f"the connection to {self._gm_link.address} was lost")
        Connection(Role.WORKER).send(event)
        self.updates.append(self._read(event))

    def _check_call(self, callback: Any) -> Callable[[Any, Any], Any]:
        """Check that `callback` is callable and that the job has not ended.

        Returns:
            The callback as a function of the worker and the job.

        Raises:
            TypeError: `callback` is not callable.
            InvalidWorkerState: The job has ended.
        """
        check_callable("callback", callback, "of a worker and a job")
        if self.ended:
            raise InvalidWorkerState(f"{self!r} has ended: make another one for another call")
        return of_worker_and_job(callback) or callback

    def _returned(self, result: Any) -> Any:
        """Complete the job with the result of its callback, unless it has ended or is deferred.

        Returns:
            The result as the client gets it, encoded and decoded. None if the job has failed or is
            open.

        Raises:
            Exception: The encoder has rejected the result. A real job would have failed.
        """
        if not self.ended and tracking.is_deferred(self):
            return None
        if not self.ended:
            self.take_down(result_event(self.wire_handle, self._gm_encoder, result, self.wire_task))
        end = self.updates[-1]
        assert isinstance(end, JobEnded)
        return end.result

    def _read(self, event: Any) -> JobUpdate:
        self.ended: bool = not isinstance(event, (WorkData, WorkWarning, WorkStatus))
        if isinstance(event, WorkStatus):
            return JobProgress(number(event.numerator), number(event.denominator))
        if isinstance(event, WorkFail):
            return JobEnded(JOB_FAILED)
        data = self._gm_encoder.decode(event.data)
        if isinstance(event, WorkData):
            return JobData(data)
        if isinstance(event, WorkWarning):
            return JobWarning(data)
        if isinstance(event, WorkComplete):
            return JobEnded(JOB_COMPLETE, data)
        return JobEnded(JOB_FAILED, None, data)
