"""Jobs at gear's server after failures; see docs/explanation/reliability.md.

gear's server supports neither CAN_DO_TIMEOUT nor coalescing by unique, and it assigns no job
twice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    WorkComplete,
)
from gearman_sync import GearmanClient
from gearman_sync.testing import ScriptedClient
from tests.support import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import ServerAt

pytestmark = pytest.mark.usefixtures("no_hang")

_A_WHILE = 0.2


def connected(gear: ServerAt, *events: CanDo) -> ScriptedClient:
    """Return a working connection of a worker, after one reply (see `waiting`)."""
    while True:
        link = ScriptedClient(gear.address)
        try:
            link.send(*events, GrabJobUniq())
            assert isinstance(link.receive(), NoJob)
        except (AssertionError, OSError):
            link.close()
        else:
            return link


@pytest.fixture
def client(gear: ServerAt) -> Iterator[GearmanClient]:
    with GearmanClient([gear.address]) as client:
        yield client


@pytest.fixture
def worker(gear: ServerAt, task: str) -> Iterator[ScriptedClient]:
    link = connected(gear, CanDo(task.encode()))
    eventually(lambda: gear.counts(task)[2] == 1)
    yield link
    link.close()


def take(worker: ScriptedClient) -> JobAssignUniq:
    worker.send(GrabJobUniq())
    job = worker.receive()
    assert isinstance(job, JobAssignUniq)
    return job


def waiting(client: GearmanClient, task: str, **options: Any) -> Any:
    # gear's server sometimes closes a new connection in place of one that has just ended, such as
    # that of the check for readiness. Retry in that case.
    return client.submit_job(task, b"data", wait_until_complete=False, max_retries=2, **options)


def test_a_job_ends_with_its_worker(
    client: GearmanClient, worker: ScriptedClient, task: str
) -> None:
    """Fail the job at its client, and assign it to no other worker."""
    request = waiting(client, task)
    take(worker)
    worker.close()
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert (request.state, request.timed_out) == ("FAILED", False)


def test_a_background_job_ends_with_its_worker(
    client: GearmanClient, worker: ScriptedClient, gear: ServerAt, task: str
) -> None:
    request = client.submit_job(task, b"data", background=True, max_retries=2)
    take(worker)
    worker.close()
    eventually(lambda: gear.counts(task)[:2] == (0, 0))
    client.get_job_status(request)
    assert not request.status["known"]


@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
def test_a_job_ends_with_its_client(
    client: GearmanClient, worker: ScriptedClient, gear: ServerAt, task: str, running: bool
) -> None:
    waiting(client, task)
    job = take(worker) if running else None
    client.shutdown()
    eventually(lambda: gear.counts(task)[:2] == (0, 0))
    with GearmanClient([gear.address]) as other:
        request = waiting(other, task)
        if job is not None:
            # The server ignores the result of the running job.
            worker.send(WorkComplete(job.handle, b"late"))
        worker.send(WorkComplete(take(worker).handle, b"done"))
        other.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.result == b"done"


def test_one_unique_is_two_jobs(
    client: GearmanClient, worker: ScriptedClient, gear: ServerAt, task: str
) -> None:
    with GearmanClient([gear.address]) as other:
        requests = [waiting(each, task, unique="ours") for each in (client, other)]
        assert len({request.handle for request in requests}) == 2
        assert len({take(worker).handle for _ in range(2)}) == 2


def test_sleeping_loses_no_live_job(client: GearmanClient, gear: ServerAt, task: str) -> None:
    waiting(client, task, priority="LOW")
    client.shutdown()
    eventually(lambda: gear.counts(task)[:2] == (0, 0))
    with GearmanClient([gear.address]) as other:
        waiting(other, f"{task}-live", priority="HIGH")
        link = ScriptedClient(gear.address)
        link.send(CanDo(f"{task}-live".encode()), CanDo(task.encode()), PreSleep())
        assert isinstance(link.receive(), Noop)
        assert take(link).data == b"data"
        link.close()


def test_handles_begin_at_one(gear: ServerAt, client: GearmanClient, task: str) -> None:
    """Number the handles from 1 after each start."""
    handle = waiting(client, task).handle
    assert handle is not None
    assert handle.startswith("H:127.0.0.1:")
    assert handle.endswith(":1")


def test_no_time_limit(client: GearmanClient, gear: ServerAt, task: str) -> None:
    """Drop CAN_DO_TIMEOUT, so that such a worker receives no jobs."""
    link = ScriptedClient(gear.address)
    link.send(CanDoTimeout(task.encode(), b"50"))
    request = waiting(client, task)
    time.sleep(_A_WHILE)
    assert gear.counts(task) == (1, 0, 0)
    assert request.state == "CREATED"
    link.close()


def test_a_cancelled_job_is_gone(client: GearmanClient, gear: ServerAt, task: str) -> None:
    """Remove the job without a notice to its client."""
    request = waiting(client, task)
    assert gear.admin(f"cancel job {request.handle}").startswith("OK")
    client.wait_until_jobs_completed([request], poll_timeout=_A_WHILE)
    assert (request.state, request.timed_out) == ("CREATED", True)
    client.get_job_status(request)
    assert not request.status["known"]


def test_a_running_job_is_not_cancelled(
    client: GearmanClient, worker: ScriptedClient, gear: ServerAt, task: str
) -> None:
    request = waiting(client, task)
    job = take(worker)
    assert gear.admin(f"cancel job {request.handle}").startswith("ERR")
    worker.send(WorkComplete(job.handle, b"done"))
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.result == b"done"
