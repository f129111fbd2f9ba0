"""Rows of the admin client, which checks and dashboards process as dicts."""

from __future__ import annotations

import csv
import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo

if TYPE_CHECKING:
    from tests.support import Gearmand


@pytest.fixture
def admin(gearman: Any, host: str) -> Any:
    admin = gearman.GearmanAdminClient([host])
    yield admin
    admin.shutdown()


@pytest.fixture
def queued(client: Any, task: str) -> Any:
    """The requests of two queued jobs."""
    return [client.submit_job(task, b"", unique=f"{task}-{n}", background=True) for n in "01"]


@pytest.mark.usefixtures("queued")
def test_status_rows_are_dicts(admin: Any, task: str) -> None:
    rows = admin.get_status()
    assert isinstance(rows, tuple)
    (row,) = [row for row in rows if row["task"] == task]
    assert type(row) is dict
    assert list(row.items()) == [("task", task), ("queued", 2), ("running", 0), ("workers", 0)]
    row["queued"] = 3
    row.update(extra=True)
    assert json.loads(json.dumps(rows)) == list(rows)
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert "%(task)s %(queued)d" % row == f"{task} 3"  # noqa: UP031
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=list(row)).writerow(row)
    assert text.getvalue() == f"{task},3,0,0,True\r\n"


def test_worker_rows_are_dicts(admin: Any, server: Gearmand, start_worker: Any, task: str) -> None:
    start_worker(server.address, {task: echo})
    (row,) = [row for row in admin.get_workers() if task in row["tasks"]]
    assert type(row) is dict
    assert list(row) == ["file_descriptor", "ip", "client_id", "tasks"]
    assert (row["ip"], row["client_id"], tuple(row["tasks"])) == ("127.0.0.1", "-", (task,))
    assert type(row["file_descriptor"]) is str
    assert json.loads(json.dumps(row))["tasks"] == [task]


def test_job_row_is_found_by_the_handle(admin: Any, queued: Any, task: str) -> None:
    """The row of a job is found by the handle of its request, which is a name."""
    rows = {row["handle"]: row for row in admin.get_jobs()}
    for request in queued:
        row = rows[request.job.handle]
        assert type(row) is dict
        assert (row["queued"], row["canceled"], row["enabled"]) == (0, 0, 1)
    uniques = [row["unique"] for row in admin.get_unique_jobs()]
    assert {request.job.unique for request in queued} <= set(uniques)


def test_other_names_of_the_admin_client_work(gearman: Any, admin: Any) -> None:
    assert admin.get_pid().startswith("OK ")
    admin.establish_admin_connection()
    assert admin.current_connection.connected
    admin.current_connection.close()
    assert not admin.current_connection.connected
    with pytest.raises(gearman.admin_client.ServerUnavailable):
        gearman.GearmanAdminClient(["127.0.0.1:1"]).get_status()
