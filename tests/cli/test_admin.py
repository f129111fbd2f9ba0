"""The administrative commands, compared with `gearadmin` on the same server."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from gearman_sync import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    GearmanClient,
    JobServer,
)
from gearman_sync.testing import Gate, Peer, ScriptedServer, ScriptedWorker
from tests.peers import peers
from tests.peers.peers import gearadmin
from tests.support import PATIENCE, Gearmand, eventually, free_port, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Result,
    Running,
    address_of,
    command_line,
    gearmanctl,
    on_both,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import Server

    Launch = Callable[[], Server]
    StartServer = Callable[..., ScriptedServer]


@pytest.fixture
def busy(launch: Launch) -> Iterator[Server]:
    """A server with a running job, queued jobs of all priorities, and a function without jobs."""
    server = launch()
    with peers.busy(server.address):
        yield server


def said(server: Server, option: str) -> str:
    """Return the output of gearadmin without the final dot."""
    process = gearadmin(server.address, option)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.removesuffix(".\n")


# Lists.


@on_both
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("status",), "--status"),
        (("status", "--priority"), "--priority-status"),
        (("jobs",), "--show-jobs"),
        (("jobs", "--unique"), "--show-unique-jobs"),
        (("version",), "--server-version"),
    ],
)
def test_lines_are_those_of_gearadmin(busy: Server, words: tuple[str, ...], option: str) -> None:
    expected = said(busy, option)
    assert expected
    result = gearmanctl(*words, at=busy)
    assert (result.status, result.errors) == (DONE, "")
    # Backslashes are doubled, so that escapes are reversible.
    assert result.lines == sorted(expected.replace("\\", r"\\").splitlines())
    rows = json.loads(gearmanctl(*words, "--json", at=busy).output)
    assert {row.pop("server") for row in rows} == {address_of(busy)}
    values = [
        "\t".join(str(int(v) if isinstance(v, bool) else v) for v in row.values()) for row in rows
    ]
    assert sorted(values) == sorted(expected.splitlines())


@on_both
def test_workers_are_those_of_gearadmin(busy: Server) -> None:
    def without_number(line: str) -> str:
        return re.sub(r"^\d+ ", "", line).rstrip()

    result = gearmanctl("connections", at=busy)
    assert (result.status, result.errors) == (DONE, "")
    rows = [line.split("\t") for line in result.lines]
    assert {len(row) for row in rows} == {4}
    lines = [f"{number} {ip} {name} : {tasks}" for number, ip, name, tasks in rows]
    # Both outputs contain their own connection.
    expected = said(busy, "--workers").splitlines()
    assert sorted(map(without_number, lines)) == sorted(map(without_number, expected))
    assert any(set(row[3].split(" ")) == {"free", "held"} for row in rows)
    workers = gearmanctl("workers", at=busy)
    assert (workers.status, workers.errors) == (DONE, "")
    assert workers.lines == [line for line in result.lines if not line.endswith("\t")]


#: A server's reply to each command, unsorted, and the beginnings of the sorted lines.
UNSORTED = [
    (
        ("status",),
        "b\t0\t0\t1\nresize10\t0\t0\t1\na\t0\t0\t1\nresize9\t0\t0\t1\n",
        ["a", "b", "resize9", "resize10"],
    ),
    (
        ("connections",),
        "9 ::10 - : f\n11 ::9 w2 :\n8 ::9 w10 : f\n10 ::9 w2 : g\n7 ::9 w2 : g\n",
        [
            "11\t::9\tw2\t",
            "7\t::9\tw2\tg",
            "10\t::9\tw2\tg",
            "8\t::9\tw10\tf",
            "9\t::10\t-\tf",
        ],
    ),
    (
        ("jobs",),
        "H:h:10\t0\t0\t1\nH:g:11\t0\t0\t1\nH:h:9\t0\t0\t1\nH:h:" + "7" * 5000 + "\t0\t0\t1\n",
        ["H:g:11", "H:h:9", "H:h:10", "H:h:" + "7" * 5000],
    ),
]


@pytest.mark.parametrize(
    ("words", "reply", "lines"), UNSORTED, ids=[" ".join(words) for words, *_ in UNSORTED]
)
def test_unsorted_list_is_sorted(
    start_server: StartServer, words: tuple[str, ...], reply: str, lines: list[str]
) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.send_raw(reply.encode() + b".\n")
        peer.hold()

    server = start_server(script)
    result = gearmanctl(*words, at=server.address)
    assert (result.status, result.errors) == (DONE, "")
    assert all(line.startswith(start) for line, start in zip(result.lines, lines, strict=True))
    table = json.loads(gearmanctl(*words, "--json", at=server.address).output)
    assert [str([*row.values()][1]) for row in table] == [line.split("\t")[0] for line in lines]


def test_ping(server: Server) -> None:
    result = gearmanctl("ping", at=server)
    assert (result.status, result.errors) == (DONE, "")
    assert re.fullmatch(rb"\d\.\d{6}\n", result.output)
    (row,) = json.loads(gearmanctl("ping", "--json", at=server).output)
    assert list(row) == ["server", "seconds"]
    assert 0 < row["seconds"] < 10


# Commands.


@on_both
def test_cancel_removes_queued_jobs_and_reports_unknown_ones(launch: Launch, task: str) -> None:
    servers = (launch(), launch())
    cancelled, kept = (
        gearmanctl("submit", task, "", "-b", at=servers[1]).lines[0] for _ in range(2)
    )
    result = gearmanctl("cancel", cancelled, at=servers)
    assert result == Result(DONE, f"{address_of(servers[1])}\t{cancelled}\n".encode(), "")
    result = gearmanctl("cancel", "H:nowhere:1", kept, "--json", at=servers[1])
    assert result.status == FAILED
    assert [row["handle"] for row in json.loads(result.output)] == [kept]
    assert result.error == "H:nowhere:1: no server knows this job"


def test_cancel_of_an_unknown_job_shows_no_empty_table(server: Server) -> None:
    with Terminal(*command_line("cancel", "H:nowhere:1", at=server)) as terminal:
        assert terminal.wait_for_end() == FAILED
        assert terminal.text.strip() == "gearmanctl: H:nowhere:1: no server knows this job"


def test_maxqueue_limits_the_queue(server: Server, task: str) -> None:
    def submit(*priorities: str | None) -> list[bool]:
        jobs = [{"task": task, "data": b"", "priority": priority} for priority in priorities]
        requests = client.submit_multiple_jobs(jobs, background=True)
        return [request.error is None for request in requests]

    with GearmanClient([server.address]) as client:
        assert submit(None) == [True]
        assert gearmanctl("maxqueue", task, "2", at=server) == Result(DONE, b"OK\n", "")
        assert submit(None, None) == [True, False]
        # The limits of high, normal and low priority.
        result = gearmanctl("maxqueue", task, "3", "2", "0", "--json", at=server)
        assert json.loads(result.output) == [{"server": address_of(server), "reply": "OK"}]
        assert submit(None, PRIORITY_HIGH, PRIORITY_HIGH) == [False, True, False]
        assert submit(PRIORITY_LOW, PRIORITY_LOW) == [True, True]


def test_shutdown_of_gearmand_is_refused(gearmand: Gearmand) -> None:
    for words in (["shutdown"], ["shutdown", "--now"]):
        result = gearmanctl(*words, at=gearmand)
        assert (result.status, result.output) == (FAILED, b"")
        assert "gearmand has no such command" in result.error
    assert gearmand.admin("version")


@pytest.mark.parametrize("mode", [[], ["--now"]], ids=["graceful", "now"])
def test_shutdown_waits_for_jobs_unless_now(
    mode: list[str],
    start: Callable[..., Running],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    gate = Gate()
    with JobServer() as server:
        address = (server.address.host, server.address.port)
        start_worker(address, {"task": gate})
        running = start("submit", "task", "data", at=address)
        wait_for(gate.begun)
        assert gearmanctl("shutdown", *mode, at=address) == Result(DONE, b"OK\n", "")
        if not mode:
            gate.open.set()
        result = running.end()
        gate.open.set()
        assert (result.status, result.output) == ((NO_SERVER, b"") if mode else (DONE, b"data"))
        server.wait()


# Several servers.


def test_several_servers(launch: Launch) -> None:
    servers = (launch(), launch())
    for number, server in enumerate(servers):
        for _ in range(number + 1):
            assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    output = "".join(f"{address_of(s)}\ttask\t{n + 1}\t0\t0\n" for n, s in enumerate(servers))
    assert gearmanctl("status", at=servers) == Result(DONE, output.encode(), "")
    # A server that is given twice is queried once.
    assert gearmanctl("status", at=(servers[0],) * 2) == Result(DONE, b"task\t1\t0\t0\n", "")


@pytest.mark.parametrize("words", [("status",), ("ping",)], ids=" ".join)
def test_servers_that_are_down_are_reported(launch: Launch, words: tuple[str, ...]) -> None:
    server, *down = launch(), ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    for servers in ((server, down[0]), (down[0], server)):
        result = gearmanctl(*words, at=servers)
        assert result.status == NO_SERVER
        assert {line.split("\t")[0] for line in result.lines} == {address_of(server)}
        assert result.error.startswith(f"no server could be reached: {address_of(down[0])} ")
    result = gearmanctl(*words, "--json", at=(*down,))
    assert (result.status, result.output, result.errors.count("\n")) == (NO_SERVER, b"[]\n", 2)


# Bad servers.


def silent(peer: Peer) -> None:
    peer.rest()


def garbage(peer: Peer) -> None:
    peer.sock.recv(1000)
    peer.send_raw(b"\0RES garbage\n" * 100)
    peer.rest()


def closing(peer: Peer) -> None:
    peer.sock.recv(1000)


#: Commands for probes, see `test_probes`.
PROBES = [
    ("check",),
    ("job", "H:h:1"),
    ("job", "--unique", "u"),
    ("create", "f"),
    ("drop", "f"),
]


#: Also one command of each other kind: a list, a query, and an instruction to each server.
@pytest.mark.parametrize(
    "words", [*PROBES, ("status",), ("ping",), ("cancel", "H:h:1")], ids=" ".join
)
@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(silent, TIMED_OUT, marks=pytest.mark.slow),
        (garbage, NO_SERVER),
        (closing, NO_SERVER),
    ],
)
def test_server_without_a_right_answer_is_reported(
    start_server: StartServer, script: Callable[[Peer], None], status: int, words: tuple[str, ...]
) -> None:
    server = start_server(script)
    timeout = 1 if script is silent else PATIENCE
    result = gearmanctl(*words, "--timeout", str(timeout), at=server.address)
    assert (result.status, result.output) == (status, b"")
    assert address_of(server.address) in result.error


def test_ctrl_c_ends_a_pending_query(
    start_server: StartServer, start: Callable[..., Running]
) -> None:
    servers = [start_server(Peer.hold) for _ in range(2)]
    running = start("status", "--timeout", "1000", at=tuple(each.address for each in servers))
    eventually(lambda: all(any(peer.events for peer in each.peers) for each in servers))
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")
