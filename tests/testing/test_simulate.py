"""The program for long simulations: output, exit status and replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz import simulate
from fuzz.simulate import read, replay
from gearman_proto.engines.client.replies import ReplyHandler

if TYPE_CHECKING:
    import pytest


def arguments(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *words])


def test_simulate_runs_seeds_until_the_time_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(monkeypatch, "--seconds", "0.2", "--seed", "3")
    monkeypatch.setattr(simulate, "_STRETCH", 0.0)
    assert simulate.main() == 0
    said = capsys.readouterr().out
    assert "seeds 3 to " in said
    assert "executions" in said


def test_simulate_with_a_failure_shrinks_the_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The broken client reports results as failures.
    monkeypatch.setattr(ReplyHandler, "_on_work_complete", ReplyHandler._on_work_fail)
    arguments(monkeypatch, "--seconds", "60", "--seed", "0")
    assert simulate.main() == 1
    said = capsys.readouterr().out
    assert "which no execution of it did" in said
    assert "plan of seed 0" in said
    plan = read(said.partition("plan for --replay:\n")[2])
    assert len(plan) < 12
    assert replay(plan) == 1
