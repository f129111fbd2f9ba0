"""The worker of python-gearman's documentation runs unchanged, except for `print` as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gearman_sync as gearman

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand

    from .support import StartScript

    Run = Callable[[str], dict[str, Any]]


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


def test_worker(
    gearmand: Gearmand, client: gearman.GearmanClient, start_script: StartScript, task: str
) -> None:
    script = start_script(WORKER, "{}:{}".format(*gearmand.address), task)
    client.data_encoder = gearman.JSONEncoder
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
