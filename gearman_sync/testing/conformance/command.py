"""The implementation of ``gearmanctl conformance``."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.address import parse_address
from gearman_proto.testing.conformance.case import PROFILES
from gearman_proto.testing.conformance.judge import Outcome, Selection
from gearman_proto.testing.conformance.suites import SUITES

from . import expected
from .program import launcher
from .replaying import replay_program, replay_server
from .reports import Report
from .running import Gone, StartedServer
from .subjects import ProgramSubject, ServerSubject, check_capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gearman_proto.testing.conformance.case import Case

    from .subjects import Subject

__all__ = ["Gone", "Options", "Selection", "form_of", "listing", "run"]

#: Functions that format a report, by the name of the format.
_FORMS: Final[dict[str, Callable[[Report], str]]] = {
    "text": lambda report: "\n".join(report.lines()),
    "verbose": lambda report: "\n".join(report.lines(verbose=True)),
    "json": Report.to_json,
    "junit": Report.to_junit,
    "markdown": Report.to_markdown,
}


@dataclass
class Options:
    """A parsed command line.

    Attributes:
        side: "server", "worker", "client", or "list".
        words: The address of a server, or a command. For "list", the sides to list.
        selection: The cases to run.
        without: Capabilities to treat as missing.
        profile: The name of the profile.
        timeout: Seconds to wait for an answer.
        trace: The directory for the recordings of failed cases, or None.
        replay: The recording to replay instead of running cases, or None.
        expected_failures: The file of expected failures, or None.
        update: True to rewrite the file of expected failures.
        form: The name of the report format.
    """

    side: str
    words: Sequence[str]
    selection: Selection
    without: Sequence[str]
    profile: str
    timeout: float
    trace: Path | None
    replay: Path | None
    expected_failures: Path | None
    update: bool
    form: str


def form_of(names: Sequence[str]) -> str:
    """Return the requested format, or "text" if the command line requests none.

    Raises:
        ValueError: The command line requests several formats.
    """
    if len(names) > 1:
        raise ValueError(f"give only one of {', '.join(f'--{name}' for name in names)}")
    return names[0] if names else "text"


def listing(options: Options) -> str:
    """Return the selected cases, one per line.

    Raises:
        ValueError: No case matches.
    """
    # `Selection.of` would raise for a case that exists only on another side.
    lines = [
        f"{side}\t{case.id}\t{case.level.value}\t{case.demand}"
        for side, suite in SUITES.items()
        if not options.words or side in options.words
        for case in suite.cases.values()
        if not options.selection.only or options.selection.means(case)
    ]
    if not lines:
        raise ValueError(f"no case matches; the sides are {', '.join(SUITES)}")
    return "\n".join(lines)


def run(options: Options, count: Callable[[int, int], object]) -> tuple[str, bool]:
    """Run the selected cases, or replay a recording.

    Args:
        options: The command line.
        count: Called as `count(done, total)` before the first case and after each case.

    Returns:
        The text to print, and True on success. The run fails on an unexpected failure, a stale
        expected failure, or a difference from a recording.

    Raises:
        Gone: The server can't be reached, does not start, or has died.
        OSError: A file can't be read or written, or a program can't be started.
        ValueError: An option is invalid.
    """
    if options.profile not in PROFILES:
        names = ", ".join(PROFILES)
        raise ValueError(f"there is no profile {options.profile}; the profiles are {names}")
    if options.update and options.expected_failures is None:
        raise ValueError("--update needs --expected-failures")
    address = _address(options)
    check_capabilities(options.without)
    if options.replay is not None:
        differences = _replayed(options, options.replay, address)
        return differences or "the exchange matches the recording", not differences
    suite = SUITES[options.side]
    cases = options.selection.of(suite.cases.values())
    reasons = _reasons(options, suite.cases)
    with _subject(options, address) as subject:
        outcomes: list[Outcome] = []
        count(0, len(cases))
        for outcome in subject.run(cases, options.profile, options.selection):
            outcomes.append(outcome)
            count(len(outcomes), len(cases))
        has = sorted(subject.has)
    if options.trace is not None:
        _write_traces(options.trace, outcomes)
    if options.update and options.expected_failures is not None:
        expected.update(options.expected_failures, outcomes, reasons)
        reasons = expected.load(options.expected_failures, suite.cases)
    words = " ".join(options.words)
    report = Report(words, options.side, options.profile, outcomes, reasons, has)
    return _FORMS[options.form](report), not (report.unexpected or report.stale)


def _address(options: Options) -> tuple[str, int] | None:
    """Return the address of a running server, or None if the words are a command.

    Raises:
        ValueError: The words are neither an address nor a command with a placeholder for it.
    """
    words = options.words
    if not words:
        address = "an address or " if options.side == "server" else ""
        raise ValueError(f"give {address}a command after --")
    if shutil.which(words[0]) is None:
        if options.side == "server" and len(words) == 1:
            server = parse_address(words[0])
            return server.host, server.port
        raise ValueError(f"there is no program {words[0]}")
    if not any(name in word for word in words for name in ("{port}", "{address}")):
        raise ValueError("the command has neither {port} nor {address}")
    return None


def _subject(options: Options, address: tuple[str, int] | None) -> Subject:
    words, without, timeout = options.words, options.without, options.timeout
    if options.side == "server":
        return ServerSubject(address, words, without, timeout)
    return ProgramSubject(options.side, words, without, timeout)


def _reasons(options: Options, known: dict[str, Case]) -> dict[str, str]:
    path = options.expected_failures
    if path is None or (options.update and not path.exists()):
        return {}
    return expected.load(path, known)


def _write_traces(folder: Path, outcomes: Sequence[Outcome]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        if outcome.is_bad and outcome.recording is not None:
            outcome.recording.notes = outcome.message
            outcome.recording.save(folder / f"{outcome.case.id.replace('/', '-')}.json")


def _replayed(options: Options, path: Path, address: tuple[str, int] | None) -> str:
    """Replay a recording. Return the differences, or an empty text if all answers match."""
    words, timeout = options.words, options.timeout
    if options.side != "server":
        return replay_program(path, launcher(words), timeout)
    if address is not None:
        return replay_server(path, address, timeout)
    with closing(StartedServer(words)) as started:
        return replay_server(path, started.address, timeout)
