"""The command: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from gearman_proto.foreign import shown

from . import _sources as sources
from ._analysis import Program
from ._kinds import is_of_gearman
from ._rules import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._rules import Finding

_PROGRAM = "python -m gearman_sync.migrate"
_NOTHING, _BY_HAND, _TROUBLE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="List what has to change in a program that was written for python-gearman, "
        "gearman3, pygearman, python3-gearman, py3gearman, gear or aiogear, if it is to run on "
        "gearman_sync. Nothing of the program is run or changed.",
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
    except OSError as error:  # Only writing the output raises it.
        # At exit, Python would flush the rest, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # With `| head`, for example.
            _complain(f"{_PROGRAM}: can't write the findings: {error.strerror}")
        return _TROUBLE


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)  # noqa: T201


def _run(paths: Sequence[str], *, as_json: bool) -> int:
    problems: list[str] = []
    notes: list[str] = []
    program = Program(_read(paths, problems, notes))
    problems += program.problems
    for finding in program.findings:
        print(json.dumps(_as_dict(finding)) if as_json else _as_text(finding))  # noqa: T201
    if not as_json:
        for line in _summary(program, has_problems=bool(problems)):
            print(line)  # noqa: T201
    if sys.stdout is not None:  # The shell's `>&-` closes it.
        sys.stdout.flush()
    for line in notes + problems:
        _complain(shown(line))
    if problems:
        return _TROUBLE
    by_hand = any(each.verdict is Verdict.CHANGE for each in program.findings)
    return _BY_HAND if by_hand else _NOTHING


def _read(paths: Sequence[str], problems: list[str], notes: list[str]) -> Iterator[sources.Source]:
    for path in sources.find(paths, problems, notes):
        try:
            yield sources.read(path)
        except sources.Unreadable as error:
            problems.append(f"{path}: {error}")


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "line": finding.line,
        "rule": finding.rule,
        "verdict": finding.verdict.value,
        "what": finding.what,
        "do": finding.do,
    }


def _as_text(finding: Finding) -> str:
    mode = "without the mode: " if finding.verdict is Verdict.INSTALL else ""
    return (
        f"{shown(finding.file)}:{finding.line}: {finding.verdict.value}: {finding.what} "
        f"[{finding.rule}]\n    {mode}{finding.do}"
    )


def _summary(program: Program, *, has_problems: bool) -> Iterator[str]:
    count = {
        verdict: sum(each.verdict is verdict for each in program.findings) for verdict in Verdict
    }
    if program.findings:
        yield ""
    yield (
        f"{_counted(program.files, 'file')} read, {len(program.users)} with a Gearman library; "
        f"{count[Verdict.CHANGE]} to change by hand, "
        f"{count[Verdict.INSTALL]} that install_as_gearman() takes care of."
    )
    step = _next_step(program, count)
    if has_problems:
        others = f" For the other files: {step}" if program.users else ""
        step = f"correct what standard error lists, and run this again.{others}"
    yield f"Next: {step}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _next_step(program: Program, count: dict[Verdict, int]) -> str:
    if not program.users:
        return "nothing: no file uses a library that this one could stand for."
    old = [each for each in program.findings if each.rule == "python-2"]
    if old:
        return f"port {shown(old[0].file)} to Python 3, then run this again."
    modules = set().union(*program.users.values())
    changes = " Then change by hand what is listed." if count[Verdict.CHANGE] else ""
    if modules and not is_of_gearman(modules):
        return "rewrite what is listed; docs/howto/migrating.md has a table for each library."
    name = next((each for each in ("python3_gearman", "py3gearman") if each in modules), "gearman")
    if program.is_installed:
        return (
            "change by hand what is listed as such; the program calls install_as_gearman() already."
            if count[Verdict.CHANGE]
            else "nothing: the program calls install_as_gearman() already."
        )
    if count[Verdict.INSTALL]:
        argument = "" if name == "gearman" else f'"{name}"'
        return (
            f'add "import gearman_sync; gearman_sync.install_as_gearman({argument})" before the '
            f"first import of {name}.{changes}"
        )
    if count[Verdict.CHANGE]:
        return f'write "import gearman_sync as {name}" in place of "import {name}".{changes}'
    return (
        f'nothing differs: "import gearman_sync as {name}" in place of "import {name}" is all, '
        f'and "from gearman_sync import" in place of "from {name} import".'
    )
