"""`gearadmin` prints the same for both servers with the same clients, workers and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Both

pytestmark = pytest.mark.usefixtures("no_hang")

LISTS = {
    "--status": ".\nfree\t0\t0\t1\nheld\t2\t1\t1\nidle\t4\t0\t0\n",
    "--priority-status": ".\nfree\t0\t0\t0\t1\nheld\t0\t1\t0\t1\nidle\t2\t1\t1\t0\n",
    # The connections of gearadmin, of the client and of the worker.
    "--workers": ".\nFD ADDRESS - :\nFD ADDRESS - :\nFD ADDRESS - : free held\n",
    "--show-jobs": ".\n" + 6 * "HANDLE\t0\t0\t1\n",
    "--show-unique-jobs": ".\na\\b\nhigh 1\nhigh 2\nlow\nnormal\nrunning\n",
}


def test_lists(busy: Both) -> None:
    for option, output in LISTS.items():
        assert busy.ask(option) == (0, output, "")


def test_functions(busy: Both) -> None:
    assert busy.ask("--create-function", "made") == (0, "OK\n", "")
    assert "made\t0\t0\t0\n" in busy.ask("--status")[1]
    assert busy.ask("--create-function", "made") == (0, "OK\n", "")
    assert busy.ask("--drop-function", "made") == (0, "OK\n", "")
    assert "made" not in busy.ask("--status")[1]
    assert busy.ask("--drop-function", "made") == (0, "", "Error: function not found\n")
    code, output, error = busy.ask("--drop-function", "held")
    assert (code, output) == (0, "")
    assert "still connected workers" in error
    assert "held\t2\t1\t1\n" in busy.ask("--status")[1]


def test_cancel_unknown_job(both: Both) -> None:
    assert both.ask("--cancel-job", "H:nowhere:1") == (0, "", "Error: UNKNOWN_JOB\n")
