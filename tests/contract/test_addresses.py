"""Host names that resolve to IPv6 addresses, several addresses or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ServerUnavailable
from tests.support import black_hole, has_address, resolve_to

from .kit import Kit, Server, reverse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand

needs_ipv6 = pytest.mark.skipif(not has_address("::1"), reason="this machine has no IPv6")
needs_loopbacks = pytest.mark.skipif(
    not has_address("127.0.0.2"), reason="there is only one loopback"
)


@needs_ipv6
@pytest.mark.parametrize("kind", ["gearmand", "JobServer"])
async def test_ipv6(
    kit: Kit, start_gearmand: Callable[..., Gearmand], task: str, kind: str
) -> None:
    server: Any
    if kind == "gearmand":
        server = await kit.blocking(lambda: start_gearmand(host="::1"))
        port = server.port
    else:
        server = await kit.start_job_server(host="::1")
        port = server.address.port
    await kit.start_worker(("::1", port), tasks={task: reverse})
    for host in (f"[::1]:{port}", ("::1", port), ("[::1]", port), {"host": "::1", "port": port}):
        client = await kit.client(host)
        assert repr(client) == f"<GearmanClient [[::1]:{port}]>"
        request = await client.submit_job(task, "hello")
        assert request.result == b"olleh"
        assert str(request.connection) == f"[::1]:{port}"
    # gearmand prints only the beginning of an IPv6 address.
    ips = {record.ip for record in await (await kit.admin_client(("::1", port))).get_workers()}
    assert all(ip.startswith("::") for ip in ips)
    assert (ips == {"::1"}) == (kind == "JobServer")


@needs_loopbacks
async def test_dead_address_next_to_a_live_one_delays_a_call_briefly(
    kit: Kit, server: Server, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = server.address
    await kit.start_worker(server.address, tasks={task: reverse})
    with black_hole("127.0.0.2", port) as dead:
        resolve_to(monkeypatch, "gearman.test", dead[0], host)
        client = await kit.client(("gearman.test", port))
        request = await client.submit_job(task, b"ab", poll_timeout=4.0)
    assert (request.result, request.timed_out) == (b"ba", False)


async def test_unknown_host_name_raises(
    kit: Kit, server: Server, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "gearman.test")
    alone = await kit.client("gearman.test")
    with pytest.raises(ServerUnavailable, match=r"gearman\.test:4730 .*no such name"):
        await alone.submit_job(task, b"")
    client = await kit.client("gearman.test", server.address)
    jobs = [{"task": task, "data": b""}] * 4
    requests = await client.submit_multiple_jobs(jobs, background=True)
    assert [request.state for request in requests] == ["CREATED"] * 4


async def test_slow_name_server_does_not_delay_other_calls(
    kit: Kit, server: Server, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = resolve_to(monkeypatch, "gearman.test", "127.0.0.1")
    name.known.clear()
    await kit.start_worker(server.address, tasks={task: reverse})
    client = await kit.client(server.address, ("gearman.test", server.address[1]))
    good, slow = client.connection_list
    await client.establish_connection(good)
    connecting = await kit.spawn(client.establish_connection, slow)
    await kit.wait_for(name.asked)
    jobs = [{"task": task, "data": b"xy"}] * 2
    requests = await client.submit_multiple_jobs(jobs, poll_timeout=0)
    ended = client.as_completed(requests)
    assert (await ended.__anext__()).result == b"yx"
    assert not connecting.done
    name.known.set()
    assert (await connecting.result()).connected
    assert (await ended.__anext__()).result == b"yx"
