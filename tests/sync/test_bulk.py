"""Many jobs in one call: little memory per job, and a cost per job that stays constant."""

from __future__ import annotations

import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ExceededConnectionAttempts
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.wire.packets import JobCreated, SubmitJob, SubmitJobBg, WorkComplete
from gearman_sync import GearmanClient, GearmanJob, GearmanJobRequest
from tests.support import Gearmand, eventually, spawn, wait_for

from .support import wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_sync.testing import Peer, ScriptedServer

    StartServer = Callable[..., ScriptedServer]
    MakeClient = Callable[..., GearmanClient]

MANY = 20_000


@pytest.fixture
def server(start_gearmand: Callable[..., Gearmand]) -> Gearmand:
    """A separate gearmand, because the queued jobs would slow other tests down."""
    return start_gearmand()


@pytest.mark.slow
def test_twenty_thousand_background_jobs(
    server: Gearmand, make_client: MakeClient, task: str
) -> None:
    client = make_client(server.address)
    jobs = [{"task": task, "data": b"data"}] * MANY
    requests = client.submit_multiple_jobs(jobs, background=True)
    assert len(requests) == MANY
    assert all(request.state == gearman.JOB_CREATED for request in requests)
    assert len({request.job.handle for request in requests}) == MANY
    assert server.counts(task)[0] == MANY


@pytest.mark.parametrize("background", [True, False])
def test_memory(server: Gearmand, make_client: MakeClient, task: str, background: bool) -> None:
    client = make_client(server.address)
    # Warm up: allocate everything that exists once.
    client.submit_job(task, b"", background=True)
    count = MANY // 4
    jobs = [{"task": task, "data": b"data"}] * count
    tracemalloc.start()
    try:
        requests = client.submit_multiple_jobs(
            jobs, background=background, wait_until_complete=False
        )
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(requests) == count
    assert kept / count < 1024
    assert peak / count < 1024


class CountingList(list[GearmanJobRequest]):
    """A list that counts its iterations and its item accesses."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.iterations = 0

    def __iter__(self) -> Iterator[GearmanJobRequest]:
        self.iterations += 1
        return super().__iter__()


def count_iterations(
    start_server: StartServer, make_client: MakeClient, count: int, background: bool
) -> int:
    """Reply to each of `count` submits in a separate packet, and count the scans."""

    def script(peer: Peer) -> None:
        for number in range(count):
            event = peer.expect(SubmitJobBg if background else SubmitJob)
            assert isinstance(event, (SubmitJob, SubmitJobBg))
            handle = b"H:%d" % number
            peer.send(JobCreated(handle))
            if not background:
                peer.send(WorkComplete(handle, event.data))
        peer.hold()

    client = make_client(start_server(script).address)
    requests = CountingList(
        GearmanJobRequest(GearmanJob(None, None, "task", None, b"%d" % n), background=background)
        for n in range(count)
    )
    client.submit_multiple_requests(requests)
    iterations = requests.iterations
    assert all(request.complete for request in requests)
    client.shutdown()
    return iterations


@pytest.mark.parametrize("background", [True, False])
def test_replies_do_not_scan_all_requests(
    start_server: StartServer, make_client: MakeClient, background: bool
) -> None:
    few = count_iterations(start_server, make_client, 10, background)
    many = count_iterations(start_server, make_client, 3000, background)
    assert few == many
    assert many < 10


def test_calls_of_the_engine(
    server: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes are large, and each iteration of the loop makes a bounded number of calls."""
    client = make_client(server.address)
    client.submit_job(task, b"", background=True)
    counts = {"select": 0, "data_to_send": 0, "receive_data": 0}

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    driver = client._gm_driver
    count(driver._poller.selector, "select")
    count(driver.engine, "data_to_send")
    count(driver.engine, "receive_data")
    client.submit_multiple_jobs([{"task": task, "data": b"data"}] * MANY, background=True)
    # A submit has about 80 bytes, a reply about 30.
    assert counts["receive_data"] <= counts["select"] + 1
    assert counts["data_to_send"] <= 2 * counts["select"] + MANY * 100 / 65536
    assert counts["select"] < MANY


def test_outstanding_jobs_do_not_slow_others(
    server: Gearmand, make_client: MakeClient, task: str
) -> None:
    client = make_client(server.address)
    jobs = [{"task": task, "data": b""}] * 1000
    waiting = CountingList(client.submit_multiple_jobs(jobs, wait_until_complete=False))
    call = spawn(client.wait_until_jobs_completed, waiting)
    wait_for_leader(client)
    before = waiting.iterations
    for _ in range(10):
        client.submit_job(f"{task}-other", b"", background=True)
    assert waiting.iterations == before
    client.shutdown()
    assert call.result(20) is waiting


@pytest.mark.slow
def test_slow_server_does_not_make_the_client_buffer_everything(
    start_server: StartServer, make_client: MakeClient
) -> None:
    """2,000 jobs of 1 MB do not use 2 GB. The client reads replies while writing is blocked."""

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
        # Closing with unread data resets the connection, which may discard the last reply.
        eventually(lambda: requests[7].state == gearman.JOB_CREATED, "the last reply")
    finally:
        tracemalloc.stop()
        measured.set()
    call.result(20)
    # This includes the scripted server's memory.
    assert peak < 16_000_000
    assert [request.state for request in requests[:8]] == [gearman.JOB_CREATED] * 8
    assert {request.state for request in requests[8:]} == {gearman.JOB_UNKNOWN}
