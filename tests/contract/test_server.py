"""The adapter's own job server."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from .kit import Kit, Server, admin, reverse

if TYPE_CHECKING:
    from typing import Any


async def test_address_of_a_started_server(kit: Kit) -> None:
    server = kit.job_server()
    assert repr(server) == "<JobServer not started>"
    with pytest.raises(RuntimeError, match="not started"):
        server.address  # noqa: B018 - reading it is what raises
    await kit.begin(server)
    host, port = server.address
    assert (host, server.address.host, server.address.port) == ("127.0.0.1", "127.0.0.1", port)
    assert type(server.address) is kit.gearman.HostAndPort
    assert 0 < port < 65536
    assert str(server.address) == f"127.0.0.1:{port}"
    assert repr(server) == f"<JobServer 127.0.0.1:{port}>"
    # Every form of a host list entry works.
    for spec in (server.address, str(server.address), {"host": host, "port": port}):
        client = await kit.client(spec)
        assert (await client.submit_job("task", b"", background=True)).state == "CREATED"


async def test_stop_ends_the_server(kit: Kit, task: str) -> None:
    server = kit.job_server()
    await kit.begin(server)
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"", wait_until_complete=False)
    call = await kit.spawn(client.wait_until_jobs_completed, [request])
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    await server.stop()
    await waiting.result()
    await server.wait()
    await server.stop()
    assert [request.state for request in await call.result()] == ["UNKNOWN"]
    with pytest.raises(kit.gearman.errors.ServerUnavailable, match="refused"):
        await client.submit_job(task, b"")


@pytest.mark.parametrize("command", ["shutdown", "shutdown graceful"])
async def test_admin_shutdown_ends_the_server(kit: Kit, command: str) -> None:
    server = kit.job_server()
    await kit.begin(server)
    waiting = await kit.spawn(server.wait)
    assert (await admin(kit, server.address, command)).startswith("OK")
    await waiting.result()
    await server.wait()
    with pytest.raises(OSError):
        await admin(kit, server.address, "version")


async def test_server_started_twice_raises(kit: Kit) -> None:
    server = kit.job_server()
    await kit.begin(server)
    with pytest.raises(RuntimeError, match="this server was started before"):
        await kit.begin(server)
    # The server is still running.
    assert (await admin(kit, server.address, "version")).startswith("OK gearman-sansio-")
    await server.stop()
    await server.wait()
    with pytest.raises(RuntimeError, match="this server was started before"):
        await kit.begin(server)


async def test_server_on_a_port_in_use_raises(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = kit.job_server(port=port)
        with pytest.raises(OSError, match="in use"):
            await kit.begin(server)
        assert repr(server) == "<JobServer not started>"
    await kit.begin(server)
    assert server.address == ("127.0.0.1", port)


async def test_job_server_with_wrong_arguments_raises(kit: Kit) -> None:
    cases: list[dict[str, Any]] = [
        *({"port": -1}, {"port": 65536}),
        *({"job_retries": -1}, {"max_packet_size": 0}, {"max_unread": 0}, {"max_memory": 0}),
        {"max_queue_size": -1},
    ]
    for options in cases:
        (name,) = options
        with pytest.raises(ValueError, match=name):
            kit.job_server(**options)
    with pytest.raises(TypeError):
        kit.job_server(prot=4730)


async def test_queue_and_packet_limits_refuse_jobs(kit: Kit, task: str) -> None:
    server = kit.job_server(max_queue_size=1, max_packet_size=1000)
    await kit.begin(server)
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b""}] * 2
    requests = await client.submit_multiple_jobs(jobs, background=True)
    assert [request.state for request in requests] == ["CREATED", "FAILED"]
    assert requests[1].error.code == "QUEUE_ERROR"
    with pytest.raises(kit.gearman.errors.ExceededConnectionAttempts):
        await client.submit_job(f"{task}-b", bytes(1001))


@pytest.mark.both_servers
async def test_admin_status_counts_jobs_and_workers(kit: Kit, server: Server, task: str) -> None:
    """Report the numbers that `counts` uses, with both kinds of servers."""
    client = await kit.client(server.address)
    gate = kit.gate()
    jobs = [{"task": task, "data": b"%d" % number} for number in range(3)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert f"{task}\t3\t0\t0\n" in await server.admin("status")
    await kit.start_worker(server.address, tasks={task: gate, f"{task}-b": reverse}, max_jobs=2)
    await kit.eventually(lambda: len(gate.order) == 2)
    assert f"{task}\t3\t2\t1\n" in await server.admin("status")
    gate.open.set()
    await client.wait_until_jobs_completed(requests)
    await server.wait_for_counts(task, 0, 0, 1)
