"""Our admin client agrees with `gearadmin` and pygearman, and works with gear's server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gearman_anyio import GearmanAdminClient as AwaitedAdminClient
from gearman_proto.errors import InvalidAdminClientState, ServerError
from gearman_sync import GearmanAdminClient, GearmanClient, GearmanWorker
from tests.peers.peers import ROOT, SERVERS, gearadmin
from tests.peers.test_gearadmin import both, busy  # noqa: F401 - fixtures
from tests.support import PATIENCE, PortProgram, eventually, free_port, require_module, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.peers.peers import Address
    from tests.peers.test_gearadmin import Both

pytestmark = pytest.mark.usefixtures("no_hang")

each_server = pytest.mark.parametrize("number", range(2), ids=list(SERVERS))

#: `gearadmin`'s option, our method, and a function from a record to a line of the server's list.
LISTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "--status": ("get_status", lambda r: f"{r.task}\t{r.queued}\t{r.running}\t{r.workers}"),
    "--priority-status": (
        "get_priority_status",
        lambda r: f"{r.task}\t{r.high}\t{r.normal}\t{r.low}\t{r.workers}",
    ),
    "--workers": (
        "get_workers",
        lambda r: f"FD {r.ip} {r.client_id} :{''.join(f' {task}' for task in r.tasks)}",
    ),
    "--show-jobs": (
        "get_jobs",
        lambda r: f"{r.handle}\t{r.retries}\t{r.ignored:d}\t{r.queued:d}",
    ),
    "--show-unique-jobs": ("get_unique_jobs", str),
}


@each_server
def test_lists_as_gearadmin_prints_them(busy: Both, number: int) -> None:  # noqa: F811
    address = busy.addresses[number]

    def theirs(option: str) -> list[str]:
        lines = gearadmin(address, option).stdout.splitlines()
        assert lines.pop() == "."
        if option == "--workers":
            lines = [f"FD {line.split(' ', 1)[1]}" for line in lines]
        return sorted(lines)

    def ours(name: str, line_of: Callable[[Any], str]) -> list[str]:
        with GearmanAdminClient([address]) as client:
            return sorted(map(line_of, getattr(client, name)()))

    for option, (name, line_of) in LISTS.items():
        seen: list[list[str]] = []

        def are_the_same() -> bool:
            # Recently closed connections may still be among the workers.
            seen[:] = [theirs(option), ours(name, line_of)]  # noqa: B023 - called at once
            return seen[0] == seen[1]  # noqa: B023 - as above

        eventually(are_the_same, f"the same list, {seen},")
        assert len(seen[0]) >= 3


@each_server
def test_words_as_gearadmin_prints_them(both: Both, number: int) -> None:  # noqa: F811
    address = both.addresses[number]
    with GearmanAdminClient([address]) as client:
        assert f"{client.get_version()}\n" == f"OK {gearadmin(address, '--server-version').stdout}"
        assert f"{client.get_verbosity()}\n" == gearadmin(address, "--server-verbose").stdout
        assert f"{client.get_pid()}\n" == gearadmin(address, "--getpid").stdout


@each_server
def test_refusals_as_gearadmin_prints_them(busy: Both, number: int) -> None:  # noqa: F811
    address = busy.addresses[number]
    with GearmanAdminClient([address]) as client:
        for option, name, argument in (
            ("--drop-function", "drop_function", "nobody"),
            ("--drop-function", "drop_function", "held"),
            ("--cancel-job", "cancel_job", "H:nowhere:1"),
        ):
            with pytest.raises(ServerError) as caught:
                getattr(client, name)(argument)
            error = caught.value
            words = error.text if error.code == "ERR" else error.code
            assert gearadmin(address, option, argument).stderr == f"Error: {words}\n"


@each_server
def test_records_as_pygearman_has_them(busy: Both, number: int) -> None:  # noqa: F811
    require_module("gearman")
    host, port = busy.addresses[number]
    process = subprocess.run(
        [sys.executable, "-m", "tests.peers.pygearman_admin", host, str(port)],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    theirs = json.loads(process.stdout)
    with GearmanAdminClient([(host, port)]) as client:
        assert sorted(theirs["get_status"], key=str) == sorted(
            [dict(record) for record in client.get_status()], key=str
        )
        # pygearman has the socket's number as text.
        (their_worker,) = (each for each in theirs["get_workers"] if each["tasks"])
        (our_worker,) = (record for record in client.get_workers() if record.tasks)
        assert their_worker == {
            **our_worker,
            "file_descriptor": str(our_worker.file_descriptor),
            "tasks": list(our_worker.tasks),
        }
        assert theirs["get_version"] == client.get_version()
        assert theirs["get_pid"] == f"OK {client.get_pid()}"


# gear's server has `status`, `workers` and `cancel job`. It drops other commands silently.


@pytest.fixture
def gear() -> Iterator[Address]:
    require_module("gear")
    script = Path(__file__).parents[1] / "conformance" / "peers" / "gear_server.py"
    host, port = "127.0.0.1", free_port()
    program = PortProgram(host, port, sys.executable, str(script), f"{host}:{port}")
    try:
        program.start()
        yield host, port
    finally:
        program.kill()


def test_commands_of_gears_server_return_replies(gear: Address) -> None:
    with GearmanAdminClient([gear]) as admin, GearmanClient([gear]) as client:
        assert admin.get_status() == ()
        worker = GearmanWorker([gear])
        worker.set_client_id("worker-1")
        worker.register_task("able", lambda worker, job: job.data)
        working = spawn(worker.work)
        try:
            eventually(admin.get_status, "the worker")
            (able,) = admin.get_status()
            assert able == {"task": "able", "queued": 0, "running": 0, "workers": 1}
            (mine,) = (record for record in admin.get_workers() if record.tasks)
            assert (mine.client_id, mine.tasks) == ("worker-1", ("able",))
            assert mine.ip.endswith("127.0.0.1")
        finally:
            worker.stop()
            working.result(PATIENCE)
            worker.shutdown()
        request = client.submit_job("idle", b"", background=True)
        statuses = {record.task: record for record in admin.get_status()}
        assert statuses["idle"] == {"task": "idle", "queued": 1, "running": 0, "workers": 0}
        assert request.handle is not None
        assert admin.cancel_job(request.handle) == "OK"
        with pytest.raises(ServerError, match=r"^UNKNOWN_JOB$"):
            admin.cancel_job(request.handle)


UNANSWERED: dict[str, list[Any]] = {
    "get_version": [],
    "get_priority_status": [],
    "get_jobs": [],
    "get_unique_jobs": [],
    "get_pid": [],
    "get_verbosity": [],
    "ping_server": [],
    "send_maxqueue": ["f", 1],
    "create_function": ["f"],
    "drop_function": ["f"],
    "send_shutdown": [],
}


def test_unknown_command_at_gears_server_times_out(gear: Address) -> None:
    with GearmanAdminClient([gear]) as admin:
        for name, arguments in UNANSWERED.items():
            # With an open connection, the timeout covers only the reply.
            admin.poll_timeout = PATIENCE
            assert admin.get_status() == ()
            admin.poll_timeout = 0.02
            with pytest.raises(InvalidAdminClientState, match="did not answer"):
                getattr(admin, name)(*arguments)
        admin.poll_timeout = PATIENCE
        assert admin.get_status() == ()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_unknown_command_at_gears_server_times_out_async(gear: Address, backend: str) -> None:
    async def main() -> None:
        async with AwaitedAdminClient([gear]) as admin:
            for name, arguments in UNANSWERED.items():
                admin.poll_timeout = PATIENCE
                assert await admin.get_status() == ()
                admin.poll_timeout = 0.02
                with pytest.raises(InvalidAdminClientState, match="did not answer"):
                    await getattr(admin, name)(*arguments)
            admin.poll_timeout = PATIENCE
            assert await admin.get_status() == ()

    anyio.run(main, backend=backend)
