"""gearmanctl prints help.txt: its help pages, and its messages about wrong command lines.

They are the same with every version of typer and rich that the extra ``cli`` allows. After a
change, run ``python -m tests.cli.test_help``.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gearman_sync.cli.app import COMMANDS

from .support import gearmanctl

PAGE = Path(__file__).with_name("help.txt")


def printed(line: str) -> str:
    """Return a command line with its output and its exit status."""
    # Nothing listens at this port.
    result = gearmanctl(
        *shlex.split(line), COLUMNS="80", TERM="dumb", GEARMAN_SERVERS="localhost:1"
    )
    prompt = f"$ gearmanctl {line}".rstrip()
    return f"{prompt}\n{result.output.decode()}{result.errors}exit status {result.status}\n"


def blocks(text: str) -> dict[str, str]:
    """Return the page's blocks by command line."""
    found = re.findall(r"^\$ gearmanctl(?: (.*))?\n", text, re.MULTILINE)
    parts = re.split(r"(?m)^(?=\$ gearmanctl)", text)[1:]
    return dict(zip(found, parts, strict=True))


BLOCKS = blocks(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", BLOCKS)
def test_help_and_usage_errors_are_those_of_the_page(line: str) -> None:
    assert printed(line) == BLOCKS[line]


def test_page_has_the_help_of_each_command() -> None:
    for name, (_, summary) in COMMANDS.items():
        usage, _, rest = BLOCKS[f"{name} --help"].partition("\n\n")
        assert f"gearmanctl {name} " in usage
        assert rest.split("\n\n")[0].split() == summary.split()
        assert f"\n    gearmanctl {name}" in rest.partition("Example")[2]


if __name__ == "__main__":
    PAGE.write_text("".join(map(printed, BLOCKS)), encoding="utf-8")
