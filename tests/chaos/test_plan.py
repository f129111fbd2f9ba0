"""The same seed makes the same plan."""

from __future__ import annotations

from gearman_sync.testing.proxied import KINDS
from gearman_sync.testing.toxics import Bandwidth, Corrupt, Toxic

from .plan import SERVERS, SIDES, Plan
from .run import is_of_size


def faults(plan: Plan) -> dict[tuple[str, str, int], tuple[Toxic, ...]]:
    return {
        (server, side, number): plan.faults(server, side, number)
        for server in SERVERS
        for side in SIDES
        for number in range(200)
    }


def test_same_seed_gives_the_same_plan() -> None:
    assert Plan(7, 60).steps() == Plan(7, 60).steps()
    assert faults(Plan(7, 60)) == faults(Plan(7, 60))


def test_another_seed_gives_another_plan() -> None:
    assert Plan(7, 60).steps() != Plan(8, 60).steps()
    assert faults(Plan(7, 60)) != faults(Plan(8, 60))


def test_longer_plan_begins_with_the_shorter_one() -> None:
    short, long = Plan(7, 20).steps(), Plan(7, 60).steps()
    assert long[: len(short)] == short


def test_every_kind_of_fault_is_planned() -> None:
    planned = {type(fault) for some in faults(Plan(7, 60)).values() for fault in some}
    assert planned == set(KINDS)
    steps = [step for seed in range(10) for step in Plan(seed, 60).steps()]
    assert {step.what for step in steps} == {"kill", "stop", "refuse", "ignore", "inject"}
    assert {step.server for step in steps} == set(SERVERS) - {"slow"}


def test_bytes_are_changed_at_one_server_only() -> None:
    for (server, _, _), some in faults(Plan(7, 60)).items():
        assert all(isinstance(fault, Corrupt) == (server == "dirty") for fault in some)


def test_slow_server_has_limited_links_and_no_faults() -> None:
    for (server, _, _), some in faults(Plan(7, 60)).items():
        limits = [fault for fault in some if isinstance(fault, Bandwidth)]
        assert all(20_000 <= limit.rate <= 2_000_000 for limit in limits)
        assert len({limit.direction for limit in limits}) == len(limits) != 1
        if server == "slow":
            assert len(some) == len(limits) == 2


def test_bytes_of_a_size_are_recognised() -> None:
    header = b"\0RES\0\0\0\x08\0\0\0\x14"
    sizes = [at for at in range(len(header)) if is_of_size(b"H:h:1" + header[:at])]
    assert sizes == [8, 9, 10, 11]
    assert not is_of_size(header + b"H:")


def test_server_has_one_fault_at_a_time() -> None:
    until: dict[str, float] = {}
    for step in Plan(7, 600).steps():
        assert step.at >= until.get(step.server, 0.0)
        until[step.server] = step.at + step.seconds
