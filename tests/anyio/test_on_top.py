"""Signal handlers that call a worker's methods while its thread runs the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest

import gearman_sync
from gearman_anyio import GearmanWorker
from tests.support import PATIENCE
from tests.support.injecting import every_place

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

pytestmark = pytest.mark.anyio


class Once(GearmanWorker):
    """A worker that stops after one job."""

    async def after_job(self) -> bool:
        return False


async def reply(worker: Any, job: WorkerJob) -> Any:
    return job.data


@pytest.mark.slow
async def test_worker_called_by_a_signal_handler_at_every_place() -> None:
    """The handler runs at each place where CPython checks for signals inside the engine."""
    with gearman_sync.JobServer() as server, gearman_sync.GearmanClient([server.address]) as client:
        worker = Once([server.address])
        worker.register_task("echo", reply)
        worker.register_task("0", reply)
        driver = worker._gm_driver
        feed = driver._feed
        count = 0

        def tell() -> None:
            nonlocal count
            count += 1
            worker.register_task(f"{count % 2}", reply)
            worker.unregister_task(f"{1 - count % 2}")
            worker.set_client_id(f"{count}")

        for at in every_place(tell, step=5):

            def looked_at(*args: Any, at: Any = at) -> Any:
                if at.where is not None:
                    return feed(*args)
                with at:
                    return feed(*args)

            driver._feed = looked_at
            (request,) = client.submit_multiple_jobs(
                [{"task": "echo", "data": b"job"}], wait_until_complete=False
            )
            await worker.work()
            await anyio.to_thread.run_sync(client.wait_until_jobs_completed, [request], PATIENCE)
            assert request.result == b"job", at.where
            assert not driver._busy
            assert not driver._posted
            assert set(driver.engine._abilities) == {b"echo", b"%d" % (count % 2)}, at.where
            assert driver.engine._client_id == (b"%d" % count if count else None), at.where
    assert count > 50


async def test_stop_inside_the_engine_is_posted() -> None:
    with gearman_sync.JobServer() as server:
        worker = GearmanWorker([server.address])
        engine = worker._gm_driver.engine
        real = engine.connected

        def connected(link: Any, now: float) -> None:
            worker.stop()
            assert engine._subscription is not None
            assert not engine._subscription.done
            real(link, now)

        engine.connected = connected
        await worker.work()
