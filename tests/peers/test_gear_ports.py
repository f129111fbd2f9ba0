"""The ports of docs/howto/migrating.md: gear's programs print the same as ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers.peers import SERVERS
from tests.support import PATIENCE, require_module
from tests.test_docs_pages import docs_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")
#: A part of the program for gear, and the output of the part for this library after it.
PORTS = re.findall(r"<!-- gear -->\n```py\n(.*?)```.*?```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(params=SERVERS)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server whose workers do the functions of the examples."""
    server = SERVERS[request.param]()
    with docs_worker.working([server.address]):
        yield server.address[1]
    server.kill()


def test_program_prints_the_same_with_gear(port: int) -> None:
    require_module("gear")
    program, output = ("".join(parts) for parts in zip(*PORTS, strict=True))
    assert len(PORTS) == 3
    ran = subprocess.run(
        [sys.executable, "-c", program.replace("4730", str(port))],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.stdout == output, ran.stderr
