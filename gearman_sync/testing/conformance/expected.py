"""The file of expected failures.

Each line contains the name of a case, a space, and the reason for the failure. A line that begins
with ``#`` is a comment. If a listed case fails, the run can still succeed. If a listed case passes,
its line is stale. A stale line fails the run, so that the file stays accurate.

If the reason begins with ``varies:``, the outcome changes from run to run. The case can fail or
pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.case import Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

    from gearman_proto.testing.conformance.judge import Outcome

#: The verdicts that make the line of a case stale.
DECIDED = (Verdict.PASS, Verdict.ALLOWED, Verdict.INFO)

# A reason that begins so belongs to a case whose outcome changes from run to run.
_VARIES = "varies:"


def varies(reason: str) -> bool:
    """Return whether the reason says that the outcome of the case changes from run to run."""
    return reason.startswith(_VARIES)


def load(path: str | os.PathLike[str], known: Collection[str]) -> dict[str, str]:
    """Return the reasons, by the name of the case.

    Args:
        path: The file.
        known: The names of all cases.

    Raises:
        OSError: The file can't be read.
        ValueError: A line names an unknown case, repeats a case, or has no reason.
    """
    reasons: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name not in known or name in reasons or not reason.strip():
            raise ValueError(
                f"{path}, line {number}: the line needs a case, listed only once, and a reason"
            )
        reasons[name] = reason.strip()
    return reasons


def update(
    path: str | os.PathLike[str], outcomes: Iterable[Outcome], reasons: Mapping[str, str]
) -> None:
    """Rewrite the file to list the cases that fail now.

    Listed cases keep their reasons. Cases that neither passed nor failed keep their lines, and so
    do cases whose outcome varies.

    Raises:
        OSError: The file can't be written.
    """
    lines = dict(reasons)
    for outcome in outcomes:
        if outcome.is_bad:
            lines.setdefault(outcome.case.id, " ".join(outcome.message.split()))
        elif outcome.verdict in DECIDED and not varies(lines.get(outcome.case.id, "")):
            lines.pop(outcome.case.id, None)
    text = "".join(f"{name} {reason}\n" for name, reason in sorted(lines.items()))
    Path(path).write_text(text, encoding="utf-8")
