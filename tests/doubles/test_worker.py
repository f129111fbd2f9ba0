"""A scripted worker and a scripted client follow the test at a job server."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_FAILED
from gearman_proto.wire.packets import (
    CanDo,
    Error,
    GrabJobAll,
    JobCreated,
    SubmitJobEpoch,
    SubmitReduceJob,
    WorkComplete,
)
from gearman_sync import GearmanClient, JobServer
from gearman_sync.testing import (
    Failed,
    Gate,
    Raised,
    ScriptedClient,
    ScriptedJob,
    ScriptedServer,
    ScriptedWorker,
    black_hole,
    echo,
    reverse,
)
from tests.support import PATIENCE, eventually, spawn, wait_for

if TYPE_CHECKING:
    import ssl

    from tests.support import EmbeddedServer, Gearmand

    Server = Gearmand | EmbeddedServer

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")


def test_scripted_worker_ends_a_job_as_scripted(server: Server, task: str) -> None:
    def tell(job: ScriptedJob) -> bytes:
        job.send_data(b"one")
        job.send_warning(b"careful")
        job.send_status(1, 2)
        return b"two"

    def fail(job: ScriptedJob) -> bytes:
        raise Failed

    def throw(job: ScriptedJob) -> bytes:
        raise Raised(b"broken")

    functions: dict[str, Any] = {"tell": tell, "fail": fail, "throw": throw, "reverse": reverse}
    names = {f"{name}-{task}": function for name, function in functions.items()}
    with ScriptedWorker(server.address, names) as worker, GearmanClient([server.address]) as client:
        told, failed, thrown, reversed_ = (client.submit_job(name, b"abc") for name in names)
    assert (told.result, list(told.data_updates), list(told.warning_updates)) == (
        b"two",
        [b"one"],
        [b"careful"],
    )
    assert (told.status["numerator"], told.status["denominator"]) == (1, 2)
    assert (failed.state, failed.exception) == ("FAILED", None)
    assert (thrown.state, thrown.exception) == ("FAILED", b"broken")
    assert reversed_.result == b"cba"
    assert [job.function for job in worker.jobs] == list(names)
    assert worker.order == [b"abc"] * 4


def test_worker_with_a_gate_waits_until_it_opens(server: Server, task: str) -> None:
    gate = Gate()
    with (
        ScriptedWorker(server.address, {task: gate}),
        GearmanClient([server.address]) as client,
    ):
        submitting = spawn(client.submit_job, task, b"x")
        wait_for(gate.begun)
        assert not submitting.done()
        gate.open.set()
        assert submitting.result(PATIENCE).result == b"x"


def test_gate_that_stays_closed_fails_the_test(server: Server, task: str) -> None:
    worker = ScriptedWorker(server.address, {task: Gate(timeout=0.01)})
    with GearmanClient([server.address]) as client:
        request = client.submit_job(task, b"", poll_timeout=PATIENCE)
    assert request.state == JOB_FAILED
    with pytest.raises(AssertionError, match="a gate was never opened"):
        worker.stop()


@pytest.mark.slow
def test_function_that_does_not_end_fails_the_test(server: Server, task: str) -> None:
    begun, end = threading.Event(), threading.Event()

    def hang(job: ScriptedJob) -> bytes:
        begun.set()
        end.wait(PATIENCE)
        return b""

    worker = ScriptedWorker(server.address, {task: hang}, timeout=2.0)
    with GearmanClient([server.address]) as client:
        client.submit_job(task, b"", wait_until_complete=False)
        wait_for(begun)
        with pytest.raises(AssertionError, match="function does not end"):
            worker.stop()
        end.set()


def test_function_that_resets_the_connection_requeues_its_job(server: Server, task: str) -> None:
    """Check that the server assigns the job to another worker."""

    def vanish(job: ScriptedJob) -> bytes:
        job.worker.reset()
        return b"to nobody"

    with GearmanClient([server.address]) as client, ScriptedWorker(server.address, {task: vanish}):
        request = client.submit_job(task, b"x", wait_until_complete=False)
        with ScriptedWorker(server.address, {task: echo}):
            assert client.wait_until_jobs_completed([request])[0].result == b"x"


def test_worker_receives_the_reducer_of_a_job(server: Server, task: str) -> None:
    with (
        ScriptedWorker(server.address, {task: echo}) as worker,
        ScriptedClient(server.address) as client,
    ):
        client.send(SubmitReduceJob(task.encode(), b"", b"reducer", b"", b"x"))
        client.receive()
        client.expect(WorkComplete, data=b"x")
        assert worker.jobs[0].reducer == b"reducer"


def test_worker_that_polls_receives_a_delayed_job(gearmand: Gearmand, task: str) -> None:
    """Poll, as gearmand wakes no worker when a delayed job becomes due."""
    with (
        ScriptedWorker(gearmand.address, {task: echo}, poll_interval=0.05) as worker,
        ScriptedClient(gearmand.address) as client,
    ):
        client.send(SubmitJobEpoch(task.encode(), b"", b"%d" % (time.time() + 1), b"x"))
        client.expect(JobCreated)
        eventually(lambda: worker.jobs)


def test_worker_of_a_silent_server_raises() -> None:
    with ScriptedServer() as server:
        server.whenever(lambda event: True).silence()
        with pytest.raises(AssertionError, match="the server does not answer"):
            ScriptedWorker(server.address, {"f": echo}, timeout=0.05)


def test_worker_with_an_unexpected_packet_raises() -> None:
    with ScriptedServer() as server:
        server.expect(CanDo)
        server.expect(GrabJobAll).answer(Error(b"code", b"text"))
        worker = ScriptedWorker(server.address, {"f": echo})
        with pytest.raises(AssertionError, match="a worker gets Error"):
            worker.stop()


def test_client_with_tls_and_a_small_buffer_receives_all(
    tls_host: dict[str, Any], tls_context: ssl.SSLContext
) -> None:
    address = ("127.0.0.1", tls_host["port"])
    with ScriptedClient(address, context=tls_context, receive_buffer=4096) as client:
        client.echo(b"x" * 100_000)


def test_ipv6() -> None:
    with JobServer(host="::1") as server, ScriptedClient(server.address) as client:
        client.echo()
    with ScriptedServer(host="::1") as scripted, ScriptedClient(scripted.address) as client:
        client.echo()
    assert scripted.address[0] == "::1"


def test_black_hole_accepts_no_connections() -> None:
    with black_hole() as address, pytest.raises(TimeoutError):
        ScriptedClient(address, timeout=0.05)


def test_black_hole_that_cannot_be_filled_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_sync.testing.sockets._MAX_BACKLOG", 0)
    with pytest.raises(OSError, match="can't be filled"), black_hole():
        pass
