"""The status of jobs: answers that cross others, and servers that know different handles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_proto.wire.events import GetStatus, StatusRes, WorkComplete
from gearman_sync import GearmanClient, GearmanJobRequest
from gearman_sync.testing import Gate, Peer, ScriptedServer, ScriptedWorker
from tests.support import Gearmand, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]


@pytest.mark.parametrize("with_server", [True, False])
def test_by_stored_handle(
    gearmand: Gearmand,
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    with_server: bool,
) -> None:
    # Handles differ, so that only one of the two can know this one.
    other = start_gearmand("--job-handle-prefix", "other")
    client = make_client(gearmand.address, other.address)
    submitted = [client.submit_job(task, b"", background=True) for _ in range(2)]
    for request in submitted:
        handle, server = request.job.handle, request.job.connection
        assert handle is not None
        stored = GearmanJobRequest.from_handle(handle, str(server) if with_server else None)
        client.get_job_status(stored)
        assert stored.status["known"]
        assert stored.status["handle"] == handle
    nothing = GearmanJobRequest.from_handle("H:nowhere:1")
    assert client.get_job_status(nothing).status["known"] is False


def test_status_behind_the_result_changes_nothing(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    request = client.submit_job(task, b"data", wait_until_complete=False)
    gate.open.set()
    eventually(lambda: not client.get_job_status(request).status["known"])
    assert request.state == gearman.JOB_COMPLETE
    assert request.result == b"data"


def test_terminal_packet_of_a_job_that_is_none_of_ours(
    start_server: Callable[..., ScriptedServer], make_client: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        event = peer.expect(GetStatus)
        peer.send(WorkComplete(b"H:x:1", b"data"))
        peer.send(StatusRes(event.handle, b"1", b"1", b"7", b"9"))
        peer.hold()

    client = make_client(start_server(script).address)
    request = client.get_job_status(GearmanJobRequest.from_handle("H:x:1"))
    assert request.status["numerator"] == 7
    assert request.result is None
