"""The administrative commands, compared with `gearadmin` on the same server."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
    GearmanAdminClient,
    GearmanClient,
)
from gearman_sync.testing import Gate, Peer, ScriptedServer, ScriptedWorker, echo
from tests.peers.peers import gearadmin
from tests.support import Gearmand, eventually, free_port, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    USAGE,
    Result,
    Running,
    address_of,
    gearmanctl,
    is_alive,
    on_both,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import Server

    Launch = Callable[[], Server]
    StartServer = Callable[..., ScriptedServer]


def unique_jobs(client: GearmanAdminClient) -> list[dict[str, str]]:
    return [{"unique": unique} for unique in client.get_unique_jobs()]


#: The commands that list something, and the corresponding method of the admin client.
LISTS: dict[tuple[str, ...], Callable[[GearmanAdminClient], Any]] = {
    ("status",): GearmanAdminClient.get_status,
    ("status", "--priority"): GearmanAdminClient.get_priority_status,
    ("workers",): GearmanAdminClient.get_workers,
    ("jobs",): GearmanAdminClient.get_jobs,
    ("jobs", "--unique"): unique_jobs,
}
#: One command of each kind: a list, a query of each server, and an instruction to each server.
COMMANDS = [("status",), ("ping",), ("cancel", "H:h:1")]


@pytest.fixture
def busy(launch: Launch) -> Iterator[Server]:
    """A server with a running job, queued jobs of all priorities, and a function without jobs."""
    server = launch()
    gate = Gate()
    worker = ScriptedWorker(server.address, {"held": gate, "free": echo})
    with GearmanClient([server.address]) as client:

        def submit(task: str, unique: str, **kwargs: Any) -> None:
            client.submit_job(task, b"data", unique, background=True, **kwargs)

        submit("held", "running")
        wait_for(gate.begun, "the start of a job")
        submit("held", "queued")
        submit("idle", "normal", priority=PRIORITY_NONE)
        submit("idle", "high", priority=PRIORITY_HIGH)
        submit("idle", "low", priority=PRIORITY_LOW)
    yield server
    gate.open.set()
    worker.stop()


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
    assert result.lines == sorted(expected.splitlines())


@on_both
def test_workers_are_those_of_gearadmin(busy: Server) -> None:
    def without_number(line: str) -> str:
        return re.sub(r"^\d+ ", "", line).rstrip()

    eventually(lambda: said(busy, "--workers").count("\n") == 2, "the end of a client")
    result = gearmanctl("workers", at=busy)
    assert (result.status, result.errors) == (DONE, "")
    rows = [line.split("\t") for line in result.lines]
    assert {len(row) for row in rows} == {4}
    lines = [f"{number} {ip} {name} : {tasks}" for number, ip, name, tasks in rows]
    # Both outputs contain their own connection.
    expected = said(busy, "--workers").splitlines()
    assert sorted(map(without_number, lines)) == sorted(map(without_number, expected))
    assert any(set(row[3].split(" ")) == {"free", "held"} for row in rows)


@pytest.mark.parametrize("words", LISTS)
def test_lists_as_json(busy: Server, words: tuple[str, ...]) -> None:
    with GearmanAdminClient([busy.address]) as client:
        expected: Any = [{"server": address_of(busy), **row} for row in LISTS[words](client)]
    result = gearmanctl(*words, "--json", at=busy)
    assert (result.status, result.errors) == (DONE, "")
    rows = json.loads(result.output)
    if words == ("workers",):
        # The order of functions is undefined, and JSON has lists instead of tuples.
        for row in (*rows, *expected):
            row["tasks"] = sorted(row["tasks"])
        rows = [row for row in rows if row["tasks"]]
        expected = [row for row in expected if row["tasks"]]
        assert len(rows) == 1
    else:
        expected.sort(key=lambda row: row.get("task") or row.get("handle") or row["unique"])
    assert rows == expected


#: A server's reply to each command, unsorted, and the beginnings of the sorted lines.
UNSORTED = [
    (
        ("status",),
        "b\t0\t0\t1\nresize10\t0\t0\t1\na\t0\t0\t1\nresize9\t0\t0\t1\n",
        ["a", "b", "resize9", "resize10"],
    ),
    (
        ("status", "--priority"),
        "b\t0\t0\t0\t1\nB\t0\t0\t0\t1\na\t0\t0\t0\t1\n",
        ["B", "a", "b"],
    ),
    (
        ("workers",),
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
    (("jobs", "--unique"), "u-2\nu\nu-02\nu-1\n", ["u", "u-1", "u-2", "u-02"]),
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
    assert len(result.lines) == len(lines)
    assert all(line.startswith(start) for line, start in zip(result.lines, lines))
    table = json.loads(gearmanctl(*words, "--json", at=server.address).output)
    assert [str([*row.values()][1]) for row in table] == [line.split("\t")[0] for line in lines]


@pytest.mark.parametrize("words", [words for words in LISTS if words != ("workers",)])
def test_empty_list_has_no_lines(launch: Launch, words: tuple[str, ...]) -> None:
    server = launch()
    assert gearmanctl(*words, at=server) == Result(DONE, b"", "")
    assert gearmanctl(*words, "--json", at=server) == Result(DONE, b"[]\n", "")


@on_both
def test_field_with_separators_is_escaped(launch: Launch) -> None:
    server = launch()
    with GearmanClient([server.address]) as client:
        client.submit_job("task", b"", "a\\b\tc\rd", background=True)
    # JobServer does not send these bytes as they are.
    escaped, sent = (
        ("a\\\\b\\tc\\rd", "a\\b\tc\rd")
        if isinstance(server, Gearmand)
        else ("a\\\\b?c?d", "a\\b?c?d")
    )
    assert gearmanctl("jobs", "--unique", at=server) == Result(DONE, f"{escaped}\n".encode(), "")
    (row,) = json.loads(gearmanctl("jobs", "--unique", "--json", at=server).output)
    assert row["unique"] == sent


# Single values.


def test_version_as_json(server: Server) -> None:
    result = gearmanctl("version", "--json", at=server)
    (row,) = json.loads(result.output)
    assert row == {"server": address_of(server), "version": said(server, "--server-version")[:-1]}


def test_ping(server: Server) -> None:
    result = gearmanctl("ping", at=server)
    assert (result.status, result.errors) == (DONE, "")
    assert re.fullmatch(rb"\d\.\d{6}\n", result.output)
    (row,) = json.loads(gearmanctl("ping", "--json", at=server).output)
    assert list(row) == ["server", "seconds"]
    assert 0 < row["seconds"] < 10


# Commands.


def test_cancel_queued_job_removes_it(
    server: Server,
    task: str,
    start: Callable[..., Running],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    running = start("submit", task, "cancelled", at=server)
    server.wait_for_jobs(task, 1)
    (handle,) = gearmanctl("submit", task, "kept", "-b", at=server).lines
    handles = [line.split("\t")[0] for line in gearmanctl("jobs", at=server).lines]
    with GearmanAdminClient([server.address]) as client:
        before = [row.handle for row in client.get_jobs()]
    assert sorted(handles) == sorted(before)
    # A shared gearmand might have jobs of other tests.
    others = [h for h in handles if h != handle]
    number = handle.rpartition(":")[2]
    before_it = f":{int(number) - 1:0{len(number)}}"
    (cancelled,) = (h for h in others if h.endswith(before_it))
    assert gearmanctl("cancel", cancelled, at=server) == Result(DONE, f"{cancelled}\n".encode(), "")
    result = running.end()
    assert (result.status, result.output, result.error) == (FAILED, b"", "the job failed")
    worker = start_worker(server.address, {task: echo})
    eventually(lambda: worker.order == [b"kept"])


@on_both
def test_cancel_unknown_job_fails(server: Server, task: str) -> None:
    result = gearmanctl("cancel", "H:nowhere:1", at=server)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == "H:nowhere:1: no server knows this job"


def test_cancel_some_unknown_jobs_fails(server: Server, task: str) -> None:
    handles = [gearmanctl("submit", task, "", "-b", at=server).lines[0] for _ in range(2)]
    result = gearmanctl("cancel", handles[0], "H:nowhere:1", handles[1], "--json", at=server)
    assert result.status == FAILED
    assert [row["handle"] for row in json.loads(result.output)] == handles
    assert result.error == "H:nowhere:1: no server knows this job"


def test_cancel_with_several_servers_asks_each(launch: Launch) -> None:
    servers = (launch(), launch())
    (handle,) = gearmanctl("submit", "task", "", "-b", at=servers[1]).lines
    # The first server might have a job with the same number, but not with the same handle.
    result = gearmanctl("cancel", handle, at=servers)
    assert (result.status, result.errors) == (DONE, "")
    assert f"{address_of(servers[1])}\t{handle}" in result.lines


def test_maxqueue_limits_the_queue(server: Server, task: str) -> None:
    def submit(*priorities: str | None) -> list[bool]:
        jobs = [{"task": task, "data": b"", "priority": priority} for priority in priorities]
        requests = client.submit_multiple_jobs(jobs, background=True)
        return [request.error is None for request in requests]

    with GearmanClient([server.address]) as client:
        assert submit(PRIORITY_NONE) == [True]
        assert gearmanctl("maxqueue", task, "2", at=server) == Result(DONE, b"OK\n", "")
        assert submit(PRIORITY_NONE, PRIORITY_NONE) == [True, False]
        result = gearmanctl("maxqueue", task, "3", "2", "0", "--json", at=server)
        assert json.loads(result.output) == [{"server": address_of(server), "reply": "OK"}]
        # All jobs count, regardless of their priority.
        assert submit(PRIORITY_NONE, PRIORITY_HIGH, PRIORITY_HIGH) == [False, True, False]
        assert submit(PRIORITY_LOW, PRIORITY_LOW) == [True, True]
        assert gearmanctl("maxqueue", task, "0", at=server).status == DONE
        assert submit(PRIORITY_NONE, PRIORITY_HIGH) == [True, True]


def test_shutdown_of_gearmand_is_refused(gearmand: Gearmand) -> None:
    for words in (["shutdown"], ["shutdown", "--now"]):
        result = gearmanctl(*words, at=gearmand)
        assert (result.status, result.output) == (FAILED, b"")
        assert "gearmand 1.1 has no such command" in result.error
    assert gearmand.admin("version")
    assert gearmand.process is not None
    assert is_alive(gearmand.process.pid)


@pytest.mark.parametrize("mode", [[], ["--now"]], ids=["graceful", "now"])
def test_shutdown_ends_job_server(
    run_serve: Callable[..., tuple[Running, tuple[str, int]]], mode: list[str]
) -> None:
    running, address = run_serve()
    assert gearmanctl("shutdown", *mode, at=address) == Result(DONE, b"OK\n", "")
    assert running.end().status == DONE
    assert gearmanctl("ping", at=address).status == NO_SERVER


def test_graceful_shutdown_waits_for_jobs(
    run_serve: Callable[..., tuple[Running, tuple[str, int]]],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    running, address = run_serve()
    gate = Gate()
    start_worker(address, {"task": gate})
    with GearmanClient([address]) as client:
        request = client.submit_job("task", b"data", wait_until_complete=False)
        wait_for(gate.begun)
        assert gearmanctl("shutdown", at=address).status == DONE
        assert running.process.poll() is None
        gate.open.set()
        client.wait_until_jobs_completed([request])
        assert request.result == b"data"
    assert running.end().status == DONE


# Several servers.


def test_several_servers(launch: Launch) -> None:
    servers = (launch(), launch())
    for number, server in enumerate(servers):
        for _ in range(number + 1):
            assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    output = "".join(f"{address_of(s)}\ttask\t{n + 1}\t0\t0\n" for n, s in enumerate(servers))
    assert gearmanctl("status", at=servers) == Result(DONE, output.encode(), "")
    rows = json.loads(gearmanctl("status", "--json", at=servers).output)
    assert [(row["server"], row["queued"]) for row in rows] == [
        (address_of(servers[0]), 1),
        (address_of(servers[1]), 2),
    ]


@pytest.mark.parametrize("words", [("status",), ("ping",)], ids=" ".join)
def test_one_of_several_servers_down_is_reported(launch: Launch, words: tuple[str, ...]) -> None:
    server, down = launch(), ("127.0.0.1", free_port())
    assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    for servers in ((server, down), (down, server)):
        result = gearmanctl(*words, at=servers)
        assert result.status == NO_SERVER
        assert {line.split("\t")[0] for line in result.lines} == {address_of(server)}
        assert result.error.startswith(f"no server could be reached: {address_of(down)} ")


def test_several_servers_down_are_reported() -> None:
    servers = [("127.0.0.1", free_port()) for _ in range(2)]
    result = gearmanctl("status", at=(*servers,))
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.errors.count("\n") == 2
    assert json.loads(gearmanctl("status", "--json", at=(*servers,)).output) == []


def test_server_given_twice_is_queried_once(server: Server) -> None:
    result = gearmanctl("version", at=(server, server))
    assert len(result.lines) == 1
    assert "\t" not in result.lines[0]


# Bad servers.


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_silent_server_times_out(start_server: StartServer, words: tuple[str, ...]) -> None:
    def script(peer: Peer) -> None:
        while peer.sock.recv(1000):
            pass

    server = start_server(script)
    result = gearmanctl(*words, "--timeout", "1", at=server.address)
    assert (result.status, result.output) == (TIMED_OUT, b"")
    assert address_of(server.address) in result.error


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_server_of_another_protocol_is_reported(
    start_server: StartServer, words: tuple[str, ...]
) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send_raw(b"\0RES garbage\n" * 100)
        while peer.sock.recv(1000):
            pass

    server = start_server(script)
    result = gearmanctl(*words, "--timeout", "5", at=server.address)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert address_of(server.address) in result.error


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_server_that_disconnects_is_reported(
    start_server: StartServer, words: tuple[str, ...]
) -> None:
    server = start_server(lambda peer: peer.sock.recv(1000))
    result = gearmanctl(*words, at=server.address)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert address_of(server.address) in result.error


def test_ctrl_c_ends_a_pending_query(
    start_server: StartServer, start: Callable[..., Running]
) -> None:
    def script(peer: Peer) -> None:
        while peer.sock.recv(1000):
            asked.append(peer)

    asked: list[Peer] = []
    servers = tuple(start_server(script).address for _ in range(2))
    running = start("status", "--timeout", "1000", at=servers)
    eventually(lambda: len(asked) == 2, "two questions")
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("maxqueue", "task"), "SIZE"),
        (("maxqueue", "task", "many"), "SIZE"),
        (("maxqueue", "task", "1", "2"), "one number or three"),
        (("maxqueue", "--", "task", "-1"), "-1"),
        (("maxqueue", "two words", "1"), "two words"),
        (("cancel",), "HANDLE"),
        (("cancel", "two words"), "two words"),
        (("status", "--timeout", "-1"), "--timeout"),
        (("status", "task"), "task"),
    ],
)
def test_wrong_command_line_is_a_usage_error(words: tuple[str, ...], reason: str) -> None:
    result = gearmanctl(*words, at=("127.0.0.1", 1))
    assert (result.status, result.output) == (USAGE, b"")
    assert reason in result.error
