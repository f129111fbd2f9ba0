"""The metadata of a release is consistent. `.ci/run` checks the distributions."""

from __future__ import annotations

import re
from pathlib import Path

from gearman_proto import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_version_and_date_match_the_changelog() -> None:
    heading = re.search(r"^## (\d.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = dict(
        re.findall(r"^([\w-]+): (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    )
    assert heading is not None
    assert heading[1] == f"{__version__} ({citation['date-released']})"
    assert citation["version"] == __version__


def test_actions_are_pinned() -> None:
    """A tag can be moved, but a commit can't. The comment is for the person who updates it."""
    uses = [re.findall(r"uses: (.*)", path.read_text()) for path in WORKFLOWS]
    actions = [action for found in uses for action in found if not action.startswith("./")]
    assert len(actions) > 5
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[0-9.]+", action), action
