"""Delta debugging reduces a failing input to its necessary parts."""

from __future__ import annotations

from gearman_proto.testing import shrink

from .cast import Cast


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


def test_shrink_of_faults_finds_the_cause() -> None:
    def is_lost(faults: list[str]) -> bool:
        cast = Cast(*faults)
        cast.submit()
        cast.run(20.0)
        return cast.request.error is not None

    many = [
        "0.1 clock client1 5.0",
        "0.2 stall worker1>server1 0.1",
        "0.5 reset client1>server1 0.0",
        "0.6 freeze server1 0.1",
    ]
    assert is_lost(many)
    assert shrink(many, is_lost) == [many[2]]
