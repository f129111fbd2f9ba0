"""The fuzz targets pass on their corpora. Their runner finds, replays and minimises failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import __main__ as runner
from fuzz import mutating
from gearman_proto import address

ROOT = Path(__file__).parents[1]
# The address of a server, for the target `text`.
ADDRESS = b"\x03[::1]:4730"


@pytest.mark.parametrize("target", runner.TARGETS)
def test_corpus_passes(target: str) -> None:
    inputs = mutating.load(target)
    assert inputs
    for data in inputs:
        runner.load(target).check(data)


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fuzz", *map(str, options)])
    return runner.main()


def test_fuzz_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "connection", "--replay", ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "connection: it holds\n"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the text of IPv6 addresses by omitting the brackets."""
    write = property(lambda self: f"{self.host}:{self.port}")
    monkeypatch.setattr(address.HostAndPort, "__str__", write.fget)


def test_plain_runner_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "text", "admin_engine", "--seconds", 0.1, "--seed", 7) == 0
    assert run(monkeypatch, "text", "--replay", ADDRESS.hex()) == 0


@pytest.mark.usefixtures("broken")
def test_failure_is_found_reproduced_and_minimised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "text", "--seconds", 20, "--seed", 1) == 1
    out = capsys.readouterr().out
    assert "of seed 1" in out
    (line,) = [line for line in out.splitlines() if line.startswith("replay: ")]
    assert run(monkeypatch, *line.split()[4:]) == 1
    assert line in capsys.readouterr().out
    path = tmp_path / "input"
    path.write_bytes(b"\x03[2001:db8::ff00:42]:4730")
    assert run(monkeypatch, "text", "--minimise", path) == 0
    small = path.with_name("input.small").read_bytes()
    assert len(small) < 12
    assert runner.place_of(runner.load("text").check, small) is not None


def nothing(*args: object, **options: object) -> None:
    """Replace a method."""


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("connection", "gearman_proto.wire.buffer.ReceiveBuffer.shrink"),
        ("client_engine", "gearman_proto.engines.waits.RequestsWait.requests_ended"),
        ("worker_engine", "gearman_proto.engines.worker.engine.WorkerEngine._end_waits"),
        ("server_engine", "gearman_proto.engines.server.engine.ServerEngine._count"),
        ("admin_engine", "gearman_proto.engines.admin.Question.fail"),
        ("text", "fuzz.text.printable"),
        ("differential", "gearman_proto.engines.server.engine.ServerEngine._take_away"),
    ],
)
def test_corpus_detects_a_fault(target: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = runner.load(target).check
    inputs = mutating.load(target)
    monkeypatch.setattr(fault, nothing)
    assert any(runner.place_of(check, data) is not None for data in inputs)
