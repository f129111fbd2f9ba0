"""Jobs for tests that call an async or plain callback directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from gearman_anyio._callbacks import CallbackExit, call_back
from gearman_anyio.worker import GearmanWorker
from gearman_proto.surface.callbacks import is_async
from gearman_proto.surface.worker import Ability
from gearman_proto.testing import jobs

if TYPE_CHECKING:
    from gearman_proto.surface.callbacks import Callback
    from gearman_proto.wire.packets import PacketEvent


class JobDouble(jobs.JobDouble):
    """A job for tests that call a callback directly, without a connection.

    It records the updates that the callback sends::

        job = JobDouble("resize", "cat.png")
        assert await resize(job.worker, job) == b"cat-small.png"
        assert job.updates == [JobProgress(1, 2), JobProgress(2, 2)]
    """

    __slots__ = ()
    _worker_class = GearmanWorker

    @staticmethod
    async def _run(_: object, job: JobDouble, event: PacketEvent, **__: object) -> None:
        """Stand in for `Driver.run`."""
        await anyio.lowlevel.checkpoint()
        job.take_down(event)

    async def call(self, callback: Callback) -> Any:
        """Call `callback` as a worker does, and complete the job.

        An async callback is awaited. A plain one runs in a thread, as in the worker, where the
        worker's methods block.

        Returns:
            The result as the client gets it, encoded and decoded. None if the callback has ended
            the job as failed.

        Raises:
            Exception: The callback, or the encoder of its result, has raised it. In a worker, it
                would have failed the job.
            TypeError: The callback can't be called.
            InvalidWorkerState: The job has ended, so it can't be done again.
        """
        ability = Ability(self._check_call(callback), None, is_async(callback))
        try:
            result = await call_back(ability, self.worker, self, anyio.CapacityLimiter(1))
        except CallbackExit as escaped:
            raise escaped.error from None
        return self._returned(result)
