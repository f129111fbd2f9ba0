"""The error message when anyio or one of its dependencies is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def last_line(hidden: str) -> str:
    """Return the last line that ``import gearman_anyio`` prints without the module `hidden`."""
    program = f"import sys; sys.modules[{hidden!r}] = None; import gearman_anyio"
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    return ended.stderr.splitlines()[-1]


def test_import_without_anyio_says_what_to_install() -> None:
    assert last_line("anyio") == (
        "ModuleNotFoundError: gearman_anyio needs anyio, which is not installed: "
        "pip install 'gearman-sansio[anyio]', or pip install anyio"
    )


@pytest.mark.parametrize("hidden", ["anyio.abc", "gearman_proto.tls"])
def test_import_without_another_module_raises_its_own_error(hidden: str) -> None:
    """Python's own error is shown if another module is missing."""
    said = last_line(hidden)
    assert hidden in said
    assert "needs anyio" not in said
