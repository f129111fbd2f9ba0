"""Judge all installed peers and write the results to docs/explanation/conformance.md.

    python -m tests.conformance                    # print the results of all peers
    python -m tests.conformance server:gearmand    # only some peers, or one side
    python -m tests.conformance --write            # write the results into the page
    python -m tests.conformance --update           # also the lists of expected failures

Each case that fails runs alone three times more. If it fails once or twice, it is published as
varying. If it never fails, the result of its last run alone is published.

`tests/conformance/peers` lists the peers and how to install them. `tests/conformance/expected`
lists the expected failures and their effects on users.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import Level, Verdict
from gearman_proto.testing.conformance.judge import Selection
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance import expected
from gearman_sync.testing.conformance.reports import Report
from gearman_sync.testing.conformance.subjects import ProgramSubject, ServerSubject, Subject
from tests.conformance.peers import CLIENTS, SERVERS, WORKERS, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gearman_proto.testing.conformance.case import Case
    from gearman_proto.testing.conformance.judge import Outcome
    from tests.conformance.peers import Peer

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGE: Final = ROOT / "docs" / "explanation" / "conformance.md"
EXPECTED: Final = Path(__file__).parent / "expected"
#: The list of JobServer's differences from gearmand, in the same directory.
DIFFERENCES: Final = "JobServer-as-gearmand-1.1"
PEERS: Final[dict[str, Mapping[str, Peer]]] = {
    "server": SERVERS,
    "worker": WORKERS,
    "client": CLIENTS,
}
#: Seconds to wait for a reply of a server, and for a program. Many programs give up after ten
#: seconds.
TIMEOUT: Final = 5.0
LONG_TIMEOUT: Final = 12.0
#: Number of runs of a failed case alone.
TIMES: Final = 3


def subject_of(side: str, peer: Peer) -> Subject:
    """Return the subject to judge."""
    if side == "server":
        return ServerSubject(None, peer.argv, (), TIMEOUT)
    return ProgramSubject(side, peer.argv, (), LONG_TIMEOUT)


def reasons_of(side: str, name: str) -> dict[str, str]:
    """Return the cases that are expected to fail, with the effects on users."""
    path = EXPECTED / f"{side}-{name}"
    return expected.load(path, SUITES[side].cases) if path.exists() else {}


def run_alone(side: str, peer: Peer, case: Case) -> list[Outcome]:
    """Run a case alone `TIMES` times, and return the outcomes."""
    outcomes: list[Outcome] = []
    for _ in range(TIMES):
        with subject_of(side, peer) as subject:
            outcomes += subject.run([case], selection=Selection(slow=True))
    return outcomes


def confirmed(
    side: str, peer: Peer, outcomes: Sequence[Outcome], reasons: Mapping[str, str]
) -> tuple[list[Outcome], dict[str, str]]:
    """Return the outcomes without failures that never occur alone; and the reasons.

    The reasons name the failures that vary as such.
    """
    sure, found = [], dict(reasons)
    for outcome in outcomes:
        case, reason = outcome.case, found.get(outcome.case.id, f"Got {outcome.got}.")
        if outcome.is_bad and not expected.varies(reason):
            alone = run_alone(side, peer, case)
            count = sum(each.is_bad for each in alone)
            if not count:
                outcome = alone[-1]
            elif count < TIMES:
                found[case.id] = f"varies: fails {count} of {TIMES} times alone. {reason}"
        sure.append(outcome)
    return sure, found


def judged(side: str, name: str, version: str, *, update: bool) -> Report:
    """Judge one peer."""
    peer = PEERS[side][name]
    reasons = reasons_of(side, name)
    with subject_of(side, peer) as subject:
        cases = SUITES[side].cases.values()
        outcomes = list(subject.run(cases, selection=Selection(slow=True)))
        has = sorted(subject.has)
    outcomes, reasons = confirmed(side, peer, outcomes, reasons)
    if update:
        EXPECTED.mkdir(exist_ok=True)
        path = EXPECTED / f"{side}-{name}"
        expected.update(path, outcomes, reasons)
        if not path.read_text():
            path.unlink()
        reasons = reasons_of(side, name)
    # Some programs print more than their version.
    number = re.search(r"[0-9]\S*", version)
    subject_name = f"{peer.label or name} {number[0] if number else version}"
    sys.stderr.write(f"{side} {subject_name}: {len(outcomes)} cases\n")
    return Report(subject_name, side, "document", outcomes, reasons, has)


def is_varying(report: Report, outcome: Outcome) -> bool:
    """Return whether the outcome of a case changes from run to run."""
    return expected.varies(report.reasons.get(outcome.case.id, ""))


def table(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the lines of the table of verdicts for one side."""
    shown = [verdict.value for verdict in Verdict if verdict is not Verdict.SKIPPED] + ["varies"]
    yield f"| {reports[0].side} | {' | '.join(shown)} |"
    yield f"| --- |{' --- |' * len(shown)}"
    for report in reports:
        counts = Counter(
            "varies" if is_varying(report, outcome) else outcome.verdict.value
            for outcome in report.outcomes
        )
        cells = [str(counts[name] or "") for name in shown]
        yield f"| {report.subject} | {' | '.join(cells)} |"


def failures(report: Report) -> Iterator[str]:
    """Yield the lines of the list of failures, and of cases whose outcome varies."""
    bad = [
        outcome
        for outcome in report.outcomes
        if outcome.is_bad or (is_varying(report, outcome) and outcome.case.level is not Level.INFO)
    ]
    if not bad:
        return
    yield ""
    yield f"**{report.subject}** fails in:"
    yield ""
    for outcome in bad:
        reason = report.reasons.get(outcome.case.id, f"Got {outcome.got}.")
        reason = reason[0].upper() + reason[1:]
        yield f"* {reason} (`{outcome.case.id}`: {outcome.case.demand})"


def information(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the lines of the table of known behaviours, one column per peer."""
    cases = {outcome.case.id: outcome.case for report in reports for outcome in report.outcomes}
    told = {
        (report.subject, outcome.case.id): (
            report.reasons[outcome.case.id] if is_varying(report, outcome) else outcome.got
        )
        for report in reports
        for outcome in report.outcomes
        if outcome.verdict in (Verdict.INFO, Verdict.ALLOWED)
    }
    yield ""
    yield f"| case | {' | '.join(report.subject for report in reports)} |"
    yield f"| --- |{' --- |' * len(reports)}"
    for name, case in cases.items():
        cells = [told.get((report.subject, name), "").replace("|", "\\|") for report in reports]
        if any(cells):
            yield f"| `{name}`: {case.demand} | {' | '.join(cells)} |"


def page_of(reports: Sequence[Report], missing: Sequence[str]) -> str:
    """Return the generated part of the page, with the results."""
    lines: list[str] = []
    for side in PEERS:
        some = [report for report in reports if report.side == side]
        if not some:
            continue
        lines += ["", f"### {side.title()}s", "", *table(some)]
        for report in some:
            lines += failures(report)
        if side == "server":
            lines += ["", "Of several known behaviours, each has this one:", *information(some)]
    lines += ["", *[f"* Not judged: {line}" for line in missing]]
    return "\n".join(lines).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="SIDE[:NAME]")
    parser.add_argument("--jobs", type=int, default=4, help="how many are judged at once")
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--update", action="store_true", help="write the expected failures anew")
    options = parser.parse_args(arguments)
    os.environ.update(environment())
    futures: list[Future[Report]] = []
    missing: list[str] = []
    # Threads help: most of the time goes to starting programs and waiting for timeouts.
    with ThreadPoolExecutor(options.jobs) as threads:
        for side, peers in PEERS.items():
            for name, peer in peers.items():
                if options.peers and not {side, f"{side}:{name}"} & {*options.peers}:
                    continue
                version = peer.version()
                if version is None:
                    missing.append(f"{name} ({side}) is not installed here: {peer.install}")
                    continue
                futures.append(threads.submit(judged, side, name, version, update=options.update))
    reports = [future.result() for future in futures]
    text = page_of(reports, missing)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        mark = "<!-- made by python -m tests.conformance --write -->"
        page = re.sub(
            f"(?s){mark}.*<!-- end -->", lambda _: f"{mark}\n\n{text}\n\n<!-- end -->", page
        )
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(text)
    return int(any(report.unexpected or report.stale for report in reports))


if __name__ == "__main__":
    sys.exit(main())
