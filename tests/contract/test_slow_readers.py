"""A server that reads slowly or not at all: the data for it is not buffered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    NoJob,
    SubmitJob,
    WorkComplete,
    WorkData,
)
from tests.support import PATIENCE, wait_for

if TYPE_CHECKING:
    from gearman_proto import WorkerJob
    from gearman_sync.testing import Peer

    from .kit import Kit, StartServer


PIECE = bytes(100_000)
PIECES = 400


@pytest.mark.parametrize(("form", "max_jobs"), [("plain", 1), ("awaiting", 2)])
async def test_updates_to_a_server_that_reads_slowly_block_the_callback(
    kit: Kit, start_server: StartServer, form: str, max_jobs: int
) -> None:
    """No data is lost."""
    measured = threading.Event()
    received: list[int] = []
    sent: list[int] = []

    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        wait_for(measured)
        while not isinstance(event := peer.receive(), WorkComplete):
            peer.events.clear()
            if isinstance(event, WorkData):
                received.append(len(event.data))
            elif isinstance(event, GrabJobUniq):
                peer.send(NoJob())
        peer.hold()

    def plain(worker: Any, job: WorkerJob) -> None:
        for number in range(PIECES):
            sent.append(number)
            worker.send_job_data(job, PIECE)

    async def awaiting(worker: Any, job: WorkerJob) -> None:
        for number in range(PIECES):
            sent.append(number)
            await worker.send_job_data(job, PIECE)

    server = start_server(script, receive_buffer=65536)
    callback = plain if form == "plain" else kit.callback(awaiting)
    await kit.start_worker(server.address, tasks={"task": callback}, max_jobs=max_jobs)
    settled = -1
    while settled != len(sent) or not sent:  # Wait until sending has stalled.
        settled = len(sent)
        await kit.sleep(0.2)
    # The count includes data in the kernel's buffers.
    assert len(sent) < PIECES / 2
    measured.set()
    await kit.eventually(lambda: len(received) == PIECES)
    assert set(received) == {len(PIECE)}


async def test_client_reads_while_a_server_that_does_not_read_blocks_its_writing(
    kit: Kit, start_server: StartServer
) -> None:
    """The server sends more than any buffer can hold."""
    seen = threading.Event()

    def script(peer: Peer) -> None:
        for handle in (b"H:1", b"H:2"):
            peer.expect(SubmitJob)
            peer.send(JobCreated(handle))
        for number in range(64):
            peer.send(WorkData(b"H:1", b"%03d" % number + bytes(500_000)))
        peer.send(WorkComplete(b"H:1", b"done"))
        wait_for(seen)

    client = await kit.client(start_server(script, receive_buffer=65536).address)
    jobs = [{"task": "task", "data": bytes(1_000_000)}] * 60
    requests = await client.submit_multiple_jobs(jobs, poll_timeout=0)
    ended = await client.as_completed(requests[:1], poll_timeout=PATIENCE).__anext__()
    assert ended.result == b"done"
    assert [int(bytes(data[:3])) for data in ended.data_updates] == list(range(64))
    # Packets that can't be sent yet are not serialized either.
    assert sum(request.connection_attempts for request in requests) < 30
    assert {request.state for request in requests[2:]} == {"PENDING"}
    seen.set()
