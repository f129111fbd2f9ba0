"""Delta debugging reduces a failing input to its necessary parts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from gearman_proto.testing import Fault, Network, shrink

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_shrink_keeps_only_the_necessary_items() -> None:
    assert shrink(range(100), lambda left: {17, 71} <= set(left)) == [17, 71]
    assert shrink([1, 2, 3], lambda left: True) == []
    assert shrink([1, 2, 3], lambda left: left == [1, 2, 3]) == [1, 2, 3]
    assert shrink([], lambda left: True) == []


def test_shrink_with_a_limit_stops_after_it() -> None:
    tried = []

    def fails(left: list[int]) -> bool:
        tried.append(left)
        return 5 in left

    assert 5 in shrink(range(1000), fails, most=3)
    assert len(tried) == 3


def work(job: Any) -> Iterator[float]:
    yield 1.0


def test_shrink_of_faults_finds_the_cause() -> None:
    def is_lost(faults: list[Fault]) -> bool:
        net = Network(random.Random, seed=1, replay=faults)
        server = net.server()
        net.worker([server], {"work": work})
        client = net.client([server])
        call = client.submit([{"task": "work", "data": b""}])
        net.run(until=20.0)
        return call.requests[0].error is not None

    many = [
        Fault(0.1, "clock", "client1", 5.0),
        Fault(0.2, "stall", "worker1>server1", 0.1),
        Fault(0.5, "reset", "client1>server1"),
        Fault(0.6, "freeze", "server1", 0.1),
    ]
    assert is_lost(many)
    assert shrink(many, is_lost) == [many[2]]
