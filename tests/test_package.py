"""The metadata of a release is consistent. `.ci/run` checks the distributions."""

from __future__ import annotations

import re
from pathlib import Path

from gearman_proto import __version__

ROOT = Path(__file__).parent.parent


def test_version_and_date_match_the_changelog() -> None:
    heading = re.search(r"^## (\d.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = dict(
        re.findall(r"^([\w-]+): (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    )
    assert heading is not None
    assert heading[1] == f"{__version__} ({citation['date-released']})"
    assert citation["version"] == __version__
