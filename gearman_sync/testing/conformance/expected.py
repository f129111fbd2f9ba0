"""Failures that are expected: a file of their names, each with a reason.

A line is the name of a case, a blank, and the reason; a line that begins with ``#`` is a comment. A
case that is listed and fails is no failure. One that is listed and passes is stale: that is a
failure, so that the list stays true.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.case import Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

    from gearman_proto.testing.conformance.judge import Outcome

#: With these, a case has been decided, and so can be stale.
DECIDED = (Verdict.PASS, Verdict.ALLOWED, Verdict.INFO)


def load(path: str | os.PathLike[str], known: Collection[str]) -> dict[str, str]:
    """Return the reasons by the names of the cases.

    Args:
        path: The file.
        known: The names of all cases.

    Raises:
        OSError: It can't be read.
        ValueError: It names a case that is not there, or one twice, or gives no reason.
    """
    reasons: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name not in known or name in reasons or not reason.strip():
            raise ValueError(
                f"{path}, line {number}: a case and why it fails are expected, and each case once"
            )
        reasons[name] = reason.strip()
    return reasons


def update(
    path: str | os.PathLike[str], outcomes: Iterable[Outcome], reasons: Mapping[str, str]
) -> None:
    """Write the list anew: what fails now. Reasons stay, and so do cases that were not decided.

    Raises:
        OSError: It can't be written.
    """
    lines = dict(reasons)
    for outcome in outcomes:
        if outcome.is_bad:
            reason = f"expected {outcome.expected}, and got {outcome.got}"
            lines.setdefault(outcome.case.id, " ".join(reason.split()))
        elif outcome.verdict in DECIDED:
            lines.pop(outcome.case.id, None)
    text = "".join(f"{name} {reason}\n" for name, reason in sorted(lines.items()))
    Path(path).write_text(text, encoding="utf-8")
