"""The examples of python-gearman's documentation run unchanged, except for `print` as a function.

Only the port is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_sync.testing import echo
from tests.contract.encoders import JsonEncoder
from tests.support import PATIENCE, Gearmand, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import StartScript, StartWorker

    Run = Callable[[str], dict[str, Any]]

CHECK = """
def check_request_status(job_request):
    if job_request.complete:
        print("Job %s finished!  Result: %s - %s" % (job_request.job.unique, job_request.state, job_request.result))
    elif job_request.timed_out:
        print("Job %s timed out!" % job_request.unique)
    elif job_request.state == JOB_UNKNOWN:
        print("Job %s connection failed!" % job_request.unique)
"""  # noqa: E501 - as it stands

RECOVERING_1 = """
import time
gm_client = gearman.GearmanClient(['localhost:4730'])

list_of_jobs = [dict(task="task_name", data="task binary string"), dict(task="other_task", data="other binary string")]
failed_requests = gm_client.submit_multiple_jobs(list_of_jobs, background=False)

# Let's pretend our assigned requests' Gearman servers all failed
assert all(request.state == JOB_UNKNOWN for request in failed_requests), "All connections didn't fail!"
"""  # noqa: E501

RECOVERING_2 = """
# Let's pretend our assigned requests' don't fail but some simply timeout
retried_connection_failed_requests = gm_client.submit_multiple_requests(failed_requests, wait_until_complete=True, poll_timeout=1.0)
"""  # noqa: E501

# The documentation has a mistake: it does not define `retried_requests`.
RECOVERING_3 = """
retried_requests = retried_connection_failed_requests
timed_out_requests = [job_request for job_request in retried_requests if job_request.timed_out]

# For our timed out requests, lets wait a little longer until they're complete
retried_timed_out_requests = gm_client.submit_multiple_requests(timed_out_requests, wait_until_complete=True, poll_timeout=4.0)
"""  # noqa: E501

WORKER = """
import json, sys
import gearman_sync as gearman

host, task = sys.argv[1:]


class JSONDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return json.loads(decodable_string)


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


@pytest.fixture
def server(start_gearmand: Callable[..., Gearmand]) -> Gearmand:
    """A server that only the test uses."""
    return start_gearmand()


@pytest.fixture
def run(server: Gearmand) -> Iterator[Run]:
    """A function that runs an example and returns the namespace, which all examples share."""
    names: dict[str, Any] = {"gearman": gearman, "JOB_UNKNOWN": gearman.JOB_UNKNOWN}

    def run(text: str) -> dict[str, Any]:
        exec(text.replace("localhost:4730", f"localhost:{server.port}"), names)
        return names

    run(CHECK)
    yield run
    names["gm_client"].shutdown()


def test_recovering(
    run: Run,
    server: Gearmand,
    start_worker: StartWorker,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = spawn(run, RECOVERING_1)
    for task in ("task_name", "other_task"):
        server.wait_for_jobs(task, 1)
    # The client has received JOB_CREATED for both.
    eventually(lambda: len(run("")["gm_client"]._gm_driver.engine.pool.servers[0].link.jobs) == 2)
    server.kill()
    example.result(PATIENCE)
    run("check_request_status(failed_requests[0])")
    assert capsys.readouterr().out.endswith(" connection failed!\n")
    server.start()
    start_worker(server.address, {"task_name": echo})
    names = run(RECOVERING_2)
    timed_out = spawn(run, RECOVERING_3)
    start_worker(server.address, {"other_task": echo})
    timed_out.result(PATIENCE)
    assert [request.job.task for request in names["timed_out_requests"]] == ["other_task"]
    assert [request.result for request in names["retried_requests"]] == [
        b"task binary string",
        b"other binary string",
    ]


def test_worker(
    gearmand: Gearmand, client: gearman.GearmanClient, start_script: StartScript, task: str
) -> None:
    script = start_script(WORKER, "{}:{}".format(*gearmand.address), task)
    client.data_encoder = JsonEncoder
    assert client.submit_job(task, "Hello World!").result == "!dlroW olleH"
    assert "python-worker" in gearmand.client_ids()
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
