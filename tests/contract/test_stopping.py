"""The start and end of `work`: stop, shutdown, lost servers, and repeated calls."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable
from tests.support import PATIENCE

from .kit import Hooks, Kit, Launch, Server, make_kit, reverse

if TYPE_CHECKING:
    from gearman_proto import WorkerJob
    from tests.support import Gearmand


async def test_work_again_after_stop_of_an_idle_worker(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    # `stop` must not wait for the next poll of the queue or for a poll timeout.
    worker = await kit.make_worker(server.address, tasks={task: reverse}, poll_interval=1000)
    (connection,) = worker.connection_list
    for _ in range(3):
        call = await kit.work(worker, poll_timeout=None)
        assert (await client.submit_job(task, b"ab")).result == b"ba"
        assert connection.connected
        worker.stop()
        assert await call.result() is None
        assert not connection.connected
        await server.wait_for_counts(task, 0, 0, 0)


@pytest.mark.both_servers
async def test_stop_lets_running_jobs_finish(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(4)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: gate}, max_jobs=2)
    call = await kit.work(worker)
    await kit.eventually(lambda: len(gate.order) == 2)
    worker.stop(timeout=10 * PATIENCE)
    # The worker finishes its running jobs and starts no new ones.
    assert not call.done
    assert worker.has_job_lock()
    gate.open.set()
    await call.result()
    await client.wait_until_jobs_completed(requests[:2])
    assert [request.result for request in requests] == [b"0", b"1", None, None]
    await server.wait_for_counts(task, 2, 0, 0)


@pytest.mark.parametrize("place", ["callback", "after_job"])
async def test_stop_from_a_callback_or_hook(
    kit: Kit, server: Server, task: str, place: str
) -> None:
    class Hooked(Hooks):
        def after_job(self) -> Any:
            if place == "after_job":
                self.stop()
            return True

    def function(worker: Any, job: WorkerJob) -> Any:
        if place == "callback":
            worker.stop()
        return b"last"

    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(2)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.make_worker(server.address, kind=Hooked, tasks={task: function})
    await (await kit.work(worker)).result()
    await client.wait_until_jobs_completed(requests[:1])
    assert [request.result for request in requests] == [b"last", None]
    await server.wait_for_counts(task, 1, 0, 0)


@pytest.mark.both_servers
async def test_stop_with_a_timeout_returns_the_jobs(kit: Kit, server: Server, task: str) -> None:
    client, request, _, worker, working = await kit.running_job(server.address, task, max_jobs=2)
    worker.stop(timeout=0.02)
    assert await working.result() is None
    assert not worker.has_job_lock()
    # The server assigns the job to another worker.
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert (request.state, request.result) == ("COMPLETE", b"atad")
    # The worker can work again, with all slots, while the abandoned callback still blocks.
    other = kit.gate()
    worker.unregister_task(task)
    worker.register_task(f"{task}-other", other)
    await kit.work(worker)
    await client.submit_multiple_jobs([{"task": f"{task}-other", "data": b""}] * 2, background=True)
    await kit.eventually(lambda: len(other.order) == 2)


async def test_shutdown(kit: Kit, server: Server, task: str) -> None:
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    call = await kit.work(worker)
    await server.wait_for_counts(task, 0, 0, 1)
    await worker.shutdown()
    assert await call.result() is None
    await server.wait_for_counts(task, 0, 0, 0)
    await worker.shutdown()
    worker.stop()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        await worker.work()
    # These methods still work after shutdown, without an effect.
    assert worker.register_task(task, reverse) == task
    assert worker.unregister_task(task) == task
    assert worker.set_client_id("me") == "me"
    assert [connection.connected for connection in worker.connection_list] == [False]


@pytest.mark.both_servers
async def test_shutdown_returns_the_job_to_the_server(kit: Kit, server: Server, task: str) -> None:
    ended = threading.Event()
    outcome: list[Any] = []

    def after_shutdown(worker: Any, job: WorkerJob) -> Any:
        outcome.append((job.is_lost, job.ended))
        ended.set()
        return b"lost"

    client, request, gate, worker, _ = await kit.running_job(server.address, task, after_shutdown)
    await worker.shutdown()
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert request.result == b"atad"
    gate.open.set()
    await kit.wait_for(ended)
    assert outcome == [(True, False)]


@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_shutdown_while_a_callback_sends(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    """Raise ConnectionError in the callback, so that its thread ends during shutdown."""
    begun, ended = threading.Event(), threading.Event()
    outcome: list[Any] = []

    def function(worker: Any, job: WorkerJob) -> None:
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                worker.send_job_status(job, 1, 2)
                begun.set()
        except Exception as error:
            outcome.append(type(error))
            raise
        finally:
            ended.set()

    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: function}, max_jobs=max_jobs)
    call = await kit.work(worker)
    await client.submit_job(task, b"", background=True)
    await kit.wait_for(begun)
    await worker.shutdown()
    await call.result()
    await kit.wait_for(ended)
    assert outcome == [ConnectionError]


def test_callback_that_keeps_sending_does_not_block_exit(
    adapter: str, gearmand: Gearmand, task: str
) -> None:
    """Refuse sends after the event loop has ended, so that Python can join the thread."""
    begun, ended = threading.Event(), threading.Event()

    def function(worker: Any, job: WorkerJob) -> None:
        # The callback ignores the exceptions.
        refusals = 0
        while refusals < 300:
            try:
                worker.send_job_status(job, 1, 2)
                begun.set()
            except Exception:  # noqa: BLE001 - any refusal counts
                refusals += 1
        ended.set()

    async def scenario(kit: Kit) -> None:
        client = await kit.client(gearmand.address)
        await kit.start_worker(gearmand.address, tasks={task: function})
        await client.submit_job(task, b"", background=True)
        await kit.wait_for(begun)

    for _ in range(5):
        begun.clear()
        ended.clear()
        kit = make_kit(adapter)
        kit.run(scenario, {"kit": kit})
        assert ended.wait(PATIENCE / 4), "the thread waits for what is over"


# Lost servers.


async def test_work_after_the_server_has_started(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    await server.kill()
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    with pytest.raises(ServerUnavailable, match=rf"127.0.0.1:{server.address[1]} \(.*refused"):
        await worker.work()
    await server.start()
    await kit.work(worker)
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ba"


@pytest.mark.both_servers
async def test_worker_with_unlimited_outage_starts_before_its_server(
    kit: Kit, launch: Launch, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = await launch()
    await server.kill()
    worker = await kit.make_worker(server.address, tasks={task: reverse}, max_outage=None)
    call = await kit.work(worker)
    await kit.eventually(lambda: "waiting for one" in caplog.text)
    await server.start()
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ba"
    assert not call.done


@pytest.mark.both_servers
async def test_server_that_comes_back(
    kit: Kit, launch: Launch, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = await launch()
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    worker.set_client_id(task)
    call = await kit.work(worker)
    await server.wait_for_counts(task, 0, 0, 1)
    await server.kill()
    await kit.eventually(lambda: not worker.connection_list[0].connected)
    await server.start()
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ba"
    assert task in await server.client_ids()
    assert not call.done
    warnings = {record.levelname for record in caplog.records if record.name == "gearman"}
    assert warnings == {"WARNING"}


@pytest.mark.both_servers
async def test_job_whose_server_is_lost(
    kit: Kit, launch: Launch, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    outcome: list[Any] = []

    def after_the_loss(worker: Any, job: WorkerJob) -> Any:
        for _ in range(2):
            try:
                worker.send_job_data(job, b"x")
            except ConnectionError as error:
                outcome.append(("was lost" in str(error), job.is_lost))
        ended.set()
        return b"lost"

    server = await launch()
    # A worker with a free slot detects the loss while the callback runs.
    client, _, gate, worker, working = await kit.running_job(
        server.address, task, after_the_loss, max_jobs=2
    )
    await server.kill()
    await kit.eventually(lambda: not worker.connection_list[0].connected)
    gate.open.set()
    await kit.wait_for(ended)
    assert outcome == [(True, True)] * 2
    await kit.eventually(lambda: "and 1 jobs with it" in caplog.text)
    assert not working.done
    await server.start()
    assert (await client.submit_job(task, b"cd")).result == b"lost"


@pytest.mark.both_servers
async def test_one_of_two_servers_is_lost(kit: Kit, launch: Launch, task: str) -> None:
    """Keep the other server's job running, and run its next one."""
    gate = kit.gate()
    servers = [await launch(), await launch()]
    clients = [await kit.client(server.address) for server in servers]
    worker = await kit.start_worker(
        *[server.address for server in servers], tasks={task: gate}, max_jobs=2
    )
    held = [await client.submit_job(task, b"held", wait_until_complete=False) for client in clients]
    await kit.eventually(lambda: len(gate.order) == 2)
    await servers[0].kill()
    await clients[0].wait_until_jobs_completed(held[:1])
    assert held[0].state == "UNKNOWN"
    gate.open.set()
    await clients[1].wait_until_jobs_completed(held[1:])
    assert held[1].result == b"held"
    assert (await clients[1].submit_job(task, b"next")).result == b"next"
    await servers[0].start()
    assert (await clients[0].submit_job(task, b"back")).result == b"back"
    assert [server.connected for server in worker.connection_list] == [True, True]
