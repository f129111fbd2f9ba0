"""Parsers of other libraries under the properties, which find real faults."""

from __future__ import annotations

import functools
import importlib
import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.testing import (
    ConnectionParser,
    PropertyFailed,
    check_exceptions,
    check_meaning,
    check_time,
    pack_event,
)
from gearman_proto.wire.packets import MAGIC_RESPONSE, Role, WorkComplete
from gearman_sync import GearmanClient
from tests.support import EmbeddedServer, require_module

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "check_pygearman.py"


@pytest.mark.slow
def test_example_finds_a_fault_of_pygearman(tmp_path: Path) -> None:
    require_module("gearman")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "an exception that is not allowed: error: " in ran.stderr
    # One such function in the list is enough, if its name does not begin with ASCII.
    (sent,) = re.findall(r"sent: 10 bytes, b'(.+)'", ran.stderr)
    assert re.fullmatch(r"\\x[89a-f][0-9a-f]\\t0\\t0\\t0\\n\.\\n", sent)


def test_example_is_short() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 20


def test_fault_that_the_example_finds_is_real() -> None:
    """Check that pygearman can't list the functions of a server with such a function."""
    require_module("gearman")
    gearman: Any = importlib.import_module("gearman")
    server = EmbeddedServer()
    try:
        admin = gearman.GearmanAdminClient([server.address])
        assert admin.get_status() == ()
        with GearmanClient([server.address]) as client:
            client.submit_job("\xfcber", b"", background=True)
        with pytest.raises(Exception, match="format requires 0 <= number <= 255"):
            admin.get_status()
        admin.shutdown()
    finally:
        server.kill()


class Gear:
    """gear's parser. It reads from a socket itself, 4096 bytes at a time."""

    def __init__(self) -> None:
        gear: Any = importlib.import_module("gear")
        self._connection = gear.Connection("nowhere", 4730)
        self._connection.conn = self

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self.recv = io.BytesIO(data).read
        while (packet := self._connection.readPacket()) is not None:
            yield packet.ptype, packet.data


def result(size: int) -> list[bytes]:
    """Return the chunks of a result of `size` bytes."""
    data = pack_event(WorkComplete(b"H:1", bytes(size)), MAGIC_RESPONSE)
    return [data[at : at + 4096] for at in range(0, len(data), 4096)]


def test_gear_parses_large_results_in_quadratic_time() -> None:
    """Join all received data again for each 4096 bytes, as gear does."""
    require_module("gear")
    check_meaning(Gear, b"".join(result(5000)), [(13, b"H:1\0" + bytes(5000))])
    with pytest.raises(PropertyFailed, match="time grows faster than the input"):
        check_time(Gear, result, time.process_time, size=100_000, factor=32)
    check_time(functools.partial(ConnectionParser, Role.CLIENT), result, time.process_time)


def test_gear_with_unsolicited_text_raises_an_index_error() -> None:
    require_module("gear")
    with pytest.raises(PropertyFailed, match="IndexError: pop from empty list"):
        check_exceptions(Gear, b"HTTP/1.1 400 Bad Request\r\n", ())
