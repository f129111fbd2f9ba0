"""The same seed makes the same plan, with every kind of fault."""

from __future__ import annotations

from gearman_sync.testing.toxics import KINDS, Bandwidth, Corrupt, Toxic

from .plan import SERVERS, SIDES, Plan
from .run import is_of_size


def faults(plan: Plan) -> dict[tuple[str, str, int], tuple[Toxic, ...]]:
    return {
        (server, side, number): plan.faults(server, side, number)
        for server in SERVERS
        for side in SIDES
        for number in range(200)
    }


def test_plan_depends_on_the_seed_only() -> None:
    steps = Plan(7, 60).steps()
    assert steps == Plan(7, 60).steps() != Plan(8, 60).steps()
    assert faults(Plan(7, 60)) == faults(Plan(7, 60)) != faults(Plan(8, 60))
    short = Plan(7, 20).steps()
    assert steps[: len(short)] == short


def test_plan_has_every_kind_of_fault_at_the_right_servers() -> None:
    planned = faults(Plan(7, 60))
    kinds = {type(fault) for some in planned.values() for fault in some}
    assert kinds == set(KINDS)
    for (server, _, _), some in planned.items():
        assert all(isinstance(fault, Corrupt) == (server == "dirty") for fault in some)
        limits = [fault for fault in some if isinstance(fault, Bandwidth)]
        assert len({limit.direction for limit in limits}) == len(limits) != 1
        if server == "slow":
            assert len(some) == len(limits) == 2
    until: dict[str, float] = {}
    steps = Plan(7, 600).steps()
    assert {step.what for step in steps} == {"kill", "stop", "refuse", "ignore", "inject"}
    assert {step.server for step in steps} == set(SERVERS) - {"slow"}
    # A server has one fault at a time.
    for step in steps:
        assert step.at >= until.get(step.server, 0.0)
        until[step.server] = step.at + step.seconds


def test_bytes_of_a_size_are_recognised() -> None:
    header = b"\0RES\0\0\0\x08\0\0\0\x14"
    sizes = [at for at in range(len(header) + 1) if is_of_size(b"H:h:1" + header[:at])]
    assert sizes == [8, 9, 10, 11]
