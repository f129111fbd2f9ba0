"""Completion in shells: commands, options, and functions of the servers."""

from __future__ import annotations

import re
import shlex
import string
import subprocess
from typing import TYPE_CHECKING

import pytest

from gearman_sync import GearmanClient
from tests.support import PATIENCE, require

from .support import DONE, address_of, command_line, environment, gearmanctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .support import Server

SHELLS = ["bash", "zsh", "fish", "powershell"]
ALLOWED = string.ascii_letters + string.digits + "_./:@+,=%-"
HARMLESS = sorted(["f", *(f"f{character}g" for character in ALLOWED)])
#: All other ASCII characters except NUL, and some that are not ASCII or not UTF-8.
FORBIDDEN = [*(set(map(chr, range(1, 128))) - set(ALLOWED)), "é", "\u202e", "\x9b", "\udcff"]


def complete(line: str, names: str = "", shell: str = "bash") -> list[str]:
    """Return the words that gearmanctl offers a shell for the last word of `line`."""
    result = gearmanctl(
        GEARMAN_SERVERS=names,
        _GEARMANCTL_COMPLETE=f"complete_{shell}",
        # For bash.
        COMP_WORDS=line,
        COMP_CWORD=str(line.count(" ")),
        # For the other shells.
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_WORD_TO_COMPLETE=line.rpartition(" ")[2],
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert (result.status, result.errors) == (DONE, "")
    text = result.output.decode()
    if shell == "zsh":
        if text == "_files\n":
            return []
        parts = re.fullmatch(r"_arguments '\*: :\(\((.*)\)\)'\n", text, re.DOTALL)
        assert parts, text
        # A description, possibly with several lines, can follow the word.
        words = re.findall(r'^"([^"]*)"', parts[1], re.MULTILINE)
        return [word.replace(r"\\:", ":") for word in words]
    separator = {"fish": "\t", "powershell": ":::"}.get(shell)
    return [each.split(separator)[0] if separator else each for each in text.splitlines() if each]


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_offers_commands_and_options(shell: str) -> None:
    offered = complete("gearmanctl s", shell=shell)
    assert offered == ["submit", "status", "shutdown", "serve"]
    assert "--unordered" in complete("gearmanctl submit --un", shell=shell)


@pytest.mark.parametrize("names", ["127.0.0.1:1", "host:port"])
def test_completion_without_a_server_offers_nothing(names: str) -> None:
    assert complete("gearmanctl submit o", names) == []


# A worker can register a function of any name, and a shell might evaluate a completion.


@pytest.fixture
def hostile_server(launch: Callable[[], Server]) -> Server:
    """A server with functions whose names contain every character."""
    server = launch()
    names = [f"f{character}g" for character in (*ALLOWED, *FORBIDDEN)]
    names += [r"f\$(touch X)", "f$(touch X)", "f`touch X`", "f;touch X", "f' touch X '", "f"]
    names += ["--server=attacker:4730", "-f", "-", *FORBIDDEN]
    with GearmanClient([server.address]) as client:
        jobs = [{"task": name, "data": b""} for name in names]
        client.submit_multiple_jobs(jobs, background=True, poll_timeout=PATIENCE)
    return server


@pytest.mark.parametrize(
    ("shell", "command"),
    [*((shell, "submit") for shell in SHELLS), ("bash", "work"), ("bash", "maxqueue")],
)
def test_completion_of_hostile_names_offers_only_harmless_ones(
    hostile_server: Server, shell: str, command: str
) -> None:
    # A server that is down is left out.
    names = f"{address_of(hostile_server)},127.0.0.1:1"
    assert complete(f"gearmanctl {command} f", names, shell) == HARMLESS
    # Options are not functions: `--server=…` would send the job to another server.
    assert complete(f"gearmanctl {command} ", names, shell) == HARMLESS
    assert complete(f"gearmanctl {command} -- -", names, shell) == []
    options = complete(f"gearmanctl {command} --s", names, shell)
    assert "--server" in options
    assert "--server=attacker:4730" not in options


def test_completion_in_bash_inserts_names_as_single_words(
    hostile_server: Server, tmp_path: Path
) -> None:
    """Check with bash, which inserts a completed word without quoting it."""
    program = tmp_path / "gearmanctl"
    command = shlex.join(command_line())
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    script = gearmanctl(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    ).output.decode()
    script += """
        COMP_WORDS=(gearmanctl submit f) COMP_CWORD=2
        _gearmanctl_completion "$0" f submit
        eval "set -- ${COMPREPLY[*]}"
        printf '%s\\n' "$@"
    """
    process = subprocess.run(
        [require("bash"), "--norc", "-c", script, program],
        env=environment(GEARMAN_SERVERS=address_of(hostile_server)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.stderr == b""
    assert process.stdout.decode().splitlines() == HARMLESS
