"""The migrate command: its arguments and its output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

from gearman_proto.printable import printable

from ._names import GEARMAN, OTHERS
from ._program import Program
from ._rules import CHANGE, INSTALL
from ._sources import read

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM: Final = "python -m gearman_sync.migrate"
_NOTHING, _BY_HAND, _TROUBLE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run the command. Return its exit status."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="List what has to change in a program for python-gearman or another library, "
        "if it is to run on gearman_sync. Nothing of the program is run or changed.",
        epilog="Exit status: 0 if nothing has to be changed by hand, 1 if something has to, 2 if a "
        "path can't be read.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a directory")
    parser.add_argument("--json", action="store_true", help="print each finding as a JSON object")
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(options.paths, as_json=options.json)
    except OSError as error:  # Only writing the output raises OSError.
        # At exit, Python would flush the rest and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `| head` closes the pipe early.
            _complain(f"{_PROGRAM}: can't write the findings: {error.strerror}")
        return _TROUBLE


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)  # noqa: T201


def _run(paths: Sequence[str], *, as_json: bool) -> int:
    problems: list[str] = []
    notes: list[str] = []
    program = Program(read(paths, problems, notes))
    problems += program.problems
    found = [finding.as_dict() for finding in program.findings]
    counts = Counter(str(each["verdict"]) for each in found)
    lines = [json.dumps(each) if as_json else _as_text(**each) for each in found]
    if not as_json:
        lines += ["", _summary(program, counts, has_problems=bool(problems))][not found :]
    for line in lines:
        print(line)  # noqa: T201
    if sys.stdout is not None:  # The shell's `>&-` closes standard output.
        sys.stdout.flush()
    for line in notes + problems:
        _complain(printable(line))
    return _TROUBLE if problems else _BY_HAND if counts[CHANGE] else _NOTHING


def _as_text(*, file: str, line: int, rule: str, verdict: str, what: str, do: str) -> str:
    mode = "without the mode: " if verdict == INSTALL else ""
    return f"{printable(file)}:{line}: {verdict}: {what} [{rule}]\n    {mode}{do}"


def _summary(program: Program, counts: Counter[str], *, has_problems: bool) -> str:
    step = _next_step(program, counts)
    if has_problems:
        others = f" For the other files: {step}" if program.users else ""
        step = f"correct what standard error lists, and run this again.{others}"
    return (
        f"{program.files} file{'s' * (program.files != 1)} read, {len(program.users)} with a "
        f"Gearman library; {counts[CHANGE]} to change by hand, {counts[INSTALL]} that "
        f"install_as_gearman() takes care of.\nNext: {step}"
    )


def _next_step(program: Program, counts: Counter[str]) -> str:
    if not program.users:
        return "nothing: no file uses a library that this one could stand for."
    old = sorted({each.file for each in program.findings if each.rule == "python-2"})
    if old:
        command = printable(shlex.join(["2to3", "--write", "--nobackups", *old]))
        return f"port to Python 3, then run this again. Python 3.12 and older have:\n    {command}"
    modules = set().union(*program.users.values())
    changes = " Then change by hand what is listed." if counts[CHANGE] else ""
    if modules <= set(OTHERS):
        return "rewrite what is listed; docs/howto/migrating.md has a section for each library."
    name = next((each for each in reversed(GEARMAN) if each in modules), "gearman")
    if program.is_installed:
        step = "change by hand what is listed as such" if counts[CHANGE] else "nothing"
        return f"{step}: the program calls install_as_gearman() already."
    if counts[INSTALL]:
        call = f"install_as_gearman({'' if name == 'gearman' else repr(name)})".replace("'", '"')
        line = f'"import gearman_sync; gearman_sync.{call}"'
        return f"add {line} before the first import of {name}.{changes}"
    if counts[CHANGE]:
        return f'write "import gearman_sync as {name}" in place of "import {name}".{changes}'
    return (
        f'nothing differs: "import gearman_sync as {name}" in place of "import {name}" is all, '
        f'and "from gearman_sync import" in place of "from {name} import".'
    )
