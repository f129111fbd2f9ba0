"""The program that runs simulations for long: what it says, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz import simulate
from fuzz.simulate import read, replay
from gearman_proto.engines.client.answers import Answers

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PLAN = """
('network', 1, {'latency': (0.001, 0.002)})
('server', 's0', {})
('worker', 'w0', ['s0', 's1'], ['f'], {})
('client', 'c0', ['s0', 's1'], {})
('client', 'c1', ['s1'], {})
('admin', 'a0', 's1')
('submit', 0.1, 'c0', [{'task': 'f', 'data': b'1 0.0 0 complete '}], {}, 'keep')
('submit', 0.2, 'c1', [{'task': 'f', 'data': b'2 0.0 0 complete '}], {}, 'keep')
('fault', 0.3, '0.3 stall w0>s0 0.1')
"""


def arguments(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *words])


def test_seeds_until_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(monkeypatch, "--seconds", "0.2", "--seed", "3")
    monkeypatch.setattr(simulate, "_STRETCH", 0.0)
    assert simulate.main() == 0
    said = capsys.readouterr().out
    assert "seeds 3 to " in said
    assert "executions" in said


def test_a_failure_is_shrunk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The library takes results for failures.
    monkeypatch.setattr(Answers, "_on_work_complete", Answers._on_work_fail)
    arguments(monkeypatch, "--seconds", "60", "--seed", "0")
    assert simulate.main() == 1
    said = capsys.readouterr().out
    assert "which no execution of it did" in said
    assert "plan of seed 0" in said
    plan = read(said.partition("plan for --replay:\n")[2])
    assert len(plan) < 12
    assert replay(plan) == 1


def test_a_part_of_a_plan_is_replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan"
    path.write_text(PLAN)
    arguments(monkeypatch, "--replay", str(path))
    assert simulate.main() == 0
    assert "nothing was found" in capsys.readouterr().out
