"""``gearmanctl check``, ``wait``, ``job``, ``create`` and ``drop``."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from gearman_proto import FunctionStatus, ServerAddress, ServerUnavailable
from gearman_sync.cli.check import judge
from gearman_sync.cli.functions import reason_not_to_drop
from gearman_sync.testing import Gate, Peer, ScriptedJob
from tests.support import eventually, free_port, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Queue,
    Result,
    Running,
    address_of,
    gearmanctl,
    on_both,
)
from .test_admin import PROBES, closing, garbage, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearman_proto import GearmanError
    from gearman_sync.testing import ScriptedServer

    from .support import Server

    StartServer = Callable[..., ScriptedServer]

A, B = ServerAddress("a", 1), ServerAddress("b", 2)
DOWN = ServerUnavailable("b:2 is down")
BUSY = [FunctionStatus("f", 5, 2, 2), FunctionStatus("g", 9, 0, 0)]


@pytest.mark.parametrize(
    ("answers", "task", "workers", "waiting", "expected"),
    [
        ([(A, [])], None, 1, None, (DONE, "servers: 1")),
        ([(A, []), (B, DOWN)], None, 1, None, (NO_SERVER, "b:2 is down")),
        ([(A, BUSY)], "f", 2, 3, (DONE, "servers: 1  workers: 2  waiting jobs: 3")),
        ([(A, BUSY), (B, BUSY)], "f", 1, 3, (DONE, "servers: 2  workers: 4  waiting jobs: 6")),
        ([(A, BUSY)], "f", 3, None, (FAILED, "a:1: f has too few workers (2)")),
        ([(A, BUSY)], "F", 1, None, (FAILED, "a:1: F has too few workers (0)")),
        ([(A, BUSY)], "f", 1, 2, (FAILED, "a:1: f has too many waiting jobs (3)")),
        (
            [(A, BUSY), (B, DOWN)],
            *("g", 1, 0),
            (
                NO_SERVER,
                "a:1: g has too few workers (0); a:1: g has too many waiting jobs (9); b:2 is down",
            ),
        ),
    ],
)
def test_check_judges_each_server(
    answers: Sequence[tuple[ServerAddress, Sequence[FunctionStatus] | GearmanError]],
    task: str | None,
    workers: int,
    waiting: int | None,
    expected: tuple[int, str],
) -> None:
    assert judge(answers, task, workers, waiting) == expected


@on_both
def test_check_of_a_server(queue: Queue) -> None:
    at = queue.server
    assert gearmanctl("check", at=at) == Result(DONE, b"servers: 1\n", "")
    result = gearmanctl("check", queue.task, at=at)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == f"{address_of(at)}: {queue.task} has too few workers (0)"
    gate = Gate()
    queue.do(gate)
    for _ in range(3):
        assert queue.submit("", "-b").status == DONE
    wait_for(gate.begun)
    result = gearmanctl("check", queue.task, "--max-waiting", 2, at=at)
    assert result == Result(DONE, b"servers: 1  workers: 1  waiting jobs: 2\n", "")
    result = gearmanctl("check", queue.task, "--max-waiting", 1, at=at)
    assert (result.status, result.output) == (FAILED, b"")
    gate.open.set()
    queue.wait_for(0)


@pytest.mark.parametrize("words", PROBES, ids=" ".join)
def test_servers_that_are_down_are_reported(words: tuple[str, ...]) -> None:
    nowhere = ("127.0.0.1", free_port())
    result = gearmanctl(*words, at=nowhere)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert address_of(nowhere) in result.error


# Waiting for servers.


@on_both
def test_wait_ends_when_all_servers_answer(
    launch: Callable[[], Server], start: Callable[..., Running]
) -> None:
    servers = (launch(), launch())
    servers[1].kill()
    result = gearmanctl("wait", "--timeout", 0, at=servers[1])
    assert (result.status, result.output) == (TIMED_OUT, b"")
    assert result.error == f"no answer within 0 s: {address_of(servers[1])}"
    running = start("wait", at=servers)
    servers[1].start()
    assert running.end() == Result(DONE, b"", "")


@pytest.mark.slow
@pytest.mark.parametrize("script", [silent, garbage, closing])
def test_wait_for_a_bad_server_times_out(
    start_server: StartServer, script: Callable[[Peer], None]
) -> None:
    server = start_server(script)
    result = gearmanctl("wait", "--timeout", 1, at=server.address)
    assert (result.status, result.output) == (TIMED_OUT, b"")
    assert result.error == f"no answer within 1 s: {address_of(server.address)}"


def test_ctrl_c_ends_wait(start_server: StartServer, start: Callable[..., Running]) -> None:
    servers = [start_server(Peer.hold) for _ in range(2)]
    running = start("wait", "--timeout", "inf", at=tuple(each.address for each in servers))
    eventually(lambda: all(any(peer.events for peer in each.peers) for each in servers))
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")


# One job.


@on_both
def test_job_is_shown_where_it_is(launch: Callable[[], Server]) -> None:
    servers = (launch(), launch())
    handle = gearmanctl("submit", "f", "", "-b", "-u", "name", at=servers[1]).lines[0]
    name = address_of(servers[1])
    result = gearmanctl("job", handle, at=servers)
    assert result == Result(DONE, f"{name}\t0\t0\t0\n".encode(), "")
    result = gearmanctl("job", "--unique", "name", at=servers)
    assert result == Result(DONE, f"{name}\t0\t0\t0\t0\n".encode(), "")
    for words in (["H:no:1"], ["--unique", "other"]):
        result = gearmanctl("job", *words, at=servers)
        assert result == Result(FAILED, b"", f"gearmanctl: {words[-1]}: no server knows this job\n")
    servers[0].kill()
    result = gearmanctl("job", handle, at=servers)
    assert (result.status, result.lines) == (NO_SERVER, [f"{name}\t0\t0\t0"])
    assert address_of(servers[0]) in result.error


@on_both
def test_job_shows_progress(queue: Queue) -> None:
    gate = Gate()

    def work(job: ScriptedJob) -> bytes:
        job.send_status(3, 10)
        return gate(job)

    queue.do(work)
    handle = queue.submit("", "-b").lines[0]
    wait_for(gate.begun)
    row = {"running": True, "numerator": 3, "denominator": 10}
    at = address_of(queue.server)

    def rows() -> object:
        return json.loads(gearmanctl("job", handle, "--json", at=queue.server).output)

    eventually(lambda: rows() == [{"server": at, **row}], "the progress")
    gate.open.set()
    eventually(lambda: rows() == [], "the end of the job")


# Functions.


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ([], None),
        ([FunctionStatus("f", 0, 0, 1), FunctionStatus("g", 7, 0, 0)], None),
        ([FunctionStatus("f", 2, 0, 0)], "f still has jobs (2), which would never run"),
        (
            [FunctionStatus("f", 0, 0, 0), FunctionStatus("F", 2, 0, 0)],
            "F still has jobs (2), which would never run",
        ),
        ([FunctionStatus("f", 0, 0, 0), FunctionStatus("F", 0, 0, 0)], None),
        ([FunctionStatus("F", 0, 0, 0)], "gearmand would drop F, as it ignores the case of f"),
    ],
)
def test_reason_not_to_drop(functions: list[FunctionStatus], reason: str | None) -> None:
    assert reason_not_to_drop("f", functions) == reason


@on_both
def test_functions_are_created_and_dropped(queue: Queue) -> None:
    at, task = queue.server, queue.task
    assert gearmanctl("create", task, at=at) == Result(DONE, b"OK\n", "")
    assert f"{task}\t0\t0\t0" in gearmanctl("status", at=at).lines
    assert queue.submit("", "-b").status == DONE
    result = gearmanctl("drop", task, at=at)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == (
        f"{address_of(at)}: {task} still has jobs (1), which would never run; "
        "--force drops it nevertheless"
    )
    assert queue.counts == (1, 0, 0)
    queue.do(lambda job: b"")
    queue.wait_for(0)


@on_both
def test_drop_removes_a_function_without_jobs(launch: Callable[[], Server]) -> None:
    server = launch()
    for words in ((), ("--force",)):
        assert gearmanctl("create", "f", at=server).status == DONE
        assert gearmanctl("drop", "f", *words, at=server) == Result(DONE, b"OK\n", "")
        assert gearmanctl("status", at=server) == Result(DONE, b"", "")
    result = gearmanctl("drop", "f", at=server)
    assert (result.status, result.error) == (
        FAILED,
        f"{address_of(server)}: ERR: function not found",
    )
    # Only gearmand drops a function with queued jobs.
    assert gearmanctl("submit", "f", "", "-b", at=server).status == DONE
    result = gearmanctl("drop", "f", "--force", at=server)
    is_gearmand = type(server).__name__ == "Gearmand"
    assert result.status == (DONE if is_gearmand else FAILED)
