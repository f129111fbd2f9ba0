"""A server that reads slowly: callbacks have to wait, so that their data is not buffered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    WorkComplete,
    WorkData,
)
from tests.support import wait_for

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
