"""The blocking worker without failures: in forks, and with programs for python-gearman."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidWorkerState
from gearman_sync import (
    GearmanClient,
    GearmanWorker,
    WorkerJob,
)
from tests.contract.encoders import JsonEncoder
from tests.support import PATIENCE, eventually, spawn

from .test_fork import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Administered

    from .support import Script, Working

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    Work = Callable[..., Working]
    StartScript = Callable[..., Script]
    Server = Administered


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


def client_ids(server: Server) -> list[str]:
    """Return the client ids of the server's connections."""
    return [line.split(" ")[2] for line in server.admin("workers").splitlines()[:-1]]


def test_context_manager(server: Server, task: str) -> None:
    with GearmanWorker([server.address]) as worker:
        worker.register_task(task, reverse)
        call = spawn(worker.work)
        eventually(lambda: server.counts(task) == (0, 0, 1))
    call.result(PATIENCE)
    with pytest.raises(InvalidWorkerState, match="shut down"):
        worker.work()


def test_an_async_callback() -> None:
    """An async callback is refused, because its coroutines would never run."""

    async def waits(worker: GearmanWorker, job: WorkerJob) -> bytes:
        return b""

    with GearmanWorker(["localhost:1"]) as worker:
        with pytest.raises(TypeError, match=r"gearman_anyio\.GearmanWorker does"):
            worker.register_task("task", waits)
        assert worker.worker_abilities == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_in_a_callback(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        worker.send_job_status(job, 1, 1)
        return job.data

    working = work(server.address, tasks={task: function})
    client = make_client(server.address)
    for number in range(3):
        assert client.submit_job(task, b"%d" % number).result == b"%d" % number
    assert server.counts(task) == (0, 0, 1)
    working.worker.stop()
    working.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("place", "how", "status"),
    [("work", "returns", 1), ("pool", "raises", 1), ("hook", "exits", 7)],
)
def test_child_ends_where_its_callback_does(
    gearmand: Server,
    make_client: MakeClient,
    work: Work,
    task: str,
    place: str,
    how: str,
    status: int,
) -> None:
    children: list[int] = []

    def fork() -> bool:
        """Fork, and return whether this process is the child."""
        if (child := os.fork()) != 0:
            children.append(child)
            return False
        # If it goes on, it is not for ever.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        if how == "raises":
            raise ZeroDivisionError("in the child")
        if how == "exits":
            sys.exit(7)
        return True

    class Hooked(GearmanWorker):
        def on_job_execute(self, current_job: WorkerJob) -> bool:
            if place == "hook" and fork():
                return True
            return super().on_job_execute(current_job)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if place != "hook" and fork():
            return b"of the child"
        return job.data

    working = work(
        gearmand.address,
        tasks={task: function},
        kind=Hooked,
        max_jobs=2 if place == "pool" else 1,
    )
    client = make_client(gearmand.address)
    for number in range(2):
        assert client.submit_job(task, b"%d" % number).result == b"%d" % number
    for child in children:
        _, ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended) == status
    assert len(children) == 2
    working.worker.stop()
    working.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_work_in_a_fork(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    """The child inherits the registered tasks and the client id."""
    client = make_client(server.address)
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": b""}] * 2, wait_until_complete=False
    )
    worker = make_worker(server.address)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.stop()
        return f"{worker.worker_client_id} {os.getpid()}".encode()

    worker.register_task(task, function, timeout=20)
    worker.set_client_id(task)

    def in_child() -> int:
        worker.work()
        worker.shutdown()
        return os.getpid()

    child = Child(in_child).result()
    worker.work()
    client.wait_until_jobs_completed(requests)
    results = [request.result.decode() for request in requests]
    assert results == [f"{task} {child}", f"{task} {os.getpid()}"]


# Programs of python-gearman's documentation.


_PROGRAM = """
import json, pickle, sys
import gearman_sync as gearman

host, task = sys.argv[1:]


class JSONDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return json.loads(decodable_string)


class PickleDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return pickle.loads(decodable_string)


class CustomGearmanWorker(gearman.GearmanWorker):
    data_encoder = JSONDataEncoder
    jobs = 0

    def on_job_execute(self, current_job):
        print("Job started", flush=True)
        return super(CustomGearmanWorker, self).on_job_execute(current_job)

    def on_job_exception(self, current_job, exc_info):
        print("Job failed, CAN stop last gasp GEARMAN_COMMAND_WORK_FAIL", flush=True)
        return super(CustomGearmanWorker, self).on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job, job_result):
        print("Job completed, CAN stop last gasp GEARMAN_COMMAND_WORK_COMPLETE", flush=True)
        self.jobs += 1
        return super(CustomGearmanWorker, self).send_job_complete(current_job, job_result)

    def after_poll(self, any_activity):
        # Return True if you want to continue polling, replaces callback_fxn
        return self.jobs < 2


def task_listener_reverse(gearman_worker, gearman_job):
    return gearman_job.data[::-1]


def task_listener_reverse_inflight(gearman_worker, gearman_job):
    reversed_data = reversed(gearman_job.data)
    total_chars = len(gearman_job.data)
    for idx, character in enumerate(reversed_data):
        gearman_worker.send_job_data(gearman_job, str(character))
        gearman_worker.send_job_status(gearman_job, idx + 1, total_chars)
    return None


def task_listener_raises(gearman_worker, gearman_job):
    raise ValueError(gearman_job.data)


gm_worker = CustomGearmanWorker([host])
# gm_worker.set_client_id is optional
gm_worker.set_client_id("python-worker")
gm_worker.register_task(task, task_listener_reverse)
gm_worker.register_task(task + "-inflight", task_listener_reverse_inflight)
gm_worker.register_task(task + "-raises", task_listener_raises)
gm_worker.work()
gm_worker.shutdown()
print("ended")
"""


def test_program_for_python_gearman(
    server: Server, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    script = start_script(_PROGRAM, "{}:{}".format(*server.address), task)
    client = make_client(server.address)
    client.data_encoder = JsonEncoder
    assert client.submit_job(task, "Hello World!").result == "!dlroW olleH"
    assert "python-worker" in client_ids(server)
    failed = client.submit_job(f"{task}-raises", "why")
    assert failed.state == gearman.JOB_FAILED
    assert list(failed.warning_updates) == ["ValueError: why"]
    request = client.submit_job(f"{task}-inflight", "abc")
    assert list(request.data_updates) == ["c", "b", "a"]
    assert list(request.status_updates) == [(1, 3), (2, 3), (3, 3)]
    out, _, status = script.end()
    started = "Job started\n"
    completed = "Job completed, CAN stop last gasp GEARMAN_COMMAND_WORK_COMPLETE\n"
    raised = "Job failed, CAN stop last gasp GEARMAN_COMMAND_WORK_FAIL\n"
    assert out == started + completed + started + raised + started + completed + "ended\n"
    assert status == 0
