"""Tests of the choice of servers: rotation, cool-down, and rendezvous hashing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gearman_proto.address import ServerAddress, parse_host_list
from gearman_proto.engines.servers import FIRST_COOL_DOWN, LONGEST_COOL_DOWN, Server, ServerPool
from gearman_proto.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    InvalidClientState,
    LocalProtocolError,
)

from .harness import World


def make_pool(count: int, routing: str = "random", seed: int = 1) -> ServerPool:
    addresses = parse_host_list([f"s{number}" for number in range(count)])
    return ServerPool(addresses, random.Random(seed), routing)


def chosen(pool: ServerPool, times: int, now: float = 0.0) -> list[str]:
    servers = [pool.choose(now, (), b"") for _ in range(times)]
    return [server.address.host for server in servers if server is not None]


def test_rotation() -> None:
    hosts = chosen(make_pool(4), 12)
    assert len(set(hosts[:4])) == 4
    assert hosts == hosts[:4] * 3


def test_rotation_starts_at_a_random_server() -> None:
    assert {chosen(make_pool(4, seed=seed), 1)[0] for seed in range(40)} == {
        "s0",
        "s1",
        "s2",
        "s3",
    }


def test_no_server() -> None:
    assert make_pool(0).choose(0.0, (), b"") is None
    assert make_pool(0, "unique").choose(0.0, (), b"") is None


def test_only_server_is_chosen_while_it_cools() -> None:
    pool = make_pool(1)
    (server,) = pool.servers
    server.failed(OSError(), 0.0, random.Random(1))
    assert pool.choose(0.0, (), b"") is server
    assert pool.choose(0.0, (server,), b"") is None


@pytest.mark.parametrize("routing", ["random", "unique"])
def test_tried_servers_are_not_chosen(routing: str) -> None:
    pool = make_pool(3, routing)
    tried: list[Server] = []
    for _ in range(3):
        server = pool.choose(0.0, tried, b"key")
        assert server is not None
        assert server not in tried
        tried.append(server)
    assert pool.choose(0.0, tried, b"key") is None


@pytest.mark.parametrize("routing", ["random", "unique"])
def test_cooling_server_is_not_chosen_until_it_answers(routing: str) -> None:
    pool = make_pool(2, routing)
    first = pool.choose(10.0, (), b"key")
    assert first is not None
    first.failed(OSError(), 10.0, random.Random(1))
    (other,) = (server for server in pool.servers if server is not first)
    assert [pool.choose(10.0, (), b"key") for _ in range(4)] == [other] * 4
    assert pool.take_suspects() == []
    # After its cool-down, the server must answer a probe before the pool chooses it again.
    assert [pool.choose(first.cool_until, (), b"key") for _ in range(2)] == [other] * 2
    pool.choose(first.cool_until, (), b"key")
    assert pool.take_suspects() in ([], [first])
    first.answered()
    assert first in [pool.choose(first.cool_until, (), b"key") for _ in range(2)]


def test_first_server_to_finish_cooling_is_chosen() -> None:
    pool = make_pool(3)
    for server, until in zip(pool.servers, (7.0, 5.0, 6.0)):
        server.cool_until = until
    for _ in range(6):
        assert pool.choose(0.0, (), b"") is pool.servers[1]
    assert pool.choose(0.0, (pool.servers[1],), b"") is pool.servers[2]


def test_backoff() -> None:
    rng = random.Random(1)
    server = Server(ServerAddress("h"))
    delay = FIRST_COOL_DOWN
    for failures in range(1, 40):
        error = OSError(failures)
        server.failed(error, 100.0, rng)
        assert server.failures == failures
        assert server.error is error
        assert 100 + delay / 2 <= server.cool_until <= 100 + delay
        delay = min(2 * delay, LONGEST_COOL_DOWN)
    assert delay == LONGEST_COOL_DOWN
    server.answered()
    assert (server.failures, server.cool_until, server.error) == (39, 0.0, None)
    server.served()
    assert server.failures == 0


def test_first_failure_in_a_row_delays_no_retry() -> None:
    rng = random.Random(1)
    server = Server(ServerAddress("h"))
    server.failed(OSError(), 100.0, rng)
    assert server.retry_at() == 0.0
    server.failed(OSError(), 100.0, rng)
    assert server.retry_at() == server.cool_until > 100.0
    server.served()
    server.failed(OSError(), 100.0, rng)
    assert server.retry_at() == 0.0


def test_backoff_has_jitter() -> None:
    rng = random.Random(1)
    delays = set()
    for _ in range(20):
        server = Server(ServerAddress("h"))
        server.failed(OSError(), 0.0, rng)
        delays.add(server.cool_until)
    assert len(delays) == 20
    assert max(delays) - min(delays) > FIRST_COOL_DOWN / 4


def test_unknown_routing() -> None:
    with pytest.raises(ValueError, match="routing"):
        make_pool(1, "fastest")


def test_rendezvous() -> None:
    keys = [b"key %d" % number for number in range(300)]
    pool, again = make_pool(5, "unique", seed=1), make_pool(5, "unique", seed=2)

    def places(pool: ServerPool) -> dict[bytes, str]:
        servers = {key: pool.choose(0.0, (), key) for key in keys}
        return {key: server.address.host for key, server in servers.items() if server}

    before = places(pool)
    assert places(pool) == before
    assert places(again) == before
    counts = [list(before.values()).count(f"s{number}") for number in range(5)]
    assert min(counts) > 30

    lost = pool.servers[2]
    lost.failed(OSError(), 0.0, random.Random(1))
    after = places(pool)
    moved = {key for key in keys if before[key] != after[key]}
    assert moved == {key for key in keys if before[key] == "s2"}
    assert len({after[key] for key in moved}) == 4

    lost.answered()
    assert places(pool) == before


def test_find() -> None:
    addresses = parse_host_list([{"host": "h", "ca_certs": "c"}, ("h", 1)])
    pool = ServerPool(addresses, random.Random(1))
    assert pool.find(ServerAddress("h")) is pool.servers[0]
    assert pool.find(ServerAddress("h", 1)) is pool.servers[1]
    assert pool.find("h:1") is pool.find(("h", 1)) is pool.servers[1]
    # For a server of another pool, the result is this pool's server at the same address.
    other = ServerPool(parse_host_list(["h:1", "h:2"]), random.Random(1))
    assert pool.find(other.servers[0]) is pool.find(pool.servers[1]) is pool.servers[1]
    for unknown in (ServerAddress("h", 2), other.servers[1], "h:2"):
        with pytest.raises(InvalidClientState, match=r"^h:2 is not one of this client's servers$"):
            pool.find(unknown)
    odd: list[Any] = [None, 5, [], object(), ("h",), b"\xff" * 300, "h:x", {"h": 1}]
    for unknown in odd:
        with pytest.raises((ArgumentTypeError, ArgumentValueError)):
            pool.find(unknown)


def test_server_has_the_attributes_of_python_gearman() -> None:
    world = World(["h:7"])
    (server,) = world.engine.pool.servers
    assert (server.gearman_host, server.gearman_port) == ("h", 7)
    assert not server.connected
    assert repr(server) == "<Server h:7, not connected>"
    world.submit(world.request())
    assert not server.connected
    peer = world.serve()
    assert server.connected
    assert repr(server) == "<Server h:7>"
    peer.lose()
    assert not server.connected


def test_pool_finds_its_own_servers_only() -> None:
    (own,), (foreign,) = World(1).engine.pool.servers, World(1).engine.pool.servers
    pool = World(1).engine.pool
    for server in (pool.servers[0], own, foreign, "s0:4730"):
        assert pool.find(server) is pool.servers[0]
    odd: list[Any] = [None, 5, "s1"]
    for server in odd:
        with pytest.raises(LocalProtocolError):
            pool.find(server)
