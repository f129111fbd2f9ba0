"""Reports of a conformance run as text, JSON, JUnit XML or a Markdown table."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from gearman_proto.testing.conformance.case import Verdict

from .expected import DECIDED, varies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gearman_proto.testing.conformance.judge import Outcome
    from gearman_sync.testing.recording import Element

# Maximum number of hex digits per packet. (Traces contain complete packets.)
_HEX: Final = 64
# Number of elements of a recording to show at its beginning and its end. A case that polls records
# thousands.
_FIRST: Final = 30
_LAST: Final = 20
#: Matches a character that XML 1.0 forbids.
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The message about a case that is listed as an expected failure but has not failed.
_STALE: Final = "was expected to fail, but did not"


@dataclass
class Report:
    """The results of a run.

    Attributes:
        subject: The address of the judged server, or the command of the judged program.
        side: "server", "worker" or "client".
        profile: The name of the profile.
        outcomes: The outcomes of the cases.
        reasons: The reasons for expected failures, by the name of the case.
        has: The capabilities of the judged side.
    """

    subject: str
    side: str
    profile: str
    outcomes: Sequence[Outcome]
    reasons: Mapping[str, str] = field(default_factory=dict)
    has: Sequence[str] = ()

    @property
    def unexpected(self) -> list[Outcome]:
        """The unexpected failures."""
        return [o for o in self.outcomes if o.is_bad and o.case.id not in self.reasons]

    @property
    def stale(self) -> list[Outcome]:
        """The outcomes of cases that did not fail although `reasons` lists them.

        Cases whose outcome varies are not among them.
        """
        must_fail = {name for name, reason in self.reasons.items() if not varies(reason)}
        return [o for o in self.outcomes if o.case.id in must_fail and o.verdict in DECIDED]

    @property
    def counts(self) -> dict[str, int]:
        """The number of cases for each verdict, in the order of `Verdict`."""
        found = Counter(outcome.verdict for outcome in self.outcomes)
        return {verdict.value: found[verdict] for verdict in Verdict if found[verdict]}

    # Text

    def lines(self, *, verbose: bool = False) -> Iterator[str]:
        """Yield the lines of the text report.

        Args:
            verbose: True to include the cases that passed or were not run, and the details of
                expected failures.
        """
        for outcome in self.outcomes:
            yield from self._details(outcome, verbose=verbose)
        for outcome in self.stale:
            yield f"stale        {outcome.case.id}  {_STALE}"
        numbers = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        cases = "case" if len(self.outcomes) == 1 else "cases"
        yield f"{len(self.outcomes)} {cases} of {self.subject}: {numbers}"

    def _details(self, outcome: Outcome, *, verbose: bool) -> Iterator[str]:
        case, verdict = outcome.case, outcome.verdict
        if outcome.is_bad:
            reason = self.reasons.get(case.id)
            name = verdict.value if reason is None else "expected"
            yield f"{name:12} {case.id}  {case.demand}"
            if reason is not None and not verbose:
                yield f"    {reason}"
                return
            yield f"    {case.level.value}; {case.source}"
            yield from (f"    {line}" for line in outcome.message.splitlines())
            yield from exchange(outcome)
        elif outcome.got and (verbose or verdict in (Verdict.ALLOWED, Verdict.INFO)):
            yield f"{verdict.value:12} {case.id}  {case.demand} - {outcome.got}"
        elif verbose:
            yield f"{verdict.value:12} {case.id}  {case.demand}"

    # JSON and JUnit XML

    def to_json(self) -> str:
        """Return the report as a JSON object."""
        value: dict[str, Any] = {
            "subject": self.subject,
            "side": self.side,
            "profile": self.profile,
            "capabilities": sorted(self.has),
            "counts": self.counts,
            "stale": [outcome.case.id for outcome in self.stale],
            "cases": [self._row(outcome) for outcome in self.outcomes],
        }
        return json.dumps(value, indent=1)

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        case = outcome.case
        row: dict[str, Any] = {
            "id": case.id,
            "level": case.level.value,
            "demand": case.demand,
            "source": case.source,
            "verdict": outcome.verdict.value,
            "seconds": round(outcome.seconds, 3),
        }
        if outcome.expected:
            row["expected"] = outcome.expected
        if outcome.got:
            row["got"] = outcome.got
        if case.id in self.reasons:
            row["reason"] = self.reasons[case.id]
        if outcome.is_bad and outcome.recording is not None:
            row["exchange"] = [
                {"omitted": element} if isinstance(element, int) else element.to_json()
                for element in _shown(outcome)
            ]
        return row

    def to_junit(self) -> str:
        """Return the report as JUnit XML."""
        bad = {outcome.case.id for outcome in [*self.unexpected, *self.stale]}
        skipped = (Verdict.SKIPPED, Verdict.UNSUPPORTED)
        verdicts = [outcome.verdict for outcome in self.outcomes]
        errors = sum(o.verdict is Verdict.ERROR and o.case.id in bad for o in self.outcomes)
        suite = ET.Element(
            "testsuite",
            name=f"conformance of {_xml(self.subject)}",
            tests=str(len(self.outcomes)),
            failures=str(len(bad) - errors),
            errors=str(errors),
            skipped=str(sum(verdict in skipped for verdict in verdicts)),
            time=f"{sum(outcome.seconds for outcome in self.outcomes):.3f}",
        )
        for outcome in self.outcomes:
            case = outcome.case
            item = ET.SubElement(
                suite,
                "testcase",
                classname=f"conformance.{self.side}.{case.id.rpartition('/')[0].replace('/', '.')}",
                name=case.id,
                time=f"{outcome.seconds:.3f}",
            )
            self._say(item, outcome, is_bad=case.id in bad)
        ET.indent(suite)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, "unicode")

    def _say(self, item: ET.Element, outcome: Outcome, *, is_bad: bool) -> None:
        verdict, told = outcome.verdict, outcome.got
        if verdict in (Verdict.SKIPPED, Verdict.UNSUPPORTED):
            ET.SubElement(item, "skipped", message=_xml(f"{verdict.value}: {told}"))
        elif is_bad:
            kind = "error" if verdict is Verdict.ERROR else "failure"
            message = outcome.message
            if not outcome.is_bad:
                message = _STALE
            node = ET.SubElement(item, kind, type=verdict.value, message=_xml(message))
            node.text = _xml("\n".join([outcome.case.demand, *exchange(outcome)]))
        elif told:
            ET.SubElement(item, "system-out").text = _xml(f"{verdict.value}: {told}")

    # Markdown

    def to_markdown(self) -> str:
        """Return the report as a Markdown table."""
        rows = ["| case | level | demand | verdict |", "| --- | --- | --- | --- |"]
        for outcome in self.outcomes:
            case = outcome.case
            told = outcome.verdict.value
            if outcome.verdict is Verdict.FAIL:
                told = f"**fail**: {outcome.message}"
            elif outcome.got:
                told = f"{told}: {outcome.got}"
            cells = [f"`{case.id}`", case.level.value, _cell(case.demand), _cell(told)]
            rows.append(f"| {' | '.join(cells)} |")
        return "\n".join(rows)


def exchange(outcome: Outcome) -> Iterator[str]:
    """Yield the packets of a case, one per line, both decoded and in hex.

    The standard error of the judged program follows, unless it is empty.
    """
    for element in _shown(outcome):
        if isinstance(element, int):
            yield f"    ... {element} more; --trace records all"
            continue
        way = "<-" if element.of_server else "->"
        if element.closes:
            yield f"    {element.conn:8} {way} closes"
            continue
        data = element.data.hex()
        shown = data if len(data) <= _HEX else f"{data[:_HEX]}..."
        yield f"    {element.conn:8} {way} {element.decoded}   [{shown}]"
    if outcome.errors:
        yield "    standard error of the program:"
        yield from (f"    | {line}" for line in outcome.errors.splitlines())


def _shown(outcome: Outcome) -> Iterator[Element | int]:
    """Yield the first and the last elements of the recording, and the number of the others."""
    elements = outcome.recording.exchange if outcome.recording is not None else []
    if len(elements) <= _FIRST + _LAST:
        yield from elements
    else:
        yield from elements[:_FIRST]
        yield len(elements) - _FIRST - _LAST
        yield from elements[-_LAST:]


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
