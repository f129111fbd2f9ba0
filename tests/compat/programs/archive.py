"""An archive's client and worker, whose jobs are JSON."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import functools
import json
import logging
import os
import uuid
from typing import Any

import gearman
from gearman import DataEncoder, GearmanClient
from gearman.constants import JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN
from gearman.job import GearmanJob, GearmanJobRequest

logger = logging.getLogger("archive.worker")


class JSONDataEncoder(DataEncoder):  # type: ignore[misc]
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        return json.loads(decodable_string)


class ArchiveClient(GearmanClient):  # type: ignore[misc]
    data_encoder = JSONDataEncoder

    def submit(self, task: str, arguments: str) -> GearmanJobRequest:
        return self.submit_job(
            task=task.encode(),
            data={"arguments": arguments},
            unique=str(uuid.uuid4()).encode(),
            wait_until_complete=False,
            background=False,
            max_retries=5,
        )

    def wait_until_any_job_completed(self, job_requests: Any, poll_timeout: Any = None) -> Any:
        def continue_while_no_job_completed(any_activity: bool) -> bool:
            for current_request in job_requests:
                if current_request.complete and current_request.state != JOB_UNKNOWN:
                    return False
            return True

        self.poll_connections_until_stopped(
            self.connection_list, continue_while_no_job_completed, timeout=poll_timeout
        )
        for current_request in job_requests:
            if current_request.complete:
                self.request_to_rotating_connection_queue.pop(current_request, None)
        return job_requests

    def collect(self, requests: list[GearmanJobRequest]) -> list[GearmanJobRequest]:
        """Return the requests in order of completion."""
        self.wait_until_jobs_accepted(requests)
        ended: list[GearmanJobRequest] = []
        while requests:
            self.wait_until_any_job_completed(requests)
            ended += [each for each in requests if each.state in (JOB_COMPLETE, JOB_FAILED)]
            requests = [each for each in requests if each not in ended]
        return ended


class ArchiveWorker(gearman.GearmanWorker):  # type: ignore[misc]
    data_encoder = JSONDataEncoder

    def __init__(self, hosts: list[str], scripts: list[str], shutdown_event: Any = None) -> None:
        super().__init__(hosts)
        self.client_id = f"archive-{os.getpid()}"
        self.shutdown_event = shutdown_event
        self.uniques: list[str] = []
        self.set_client_id(self.client_id.encode("ascii"))
        for script in scripts:
            self.register_task(script.encode(), functools.partial(self.handle_job, script))

    def handle_job(
        self, script: str, gearman_worker: gearman.GearmanWorker, gearman_job: GearmanJob
    ) -> dict[str, Any]:
        self.uniques.append(gearman_job.unique.decode())
        if gearman_job.data["arguments"] == "crash":
            raise ValueError(f"{script} has crashed")
        return {"stdout": gearman_job.data["arguments"].upper()}

    def on_job_exception(self, current_job: GearmanJob, exc_info: Any) -> bool:
        logger.error("an exception in a job", exc_info=exc_info)
        return bool(super().on_job_exception(current_job, exc_info))

    def after_poll(self, any_activity: bool) -> bool:
        return self.shutdown_event is None or not self.shutdown_event.is_set()
