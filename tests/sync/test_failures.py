"""Servers that are silent, refuse an option or read slowly; and polling by hand."""

from __future__ import annotations

import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_proto.errors import (
    ExceededConnectionAttempts,
)
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.wire.events import (
    Error,
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
)
from gearman_sync import GearmanClient
from gearman_sync.testing import Peer, ScriptedServer, ScriptedWorker, echo
from tests.support import Gearmand, black_hole, eventually, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    StartServer = Callable[..., ScriptedServer]
    MakeClient = Callable[..., GearmanClient]


def test_black_hole_and_a_good_server(
    gearmand: Gearmand, make_client: MakeClient, task: str
) -> None:
    with black_hole() as address:
        client = make_client(address, gearmand.address, connect_timeout=1.0)
        for _ in range(2):
            jobs = [{"task": task, "data": b""}] * 10
            requests = client.submit_multiple_jobs(jobs, background=True)
            assert all(request.state == gearman.JOB_CREATED for request in requests)


def test_option_is_refused(start_server: StartServer, make_client: MakeClient) -> None:
    refusal = b"UNKNOWN_OPTION\0what?"

    def script(peer: Peer) -> None:
        peer.grants_options = False
        peer.expect(SubmitJob)
        peer.send(Error(b"UNKNOWN_OPTION", b"what?"), JobCreated(b"H:1"))
        peer.send(WorkComplete(b"H:1", refusal))
        peer.hold()

    request = make_client(start_server(script).address).submit_job("task", b"")
    assert request.result == refusal
    assert request.error is None


@pytest.mark.slow
def test_reads_slowly(start_server: StartServer, make_client: MakeClient) -> None:
    """2,000 jobs of 1 MB are not 2 GB of memory, and replies are taken while writing is blocked."""

    def script(peer: Peer) -> None:
        for number in range(8):
            peer.expect(SubmitJobBg)
            peer.send(JobCreated(b"H:%d" % number))
        read.set()
        wait_for(measured)

    read, measured = threading.Event(), threading.Event()
    client = make_client(start_server(script, receive_buffer=65536).address)
    payload = bytes(1_000_000)
    requests = make_requests([{"task": "task", "data": payload}] * 2000, background=True)

    def submit() -> None:
        with pytest.raises(ExceededConnectionAttempts):
            client.submit_multiple_requests(requests)

    tracemalloc.start()
    try:
        call = spawn(submit)
        wait_for(read)
        peak = tracemalloc.get_traced_memory()[1]
        # Closing with unread data is a reset, which may overtake the last reply.
        eventually(lambda: requests[7].state == gearman.JOB_CREATED, "the last reply")
    finally:
        tracemalloc.stop()
        measured.set()
    call.result(20)
    # What the scripted server holds is in it too.
    assert peak < 16_000_000
    assert [request.state for request in requests[:8]] == [gearman.JOB_CREATED] * 8
    assert {request.state for request in requests[8:]} == {gearman.JOB_UNKNOWN}


def test_callback_of_a_poll_that_uses_the_client(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    assert not client.poll_connections_until_stopped(
        [], lambda activity: client.submit_job(task, b"x").result != b"x"
    )
    with pytest.raises(ZeroDivisionError):
        client.poll_connections_until_stopped([], lambda activity: 1 / 0)
    assert client.submit_job(task, b"y").result == b"y"
