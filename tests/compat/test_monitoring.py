"""Checks and dashboards, which process the rows of the admin client."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import ScriptedWorker, echo
from tests.support import EmbeddedServer, Gearmand, free_port

from .support import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Running

    Load = Callable[[str], Any]
    Server = Gearmand | EmbeddedServer


@pytest.fixture
def admin(gearman: Any, host: str) -> Any:
    admin = gearman.GearmanAdminClient([host])
    yield admin
    admin.shutdown()


@pytest.fixture
def queued(gearman: Any, host: str, task: str) -> Any:
    """A client and two requests of queued jobs."""
    client = gearman.GearmanClient([host])
    requests = [client.submit_job(task, b"", unique=f"{task}-{n}", background=True) for n in "01"]
    yield requests
    client.shutdown()


def row_of(admin: Any, task: str) -> Any:
    (row,) = [row for row in admin.get_status() if row["task"] == task]
    return row


def test_status_rows_are_dicts(admin: Any, queued: Any, task: str) -> None:
    rows = admin.get_status()
    assert isinstance(rows, tuple)
    row = row_of(admin, task)
    assert type(row) is dict
    assert row == {"task": task, "queued": 2, "running": 0, "workers": 0}
    assert list(row) == ["task", "queued", "running", "workers"]
    changed = row.copy()
    changed["queued"] = 3
    changed.update(extra=True)
    assert row["queued"] == 2
    assert json.loads(json.dumps(rows)) == [dict(each) for each in rows]
    assert pickle.loads(pickle.dumps(rows)) == copy.deepcopy(rows) == rows
    assert sorted(rows, key=lambda row: row["queued"])[-1]["queued"] >= 2  # noqa: FURB192
    assert sum(each["queued"] for each in rows) >= 2
    assert "%(task)s %(queued)d" % row == f"{task} 2"  # noqa: UP031
    assert "{task} {workers}".format(**row) == f"{task} 0"
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=list(row)).writerow(row)
    assert text.getvalue() == f"{task},2,0,0\r\n"
    by_task = {each["task"]: each for each in rows}
    assert by_task[task]["queued"] == 2
    assert type(row["task"]) is str


def test_worker_rows_are_dicts(admin: Any, server: Server, start_worker: Any, task: str) -> None:
    start_worker(server.address, {task: echo})
    rows = [row for row in admin.get_workers() if task in row["tasks"]]
    (row,) = filter(lambda row: len(row["tasks"]) > 0, rows)
    assert type(row) is dict
    assert list(row) == ["file_descriptor", "ip", "client_id", "tasks"]
    assert (row["ip"], row["client_id"], tuple(row["tasks"])) == ("127.0.0.1", "-", (task,))
    assert type(row["file_descriptor"]) is str
    assert " ".join((row["file_descriptor"], row["ip"])).endswith("127.0.0.1")
    assert json.loads(json.dumps(rows))[0]["tasks"] == [task]


def test_job_row_is_found_by_the_handle(admin: Any, queued: Any, task: str) -> None:
    """The row of a job is found by the handle of its request, which is a name."""
    rows = {row["handle"]: row for row in admin.get_jobs()}
    for request in queued:
        row = rows[request.job.handle]
        assert type(row) is dict
        assert (row["queued"], row["canceled"], row["enabled"]) == (0, 0, 1)
    uniques = [row["unique"] for row in admin.get_unique_jobs()]
    assert {request.job.unique for request in queued} <= set(uniques)
    assert json.dumps(uniques)


def test_other_admin_commands_work(admin: Any, server: Server, queued: Any, task: str) -> None:
    assert admin.get_version()[0] in "0123456789O"
    assert admin.get_pid().startswith("OK ")
    assert 0 < admin.ping_server() < 10
    admin.send_maxqueue(task, 5)
    assert admin.cancel_job(queued[0].job.handle)
    assert admin.current_connection.connected
    admin.establish_admin_connection()


def test_check_discovers_tasks_and_totals(
    load: Load, server: Server, host: str, queued: Any, task: str
) -> None:
    module = load("check_gearman")
    assert {"{#TASK}": task} in json.loads(module.discover(host))["data"]
    assert module.totals(host)["queued"] >= 2


def test_check_reports_workers_and_queue(
    load: Load, start_worker: Callable[..., ScriptedWorker], server: Server, host: str, task: str
) -> None:
    module = load("check_gearman")
    assert module.check(host, task, 1, 2) == (3, f"UNKNOWN - no task {task}")
    start_worker(server.address, {task: echo})
    text = f"{task}: 0 queued, 0 running, 1 workers"
    assert module.check(host, task, 1, 2) == (0, f"OK - {text}")
    assert module.check(host, task, 0, 2) == (1, f"WARNING - {text}")
    assert module.check(host, task, 0, 0) == (2, f"CRITICAL - {text}")


def test_check_without_a_server_prints_a_line(start: Callable[..., Running], task: str) -> None:
    """Without a server, the only results are the output and the exit status."""
    host = f"127.0.0.1:{free_port()}"
    out, errors, status = start(PROGRAMS / "check_gearman.py", "-H", host, "-t", task).end()
    assert (out, errors, status) == ("CRITICAL - gearmand is not there\n", "", 2)


def test_several_servers_are_refused(gearman: Any) -> None:
    with pytest.raises(ValueError, match="one server"):
        gearman.GearmanAdminClient(["localhost", "otherhost"])
