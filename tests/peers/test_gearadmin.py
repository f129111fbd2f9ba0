"""`gearadmin` prints the same for both servers with the same clients, workers and jobs."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE, GearmanClient
from gearman_sync.testing import Gate, ScriptedWorker, echo
from tests.peers.peers import SERVERS, gearadmin
from tests.support import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.peers import Address

pytestmark = pytest.mark.usefixtures("no_hang")

#: The parts to compare: return code, standard output and standard error.
Said = tuple[int, str, str]


class Both:
    """A gearmand and a JobServer with the same contents."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses = addresses

    def ask(self, *options: str) -> Said:
        """Run `gearadmin` with both servers and return both outputs; lists are sorted."""
        expected, actual = (self._ask(address, options) for address in self.addresses)
        assert actual == expected
        return actual

    @staticmethod
    def _ask(address: Address, options: tuple[str, ...]) -> Said:
        process = gearadmin(address, *options)
        lines = process.stdout.splitlines(keepends=True)
        return process.returncode, "".join(sorted(map(_without_numbers, lines))), process.stderr


def _without_numbers(line: str) -> str:
    """Return a line without its handle, or its file descriptor and address."""
    line = re.sub(r"^H:[!-~]+:\d+(?=\t)", "HANDLE", line)
    return re.sub(r"^\d+ 127\.0\.0\.1 ", "FD ADDRESS ", line)


@pytest.fixture
def both() -> Iterator[Both]:
    """Both servers, empty."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for start in SERVERS.values():
            server = start()
            stack.callback(server.kill)
            addresses.append(server.address)
        yield Both(*addresses)


@pytest.fixture
def busy(both: Both) -> Iterator[Both]:
    """Both servers with a running job, queued jobs of all priorities, and an idle function."""
    with contextlib.ExitStack() as stack:
        for address in both.addresses:
            client = stack.enter_context(GearmanClient([address]))

            def submit(
                task: str, unique: str, client: GearmanClient = client, **kwargs: Any
            ) -> None:
                client.submit_job(task, b"data", unique, background=True, **kwargs)

            gate = Gate()
            worker = ScriptedWorker(address, {"held": gate, "free": echo})
            stack.callback(worker.stop)
            stack.callback(gate.open.set)
            submit("held", "running")
            wait_for(gate.begun, "the start of a job")
            submit("held", "queued")
            submit("idle", "normal", priority=PRIORITY_NONE)
            submit("idle", "high 1", priority=PRIORITY_HIGH)
            submit("idle", "high 2", priority=PRIORITY_HIGH)
            submit("idle", "low", priority=PRIORITY_LOW)
        yield both


LISTS = {
    "--status": ".\nfree\t0\t0\t1\nheld\t2\t1\t1\nidle\t4\t0\t0\n",
    "--priority-status": ".\nfree\t0\t0\t0\t1\nheld\t0\t1\t0\t1\nidle\t2\t1\t1\t0\n",
    # The connections of gearadmin, of the client and of the worker.
    "--workers": ".\nFD ADDRESS - :\nFD ADDRESS - :\nFD ADDRESS - : free held\n",
    "--show-jobs": ".\n" + 6 * "HANDLE\t0\t0\t1\n",
    "--show-unique-jobs": ".\nhigh 1\nhigh 2\nlow\nnormal\nqueued\nrunning\n",
}


def test_lists(busy: Both) -> None:
    for option, output in LISTS.items():
        assert busy.ask(option) == (0, output, "")


def test_empty_lists_are_equal(both: Both) -> None:
    for option in LISTS:
        own = "FD ADDRESS - :\n" if option == "--workers" else ""
        assert both.ask(option) == (0, f".\n{own}", "")


def test_words(both: Both) -> None:
    for option, pattern in (
        ("--server-version", r"\S+\n"),
        ("--server-verbose", r"[A-Z]+\n"),
        ("--getpid", r"\d+\n"),
    ):
        for address in both.addresses:
            process = gearadmin(address, option)
            assert (process.returncode, process.stderr) == (0, "")
            assert re.fullmatch(pattern, process.stdout)
    assert gearadmin(both.addresses[1], "--getpid").stdout == f"{os.getpid()}\n"


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
