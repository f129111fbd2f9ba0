"""Our admin client agrees with pygearman, and works with gear's server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import InvalidAdminClientState, ServerError
from gearman_sync import GearmanAdminClient, GearmanClient, GearmanWorker
from tests.peers.peers import SERVERS, import_pygearman
from tests.support import PATIENCE, eventually, spawn

if TYPE_CHECKING:
    from tests.support import ServerAt

    from .conftest import Both

pytestmark = pytest.mark.usefixtures("no_hang")

each_server = pytest.mark.parametrize("number", range(2), ids=list(SERVERS))


@each_server
def test_records_as_pygearman_has_them(busy: Both, number: int) -> None:
    address = busy.addresses[number]
    theirs = import_pygearman().GearmanAdminClient([address])
    with GearmanAdminClient([address]) as ours:
        statuses = [dict(record) for record in ours.get_status()]
        assert sorted(theirs.get_status(), key=str) == sorted(statuses, key=str)
        # pygearman has the socket's number as text.
        (their_worker,) = (each for each in theirs.get_workers() if each["tasks"])
        (our_worker,) = (record for record in ours.get_workers() if record.tasks)
        assert their_worker == {**our_worker, "file_descriptor": str(our_worker.file_descriptor)}
        assert theirs.get_version() == ours.get_version()
        assert theirs.get_pid() == f"OK {ours.get_pid()}"
    theirs.shutdown()


# gear's server has `status`, `workers` and `cancel job`. It drops other commands silently.


def test_commands_of_gears_server_return_replies(gear: ServerAt) -> None:
    with GearmanAdminClient([gear.address]) as admin, GearmanClient([gear.address]) as client:
        assert admin.get_status() == ()
        worker = GearmanWorker([gear.address])
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


def test_unknown_command_at_gears_server_times_out(gear: ServerAt) -> None:
    with GearmanAdminClient([gear.address]) as admin:
        for name, arguments in UNANSWERED.items():
            # With an open connection, the timeout covers only the reply.
            admin.poll_timeout = PATIENCE
            assert admin.get_status() == ()
            admin.poll_timeout = 0.02
            with pytest.raises(InvalidAdminClientState, match="did not answer"):
                getattr(admin, name)(*arguments)
        admin.poll_timeout = PATIENCE
        assert admin.get_status() == ()
