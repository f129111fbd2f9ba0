"""How `work` begins and ends: stop, shutdown, servers that are lost, and once more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable
from tests.support import PATIENCE, free_port

from .kit import Kit, Server, echo, make_kit, reverse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import WorkerJob
    from tests.support import Gearmand

    Launch = Callable[[], Awaitable[Server]]


async def test_stop_of_an_idle_worker_and_work_again(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    (connection,) = worker.connection_list
    for _ in range(3):
        call = await kit.work(worker)
        assert (await client.submit_job(task, b"ab")).result == b"ba"
        assert connection.connected
        worker.stop()
        assert await call.result() is None
        assert not connection.connected
        await server.wait_for_counts(task, 0, 0, 0)


async def test_stop_lets_jobs_end(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(4)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: gate}, max_jobs=2)
    call = await kit.work(worker)
    await kit.eventually(lambda: len(gate.order) == 2)
    worker.stop(timeout=20)
    worker.stop()
    # It finishes what it has, and begins nothing.
    assert not call.done
    assert worker.has_job_lock()
    gate.open.set()
    await call.result()
    await client.wait_until_jobs_completed(requests[:2])
    assert [request.result for request in requests] == [b"0", b"1", None, None]
    await server.wait_for_counts(task, 2, 0, 0)
    assert sorted(gate.order) == [b"0", b"1"]


async def test_stop_from_the_callback(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.stop()
        return b"last"

    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(2)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: function})
    await (await kit.work(worker)).result()
    await client.wait_until_jobs_completed(requests[:1])
    assert [request.result for request in requests] == [b"last", None]
    await server.wait_for_counts(task, 1, 0, 0)


async def test_stop_that_does_not_wait_for_jobs(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"ab", wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: gate}, max_jobs=2)
    call = await kit.work(worker)
    await kit.wait_for(gate.begun)
    worker.stop(timeout=0.02)
    assert await call.result() is None
    # The server gives its job to another.
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert (request.state, request.result) == ("COMPLETE", b"ba")


async def test_stop_before_work(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"ab", wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    worker.stop()
    assert await worker.work() is None
    assert await server.counts(task) == (1, 0, 0)
    # It was for that one only.
    await kit.work(worker)
    await client.wait_until_jobs_completed([request])
    assert request.result == b"ba"


async def test_work_while_it_works(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    call = await kit.work(worker)
    await server.wait_for_counts(task, 0, 0, 1)
    with pytest.raises(InvalidWorkerState, match="works already"):
        await worker.work()
    assert not call.done
    assert (await client.submit_job(task, b"ab")).result == b"ba"


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
    # It is of no use any more, and of no harm.
    assert worker.register_task(task, reverse) == task
    assert worker.unregister_task(task) == task
    assert worker.set_client_id("me") == "me"
    assert [connection.connected for connection in worker.connection_list] == [False]


async def test_shutdown_gives_the_job_to_another(kit: Kit, server: Server, task: str) -> None:
    ended = threading.Event()
    outcome: list[Any] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        gate(worker, job)
        outcome.append((job.is_lost, job.ended))
        ended.set()
        return b"lost"

    gate = kit.gate()
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"ab", wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: function})
    await kit.work(worker)
    await kit.wait_for(gate.begun)
    await worker.shutdown()
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert request.result == b"ba"
    gate.open.set()
    await kit.wait_for(ended)
    assert outcome == [(True, False)]


@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_shutdown_while_a_callback_sends(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    """It is told, and its thread ends, however much of the program is left."""
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


def test_a_callback_that_sends_while_everything_ends(
    adapter: str, gearmand: Gearmand, task: str
) -> None:
    """Python waits for its thread: were it to wait for an event loop, the program would not end."""
    for number in range(5):
        begun, ended = threading.Event(), threading.Event()

        def function(
            worker: Any,
            job: WorkerJob,
            begun: threading.Event = begun,
            ended: threading.Event = ended,
        ) -> None:
            # It does not listen.
            refusals = 0
            while refusals < 300:
                try:
                    worker.send_job_status(job, 1, 2)
                    begun.set()
                except Exception:  # noqa: BLE001 - whatever it is told
                    refusals += 1
            ended.set()

        name = f"{task}-{number}"

        async def scenario(
            kit: Kit,
            name: str = name,
            function: Any = function,
            begun: threading.Event = begun,
        ) -> None:
            client = await kit.client(gearmand.address)
            await kit.start_worker(gearmand.address, tasks={name: function})
            await client.submit_job(name, b"", background=True)
            await kit.wait_for(begun)

        kit = make_kit(adapter)
        kit.run(scenario, {"kit": kit})
        assert ended.wait(PATIENCE / 4), "the thread waits for what is over"


# Servers that are lost.


async def test_no_server_at_the_beginning(kit: Kit, task: str) -> None:
    port = free_port()
    worker = await kit.make_worker(("127.0.0.1", port), tasks={task: reverse})
    # Once more: it may be called again.
    for _ in range(2):
        with pytest.raises(ServerUnavailable) as caught:
            await worker.work()
        message = str(caught.value)
        assert message.startswith(f"no server could be reached: 127.0.0.1:{port} (")
        assert "refused" in message
        assert list(caught.value.job_requests) == []


async def test_no_servers_at_all(kit: Kit) -> None:
    worker = await kit.make_worker()
    with pytest.raises(ServerUnavailable, match="there are no servers in the host list"):
        await worker.work()


async def test_server_that_comes_up_later(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    await server.kill()
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    with pytest.raises(ServerUnavailable):
        await worker.work()
    await server.start()
    call = await kit.work(worker)
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ba"
    worker.stop()
    await call.result()


async def test_one_server_is_enough_at_the_beginning(kit: Kit, server: Server, task: str) -> None:
    hosts = [("127.0.0.1", free_port()), server.address]
    await kit.start_worker(*hosts, tasks={task: reverse})
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ba"


async def test_outage(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    worker = await kit.make_worker(server.address, tasks={task: echo}, max_outage=0.05)
    call = await kit.work(worker)
    await server.wait_for_counts(task, 0, 0, 1)
    await server.kill()
    with pytest.raises(ServerUnavailable, match=f"127.0.0.1:{server.address[1]} "):
        await call.result()


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


async def test_job_whose_server_is_lost(kit: Kit, launch: Launch, task: str) -> None:
    ended = threading.Event()
    outcome: list[Any] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        gate(worker, job)
        try:
            worker.send_job_data(job, b"x")
        except ConnectionError as error:
            outcome.append((type(error), job.is_lost))
        ended.set()
        return b"lost"

    server = await launch()
    gate = kit.gate()
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"ab", background=True)
    # With room for another job it hears of the loss while the callback runs.
    worker = await kit.make_worker(server.address, tasks={task: function}, max_jobs=2)
    call = await kit.work(worker)
    await kit.wait_for(gate.begun)
    await server.kill()
    await kit.eventually(lambda: not worker.connection_list[0].connected)
    gate.open.set()
    await kit.wait_for(ended)
    assert outcome == [(ConnectionError, True)]
    assert request.state == "CREATED"
    assert not call.done
    await server.start()
    assert (await client.submit_job(task, b"cd")).result == b"lost"
