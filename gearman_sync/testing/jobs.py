"""Jobs for tests that call a callback directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto.surface.callbacks import is_async
from gearman_proto.testing import jobs
from gearman_sync.worker import GearmanWorker

if TYPE_CHECKING:
    from gearman_proto.surface.callbacks import Callback
    from gearman_proto.wire.packets import PacketEvent


class JobDouble(jobs.JobDouble):
    """A job for tests that call a callback directly, without a connection.

    It records the updates that the callback sends::

        job = JobDouble("resize", "cat.png")
        assert resize(job.worker, job) == b"cat-small.png"
        assert job.updates == [JobProgress(1, 2), JobProgress(2, 2)]
    """

    __slots__ = ()
    _worker_class = GearmanWorker

    @staticmethod
    def _run(_: object, job: JobDouble, event: PacketEvent, **__: object) -> None:
        """Replace `Driver.run`."""
        job.take_down(event)

    def call(self, callback: Callback) -> Any:
        """Call `callback` as a worker does, and complete the job.

        Returns:
            The result as the client receives it, encoded and decoded, or None if the callback has
            failed the job.

        Raises:
            Exception: Any exception of the callback or of the encoder. In a worker, it would have
                failed the job.
            TypeError: The callback is async, or can't be called.
            InvalidWorkerState: The job has already ended.
        """
        called = self._check_call(callback)
        if is_async(callback):
            raise TypeError(
                f"{callback!r} is async, and can be called by gearman_anyio.testing.JobDouble"
            )
        return self._returned(called(self.worker, self))
