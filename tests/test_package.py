"""The metadata of a release is consistent. `.ci/run` checks the distributions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

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


def test_top_level_has_no_surplus_files() -> None:
    """The top level shows the parts of the project, and no files that only tools need."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    there = {name.split("/")[0] for name in files.stdout.splitlines() if not name.startswith(".")}
    packages = {"gearman_proto", "gearman_sync", "gearman_anyio"}
    rooms = {"tests", "fuzz", "bench", "docs", "examples"}
    pages = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    assert there == packages | rooms | pages | {"pyproject.toml", "LICENSE", "CITATION.cff"}


def test_actions_are_pinned() -> None:
    """A tag can be moved, but a commit can't. The comment is for the person who updates it."""
    uses = [re.findall(r"uses: (.*)", path.read_text()) for path in WORKFLOWS]
    actions = [action for found in uses for action in found if not action.startswith("./")]
    assert len(actions) > 5
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[0-9.]+", action), action
