"""Tests of the choice of servers: rotation, cool-down, and rendezvous hashing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.address import ServerAddress, parse_address, parse_host_list
from gearman_proto.engines.servers import (
    FIRST_COOL_DOWN,
    LONGEST_COOL_DOWN,
    Server,
    ServerPool,
    unreachable,
)
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError, InvalidClientState

from .harness import World

if TYPE_CHECKING:
    from gearman_proto.constants import Routing


def make_pool(count: int, routing: Routing = "random", seed: int = 1) -> ServerPool:
    addresses = parse_host_list([f"s{number}" for number in range(count)])
    return ServerPool(addresses, random.Random(seed), routing)


def chosen(pool: ServerPool, times: int, now: float = 0.0, key: bytes = b"key") -> list[Server]:
    return [server for _ in range(times) if (server := pool.choose(now, (), key)) is not None]


def fail(server: Server, now: float = 0.0) -> None:
    server.failed(OSError(), now, random.Random(1))


def test_rotation_starts_at_a_random_server() -> None:
    servers = chosen(make_pool(4), 12)
    assert len(set(servers[:4])) == 4
    assert servers == servers[:4] * 3
    assert len({chosen(make_pool(4, seed=seed), 1)[0].address for seed in range(40)}) == 4


@pytest.mark.parametrize("routing", ["random", "unique"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_tried_servers_are_not_chosen(routing: Routing, count: int) -> None:
    pool = make_pool(count, routing)
    tried: list[Server] = []
    for _ in range(count):
        server = pool.choose(0.0, tried, b"key")
        assert server is not None
        assert server not in tried
        tried.append(server)
        fail(server)  # A server that cools down is chosen if no other is left.
    assert pool.choose(0.0, tried, b"key") is None


@pytest.mark.parametrize("routing", ["random", "unique"])
def test_cooling_server_is_not_chosen_until_it_answers(routing: Routing) -> None:
    pool = make_pool(2, routing)
    (first,) = chosen(pool, 1, 10.0)
    fail(first, 10.0)
    (other,) = (server for server in pool.servers if server is not first)
    assert chosen(pool, 4, 10.0) == [other] * 4
    assert pool.take_suspects() == []
    # After its cool-down, the server must answer a probe before the pool chooses it again.
    assert chosen(pool, 2, first.cool_until) == [other] * 2
    chosen(pool, 1, first.cool_until)
    assert pool.take_suspects() in ([], [first])
    first.answered()
    assert first in chosen(pool, 2, first.cool_until)


def test_first_server_to_finish_cooling_is_chosen() -> None:
    pool = make_pool(3)
    for server, until in zip(pool.servers, (7.0, 5.0, 6.0)):
        server.cool_until = until
    assert chosen(pool, 6) == [pool.servers[1]] * 6
    assert pool.choose(0.0, (pool.servers[1],), b"") is pool.servers[2]


def test_cool_down_grows_with_jitter_until_the_server_serves() -> None:
    rng = random.Random(1)
    server = Server(ServerAddress("h"))
    delay = FIRST_COOL_DOWN
    jitter = set()
    for failures in range(1, 40):
        error = OSError(failures)
        server.failed(error, 100.0, rng)
        assert (server.failures, server.error) == (failures, error)
        # The first failure in a row delays no retry.
        assert server.retry_at() == (server.cool_until if failures > 1 else 0.0)
        jitter.add((server.cool_until - 100) / delay)
        delay = min(2 * delay, LONGEST_COOL_DOWN)
    assert delay == LONGEST_COOL_DOWN
    assert len(jitter) == 39
    assert 0.5 <= min(jitter) < 0.6 < 0.9 < max(jitter) <= 1.0
    server.answered()
    assert (server.failures, server.cool_until, server.error) == (39, 0.0, None)
    server.served()
    assert server.failures == 0


def test_unknown_routing_is_refused() -> None:
    unknown: Any = "fastest"
    with pytest.raises(ValueError, match="routing"):
        make_pool(1, unknown)


def test_failed_server_loses_only_its_own_uniques() -> None:
    keys = [b"key %d" % number for number in range(300)]
    pool, again = make_pool(5, "unique", seed=1), make_pool(5, "unique", seed=2)
    again.servers.reverse()  # The order of the host list does not matter.

    def places(pool: ServerPool) -> dict[bytes, str]:
        return {key: chosen(pool, 1, key=key)[0].address.host for key in keys}

    before = places(pool)
    assert places(pool) == places(again) == before
    counts = [list(before.values()).count(f"s{number}") for number in range(5)]
    assert min(counts) > 30

    fail(pool.servers[2])
    after = places(pool)
    moved = {key for key in keys if before[key] != after[key]}
    assert moved == {key for key in keys if before[key] == "s2"}
    assert len({after[key] for key in moved}) == 4

    pool.servers[2].answered()
    assert places(pool) == before


def test_find_takes_addresses_and_servers_of_any_pool() -> None:
    addresses = parse_host_list([{"host": "h", "ca_certs": "c"}, ("h", 1)])
    pool = ServerPool(addresses, random.Random(1))
    other = ServerPool(parse_host_list(["h:1", "h:2"]), random.Random(1))
    assert pool.find(ServerAddress("h")) is pool.servers[0]
    for same in (ServerAddress("h", 1), "h:1", ("h", 1), pool.servers[1], other.servers[0]):
        assert pool.find(same) is pool.servers[1]
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
    world.submit(world.request())
    assert not server.connected
    assert repr(server) == "<Server h:7, not connected>"
    peer = world.serve()
    assert server.connected
    assert repr(server) == "<Server h:7>"
    peer.lose()
    assert not server.connected


REFUSED = ConnectionRefusedError(111, "refused")


@pytest.mark.parametrize(
    ("reasons", "cure"),
    [
        ({"localhost": REFUSED}, "; start one with `gearmanctl serve`"),
        ({"[::1]:4730": REFUSED}, "; start one with `gearmanctl serve`"),
        ({"127.0.0.1:1": REFUSED}, "; start one with `gearmanctl serve --port 1`"),
        ({"far": OSError("no route"), "localhost": REFUSED}, "; start one with `gearmanctl serve`"),
        ({"far": REFUSED}, ""),
        ({"localhost": TimeoutError("late")}, ""),
        ({"localhost": "no error"}, ""),
    ],
)
def test_error_for_a_missing_local_server_says_how_to_start_one(
    reasons: dict[str, object], cure: str
) -> None:
    text = str(unreachable({parse_address(host): each for host, each in reasons.items()}))
    assert text.partition("; ")[1:] == ("; "[: len(cure)], cure[2:])
    assert text.startswith("no server could be reached: ")


def test_error_for_a_missing_local_server_with_tls_suggests_none() -> None:
    """`gearmanctl serve` speaks TLS only with a certificate."""
    text = str(unreachable({ServerAddress("localhost", ca_certs="ca"): REFUSED}))
    assert text == "no server could be reached: localhost:4730 ([Errno 111] refused)"
