"""Servers that refuse, die, are silent or send garbage: nobody hangs, and everybody is told."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.wire.events import (
    Error,
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from gearman_sync import GearmanClient, GearmanJob, GearmanJobRequest
from tests.support import (
    Disconnected,
    FakeServer,
    Gate,
    Gearmand,
    Peer,
    Worker,
    black_hole,
    echo,
    eventually,
    free_port,
    spawn,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    StartServer = Callable[..., FakeServer]
    MakeClient = Callable[..., GearmanClient]


def new_request(task: str = "task", data: Any = b"data", **kwargs: Any) -> GearmanJobRequest:
    return GearmanJobRequest(GearmanJob(None, None, task, None, data), **kwargs)


# Servers that can't be reached.


def test_connection_refused(make_client: MakeClient) -> None:
    client = make_client(("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    requests = [new_request(), new_request(background=True)]
    with pytest.raises(ServerUnavailable, match="refused") as caught:
        client.submit_multiple_requests(requests)
    assert caught.value.job_requests is requests
    assert [request.state for request in requests] == [gearman.JOB_UNKNOWN] * 2
    assert not any(request.timed_out for request in requests)
    with pytest.raises(ServerUnavailable):
        client.submit_job("task", b"data", max_retries=5, poll_timeout=20)


def test_server_that_comes_up_later(
    start_gearmand: Callable[..., Gearmand], make_client: MakeClient
) -> None:
    port = free_port()
    client = make_client(("127.0.0.1", port))
    request = new_request(background=True)
    with pytest.raises(ServerUnavailable):
        client.submit_multiple_requests([request])
    start_gearmand(port=port)
    # It was just found dead, but it is the only one there is.
    client.submit_multiple_requests([request])
    assert request.state == gearman.JOB_CREATED


def test_one_of_two_is_down(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    client = make_client(("127.0.0.1", free_port()), gearmand.address)
    requests = client.submit_multiple_jobs([{"task": task, "data": b"%d" % n} for n in range(50)])
    assert [request.result for request in requests] == [b"%d" % n for n in range(50)]
    assert [server.connected for server in client.connection_list] == [False, True]


def test_black_hole_costs_the_connect_timeout(gearmand: Gearmand, make_client: MakeClient) -> None:
    with black_hole() as address:
        client = make_client(address, connect_timeout=0.1)
        before = time.monotonic()
        with pytest.raises(ServerUnavailable, match=r"within 0\.1 seconds"):
            client.submit_job("task", b"", background=True)
        assert time.monotonic() - before >= 0.1


def test_black_hole_and_a_good_server(
    gearmand: Gearmand, make_client: MakeClient, task: str
) -> None:
    with black_hole() as address:
        client = make_client(address, gearmand.address, connect_timeout=0.1)
        for _ in range(2):
            jobs = [{"task": task, "data": b""}] * 10
            requests = client.submit_multiple_jobs(jobs, background=True)
            assert all(request.state == gearman.JOB_CREATED for request in requests)


def test_timeout_while_connecting(make_client: MakeClient) -> None:
    with black_hole() as address:
        client = make_client(address, connect_timeout=20)
        request = client.submit_job("task", b"", poll_timeout=0.05)
        assert request.timed_out
        assert request.state == gearman.JOB_PENDING
        client.shutdown()
        assert request.state == gearman.JOB_UNKNOWN


# Servers that die.


def test_killed_while_a_thousand_jobs_wait(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    server = start_gearmand()
    client = make_client(server.address)
    requests = [new_request(task, b"%d" % number) for number in range(1000)]
    call = spawn(client.submit_multiple_requests, requests)
    eventually(lambda: all(request.state == gearman.JOB_CREATED for request in requests))
    assert server.counts(task)[0] == 1000
    server.kill()
    assert call.result(20) is requests
    assert {request.state for request in requests} == {gearman.JOB_UNKNOWN}
    assert not any(request.timed_out for request in requests)
    uniques = {request.unique for request in requests}
    server.start()
    start_worker(server.address, {task: echo})
    client.submit_multiple_requests(requests)
    assert [request.result for request in requests] == [b"%d" % number for number in range(1000)]
    assert uniques.isdisjoint(request.unique for request in requests)


def test_chosen_unique_stays_when_submitted_again(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
) -> None:
    server = start_gearmand()
    client = make_client(server.address)
    request = client.submit_job(task, b"data", unique="mine", wait_until_complete=False)
    server.kill()
    client.wait_until_jobs_completed([request])
    assert request.state == gearman.JOB_UNKNOWN
    server.start()
    client.submit_multiple_requests([request], wait_until_complete=False)
    assert request.state == gearman.JOB_CREATED
    assert request.unique == "mine"


def test_killed_while_others_use_another_server(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    servers = {server.port: server for server in (start_gearmand(), start_gearmand())}
    client = make_client(*[server.address for server in servers.values()])
    gate = Gate()
    for server in servers.values():
        start_worker(server.address, {task: gate})
    requests = [new_request(task, b"%d" % number) for number in range(6)]
    client.submit_multiple_requests(requests, wait_until_complete=False)
    calls = [spawn(client.wait_until_jobs_completed, [request]) for request in requests]
    ports = []
    for request in requests:
        assert request.job.connection is not None
        ports.append(request.job.connection.port)
    assert set(ports) == set(servers)
    dead = ports[0]
    servers[dead].kill()
    for port, call in zip(ports, calls):
        if port == dead:
            assert call.result(20)[0].state == gearman.JOB_UNKNOWN
        else:
            assert not call.done()
    gate.open.set()
    for number, (port, call) in enumerate(zip(ports, calls)):
        if port != dead:
            assert call.result(20)[0].result == b"%d" % number
    # All go to the one that is left.
    client.submit_multiple_requests(requests)
    assert [request.result for request in requests] == [b"%d" % number for number in range(6)]


# Servers that misbehave.


def test_accepts_and_closes(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server(lambda peer: None)
    client = make_client(server.address)
    request = new_request()
    with pytest.raises((ExceededConnectionAttempts, ServerUnavailable)) as caught:
        client.submit_multiple_requests([request])
    assert list(caught.value.job_requests) == [request]
    assert request.state == gearman.JOB_UNKNOWN


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_takes_the_submit_and_closes(
    start_server: StartServer, make_client: MakeClient, retries: int
) -> None:
    server = start_server(lambda peer: peer.expect(SubmitJob))
    client = make_client(server.address)
    with pytest.raises(ExceededConnectionAttempts, match=f"{retries + 1} time"):
        client.submit_job("task", b"data", max_retries=retries)
    submits = [event for event in server.events if isinstance(event, SubmitJob)]
    assert len(submits) == retries + 1
    assert len({submit.unique for submit in submits}) == retries + 1


def test_retry_that_works(start_server: StartServer, make_client: MakeClient) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        if len(server.peers) > 1:
            peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
            peer.hold()

    server = start_server(script)
    request = make_client(server.address).submit_job("task", b"data", max_retries=1)
    assert request.result == b"done"
    assert request.connection_attempts == 2


GARBAGE = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(64),
    "a bad magic": b"\0RAS" + struct.pack(">II", 8, 1) + b"x",
    "an unknown type": b"\0RES" + struct.pack(">II", 99, 0),
    "a huge type": b"\0RES" + struct.pack(">II", 0xFFFFFFFF, 0),
    "a packet for workers": b"\0RES" + struct.pack(">II", 10, 0),
    "a huge size": b"\0RES" + struct.pack(">II", 13, 0xFFFFFFFF) + b"H:1\0x",
    "an answer to nothing": b"\0RES" + struct.pack(">II", 17, 1) + b"x",
    "an answer to something else": b"\0RES" + struct.pack(">II", 20, 9) + b"H\x000\x000\x000\x000",
    "too few arguments": b"\0RES" + struct.pack(">II", 12, 3) + b"H:1",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_place_of_an_answer(
    start_server: StartServer, make_client: MakeClient, what: str
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send_raw(GARBAGE[what])
        with contextlib.suppress(Disconnected):
            peer.hold()
        closed.set()

    closed = threading.Event()
    client = make_client(start_server(script).address)
    with pytest.raises(ExceededConnectionAttempts):
        client.submit_job("task", b"data")
    wait_for(closed, "the client's closing")


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_behind_the_acknowledgement(
    start_server: StartServer, make_client: MakeClient, what: str
) -> None:
    def script(peer: Peer) -> None:
        for number in (1, 2):
            peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:%d" % number))
        # What came before the garbage counts.
        peer.send_raw(peer.connection.send(WorkComplete(b"H:1", b"done")) + GARBAGE[what])
        peer.hold()

    client = make_client(start_server(script).address)
    requests = client.submit_multiple_jobs([{"task": "task", "data": b""}] * 2)
    assert [r.state for r in requests] == [gearman.JOB_COMPLETE, gearman.JOB_UNKNOWN]
    assert requests[0].result == b"done"
    assert not requests[1].timed_out


def test_packet_over_the_limit(start_server: StartServer, make_client: MakeClient) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send(JobCreated(b"H:1"), WorkData(b"H:1", bytes(900)))
        peer.send(WorkComplete(b"H:1", bytes(1100)))
        peer.hold()

    client = make_client(start_server(script).address, max_packet_size=1000)
    request = client.submit_job("task", b"")
    assert request.state == gearman.JOB_UNKNOWN
    assert request.data_updates[0] == bytes(900)
    (server,) = client.connection_list
    assert "1000" in str(server.error)


def test_never_answers(start_server: StartServer, make_client: MakeClient) -> None:
    client = make_client(start_server(Peer.hold).address)
    request = client.submit_job("task", b"", poll_timeout=0.05)
    assert request.timed_out
    assert request.state == gearman.JOB_PENDING
    client.wait_until_jobs_accepted([request], poll_timeout=0)
    assert request.timed_out


def test_byte_by_byte(start_server: StartServer, make_client: MakeClient) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        events = (JobCreated(b"H:1"), WorkData(b"H:1", b"a\0b"), WorkComplete(b"H:1", b"done\0"))
        for event in events:
            for byte in peer.connection.send(event):
                peer.send_raw(bytes([byte]))
        peer.hold()

    request = make_client(start_server(script).address).submit_job("task", b"")
    assert request.result == b"done\0"
    assert list(request.data_updates) == [b"a\0b"]


def test_option_is_ignored(start_server: StartServer, make_client: MakeClient) -> None:
    """As Python gear's server does."""

    def script(peer: Peer) -> None:
        peer.grants_options = False
        peer.expect(SubmitJob)
        peer.send_anyway(JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
        peer.hold()

    request = make_client(start_server(script).address).submit_job("task", b"", poll_timeout=20)
    assert request.result == b"done"


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


def test_error_in_place_of_one_answer(start_server: StartServer, make_client: MakeClient) -> None:
    def script(peer: Peer) -> None:
        for _ in range(3):
            peer.expect(SubmitJobBg)
        peer.send(JobCreated(b"H:1"), Error(b"odd", b"w\xffy"), JobCreated(b"H:2"))
        peer.hold()

    client = make_client(start_server(script).address)
    requests = client.submit_multiple_jobs([{"task": "t", "data": b""}] * 3, background=True)
    assert [r.state for r in requests] == ["CREATED", "FAILED", "CREATED"]
    assert isinstance(requests[1].error, ServerError)
    assert requests[1].error.code == "odd"


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


# Connections on request.


def test_establish_connection(gearmand: Gearmand, make_client: MakeClient) -> None:
    client = make_client(gearmand.address, ("127.0.0.1", free_port()))
    good, bad = client.connection_list
    assert not good.connected
    assert client.establish_connection(good) is good
    assert good.connected
    assert (good.gearman_host, good.gearman_port) == gearmand.address
    assert client.establish_connection(good, poll_timeout=0) is good
    with pytest.raises(ConnectionError, match=str(bad.gearman_port)) as caught:
        client.establish_connection(bad)
    assert isinstance(caught.value, OSError)
    assert not bad.connected


def test_establish_connection_timeout(make_client: MakeClient) -> None:
    with black_hole() as address:
        client = make_client(address)
        (server,) = client.connection_list
        assert client.establish_connection(server, poll_timeout=0.02) is server
        assert not server.connected
        impatient = make_client(address, connect_timeout=0.02)
        with pytest.raises(ConnectionError, match="within"):
            impatient.establish_connection(impatient.connection_list[0])


def test_poll_connections_until_stopped(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    request = client.submit_job(task, b"data", wait_until_complete=False)
    activity: list[bool] = []

    def go_on(any_activity: bool) -> bool:
        activity.append(any_activity)
        gate.open.set()
        return not request.complete

    assert client.poll_connections_until_stopped(client.connection_list, go_on, timeout=20)
    assert request.result == b"data"
    assert activity[0] is False
    assert activity[-1] is True
    assert not client.poll_connections_until_stopped([], lambda activity: True, timeout=0.02)
    # A callback may use the client, and may raise.
    assert client.poll_connections_until_stopped(
        [], lambda activity: client.submit_job(task, b"x").result != b"x"
    )
    with pytest.raises(ZeroDivisionError):
        client.poll_connections_until_stopped([], lambda activity: 1 / 0)
    assert client.submit_job(task, b"y").result == b"y"


def test_a_restart_between_two_calls_is_noticed(
    start_gearmand: Callable[..., Gearmand], make_client: MakeClient, task: str
) -> None:
    """The connection ended while nobody looked: what is submitted next goes over a new one."""
    server = start_gearmand()
    client = make_client(server.address)
    stored = client.submit_job(task, b"", background=True)
    waiting = client.submit_job(task, b"", wait_until_complete=False)
    server.kill()
    server.start()
    request = client.submit_job(task, b"", background=True)
    assert request.complete
    assert request.connection_attempts == 1
    assert waiting.state == gearman.JOB_UNKNOWN
    server.kill()
    server.start()
    client.get_job_status(stored)
    assert stored.status["known"] is False
