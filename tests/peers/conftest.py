"""Fixtures: a gearmand and a JobServer with the same contents, and gear's server."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers import peers
from tests.peers.peers import SERVERS, gearadmin
from tests.support import PortProgram, ServerAt, free_port, require_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.peers import Address

#: The parts to compare: return code, standard output and standard error.
Said = tuple[int, str, str]


class Both:
    """A gearmand and a JobServer with the same contents."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses = addresses

    def ask(self, *options: str) -> Said:
        """Run `gearadmin` with both servers and return both outputs; lists are sorted."""
        expected, actual = (self._ask(address, options) for address in self.addresses)
        assert actual == expected
        return actual

    @staticmethod
    def _ask(address: Address, options: tuple[str, ...]) -> Said:
        process = gearadmin(address, *options)
        lines = process.stdout.splitlines(keepends=True)
        return process.returncode, "".join(sorted(map(_without_numbers, lines))), process.stderr


def _without_numbers(line: str) -> str:
    """Return a line without its handle, or its file descriptor and address."""
    line = re.sub(r"^H:[!-~]+:\d+(?=\t)", "HANDLE", line)
    return re.sub(r"^\d+ 127\.0\.0\.1 ", "FD ADDRESS ", line)


@pytest.fixture
def both() -> Iterator[Both]:
    """Both servers, empty."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for start in SERVERS.values():
            server = start()
            stack.callback(server.kill)
            addresses.append(server.address)
        yield Both(*addresses)


@pytest.fixture
def busy(both: Both) -> Iterator[Both]:
    """Both servers with a running job, queued jobs of all priorities, and an idle function."""
    with contextlib.ExitStack() as stack:
        for address in both.addresses:
            stack.enter_context(peers.busy(address))
        yield both


@pytest.fixture
def gear() -> Iterator[ServerAt]:
    """gear's server, which has `status`, `workers` and `cancel job`, and drops other commands."""
    require_module("gear")
    script = Path(__file__).parents[1] / "conformance" / "peers" / "gear_server.py"
    host, port = "127.0.0.1", free_port()
    program = PortProgram(host, port, sys.executable, str(script), f"{host}:{port}")
    try:
        program.start()
        yield ServerAt((host, port))
    finally:
        program.kill()
