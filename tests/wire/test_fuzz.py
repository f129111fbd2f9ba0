"""The fuzzers' invariants hold for a fixed set of inputs, and would be missed if they did not."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gearman_proto.wire.connection import Connection
from gearman_proto.wire.events import CanDo, EchoReq, Event
from gearman_proto.wire.packets import MAGIC_REQUEST, Role

if TYPE_CHECKING:
    from gearman_proto.wire.buffer import ReceiveBuffer

fuzz = importlib.import_module("fuzz.fuzz_connection")
SCRIPT = Path(__file__).parents[2] / "fuzz" / "fuzz_connection.py"


def test_seeds() -> None:
    seeds = fuzz.load_seeds()
    assert len(seeds) > 100
    # More events than inputs: the requests and the answers to them are understood.
    assert sum(fuzz.check(data) for data in seeds) > 10 * len(seeds)


def test_fixed_inputs() -> None:
    rng = random.Random(1)
    seeds = fuzz.load_seeds()
    events = sum(fuzz.check(fuzz.generate(rng, seeds)) for _ in range(600))
    assert events > 3000


def test_same_seed_same_inputs() -> None:
    seeds = fuzz.load_seeds()
    first, second = random.Random(2), random.Random(2)
    for _ in range(50):
        assert fuzz.generate(first, seeds) == fuzz.generate(second, seeds)


ECHO = b"\0REQ\0\0\0\x10\0\0\0\x02ab"


def test_notices_a_packet_that_comes_out_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EchoReq, "arguments", staticmethod(lambda event: (event.data[::-1],)))
    with pytest.raises(fuzz.Failure, match="became"):
        fuzz.check(ECHO)


def test_notices_what_depends_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(self: Connection, data: bytes) -> None:
        buffer: ReceiveBuffer = self._buffer
        buffer.feed(data.upper() if len(data) == 1 else data)

    monkeypatch.setattr(Connection, "receive_data", receive_data)
    with pytest.raises(fuzz.Failure, match="byte by byte"):
        fuzz.check(ECHO)


def test_notices_other_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_event(self: Connection) -> Event:
        raise IndexError

    monkeypatch.setattr(Connection, "next_event", next_event)
    with pytest.raises(IndexError):
        fuzz.check(ECHO)


def test_notices_lost_bytes() -> None:
    with pytest.raises(fuzz.Failure, match="became"):
        fuzz.check_bytes(Role.SERVER, ECHO, [EchoReq(b"xy")])
    assert fuzz.check_bytes(Role.SERVER, ECHO, [EchoReq(b"ab")]) == len(ECHO)
    with pytest.raises(fuzz.Failure, match="became"):
        fuzz.check_bytes(Role.SERVER, ECHO, [CanDo(b"ab")])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--seconds", "0.1", "--seed", "1"], "seed 1: "),
        (["--replay", ECHO.hex()], "2 events"),
        (["--replay", ""], "6 events"),
    ],
)
def test_script(options: list[str], expected: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_script_reports_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "MAGIC_REQUEST", b"\0RES")
    monkeypatch.setattr(sys, "argv", ["fuzz", "--replay", ECHO.hex()])
    assert fuzz.main() == 1
    assert f"--replay {ECHO.hex()}\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seconds", "5", "--seed", "1"])
    assert fuzz.main() == 1
    assert "of seed 1" in capsys.readouterr().out
    assert ECHO.startswith(MAGIC_REQUEST)
