"""Silent servers, and jobs that servers drop silently."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ConnectionError, ExceededConnectionAttempts

from .kit import Kit, Server, echo
from .test_reliability import leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand

#: The heartbeat interval in seconds. A silent server is lost after two intervals. One interval
#: must be long enough for a healthy server to reply, even on a slow machine.
HEARTBEAT = 1.0


@pytest.fixture
def stopped(start_gearmand: Callable[[], Gearmand]) -> Iterator[Gearmand]:
    """A stopped gearmand. Its kernel accepts connections, but replies wait for SIGCONT."""
    server = start_gearmand()
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    yield server
    server.process.send_signal(signal.SIGCONT)


async def test_a_stopped_server_is_lost_before_it_has_acknowledged(
    kit: Kit, stopped: Gearmand, task: str
) -> None:
    client = await kit.client(stopped.address, heartbeat=0.3)
    before = time.monotonic()
    with pytest.raises(ExceededConnectionAttempts, match="silent"):
        await client.submit_job(task, b"data")
    assert time.monotonic() - before >= 0.6


@pytest.mark.slow
async def test_a_stopped_server_is_lost_while_a_job_runs(
    kit: Kit, stopped: Gearmand, task: str
) -> None:
    assert stopped.process is not None
    stopped.process.send_signal(signal.SIGCONT)
    client = await kit.client(stopped.address, heartbeat=HEARTBEAT)
    request = await client.submit_job(task, b"data", poll_timeout=1.5 * HEARTBEAT)
    assert (request.state, request.timed_out) == ("CREATED", True)  # It replies to probes.
    stopped.process.send_signal(signal.SIGSTOP)
    await client.wait_until_jobs_completed([request])
    assert request.state == "UNKNOWN"
    assert isinstance(request.error, ConnectionError)
    assert "silent" in str(request.error)


@pytest.mark.parametrize("background", [False, True])
async def test_heartbeat_finds_the_lost_job_of_an_abandoned_unique(
    kit: Kit, server: Server, server_kind: str, task: str, background: bool
) -> None:
    """Recordings 36_abandoned_then_resubmitted and 37_background_lost_with_foreground."""
    unique = f"unique-{task}"
    client = await kit.client(server.address, heartbeat=HEARTBEAT)
    if background:
        await client.submit_job(task, b"first", unique=unique, background=True)
    leaving, left = await kit.submit(server.address, task, b"first", unique=unique)
    await leave(kit, server, leaving, left)
    request = await client.submit_job(task, b"second", unique=unique, wait_until_complete=False)
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    if server_kind == "gearmand":
        assert request.state == "UNKNOWN"
        assert "has lost the job" in str(request.error)
    else:
        assert request.state == "COMPLETE"
