"""A scripted worker and a scripted client do as the test says, at a job server."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_FAILED
from gearman_proto.wire.packets import (
    CanDo,
    EchoReq,
    Error,
    GrabJobAll,
    JobCreated,
    NoJob,
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
from tests.support import PATIENCE, eventually, free_port, spawn, wait_for

if TYPE_CHECKING:
    import ssl

    from tests.support import EmbeddedServer, Gearmand

    Server = Gearmand | EmbeddedServer

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")


def test_how_a_job_ends(server: Server, task: str) -> None:
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


def test_a_gate(server: Server, task: str) -> None:
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


def test_a_gate_that_nobody_opens(server: Server, task: str) -> None:
    worker = ScriptedWorker(server.address, {task: Gate(timeout=0.01)})
    with GearmanClient([server.address]) as client:
        request = client.submit_job(task, b"", poll_timeout=PATIENCE)
    assert request.state == JOB_FAILED
    with pytest.raises(AssertionError, match="nobody has opened a gate"):
        worker.stop()


@pytest.mark.slow
def test_a_function_that_does_not_end(server: Server, task: str) -> None:
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


def test_a_function_that_closes(server: Server, task: str) -> None:
    """The server gives the job to another worker."""

    def vanish(job: ScriptedJob) -> bytes:
        job.worker.reset()
        return b"to nobody"

    with GearmanClient([server.address]) as client, ScriptedWorker(server.address, {task: vanish}):
        request = client.submit_job(task, b"x", wait_until_complete=False)
        with ScriptedWorker(server.address, {task: echo}):
            assert client.wait_until_jobs_completed([request])[0].result == b"x"


def test_a_job_with_a_reducer(server: Server, task: str) -> None:
    with (
        ScriptedWorker(server.address, {task: echo}) as worker,
        ScriptedClient(server.address) as client,
    ):
        client.send(SubmitReduceJob(task.encode(), b"", b"reducer", b"", b"x"))
        client.receive()
        client.expect(WorkComplete, data=b"x")
        assert worker.jobs[0].reducer == b"reducer"


def test_a_worker_that_looks_again(gearmand: Gearmand, task: str) -> None:
    """That gearmand wakes nobody when the time of a job has come."""
    with (
        ScriptedWorker(gearmand.address, {task: echo}, look_again=0.05) as worker,
        ScriptedClient(gearmand.address) as client,
    ):
        client.send(SubmitJobEpoch(task.encode(), b"", b"%d" % (time.time() + 1), b"x"))
        client.expect(JobCreated)
        eventually(lambda: worker.jobs)


def test_a_server_that_does_not_answer() -> None:
    with ScriptedServer() as server:
        server.whenever(lambda event: True).silence()
        with pytest.raises(AssertionError, match="the server does not answer"):
            ScriptedWorker(server.address, {"f": echo}, timeout=0.05)


def test_what_a_worker_does_not_get() -> None:
    with ScriptedServer() as server:
        server.expect(CanDo)
        server.expect(GrabJobAll).answer(Error(b"code", b"text"))
        worker = ScriptedWorker(server.address, {"f": echo})
        with pytest.raises(AssertionError, match="a worker gets Error"):
            worker.stop()


def test_a_worker_without_a_server() -> None:
    with pytest.raises(ConnectionRefusedError):
        ScriptedWorker(("127.0.0.1", free_port()), {"f": echo})


def test_a_client_with_tls_and_a_small_buffer(
    tls_host: dict[str, Any], tls_context: ssl.SSLContext
) -> None:
    address = ("127.0.0.1", tls_host["port"])
    with ScriptedClient(address, context=tls_context, receive_buffer=4096) as client:
        client.echo(b"x" * 100_000)


def test_a_client_says_what_it_got(server: Server) -> None:
    with ScriptedClient(server.address) as client:
        client.send(EchoReq(b"1"))
        with pytest.raises(AssertionError, match=r"expected NoJob, and not EchoRes\(data=b'1'\)"):
            client.expect(NoJob)


def test_ipv6() -> None:
    with JobServer(host="::1") as server, ScriptedClient(server.address) as client:
        client.echo()
    with ScriptedServer(host="::1") as scripted, ScriptedClient(scripted.address) as client:
        client.echo()
    assert scripted.address[0] == "::1"


def test_black_hole() -> None:
    with black_hole() as address, pytest.raises(TimeoutError):
        ScriptedClient(address, timeout=0.05)


def test_no_black_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_sync.testing.unreachable._MAX_BACKLOG", 0)
    with pytest.raises(OSError, match="can't be filled"), black_hole():
        pass
