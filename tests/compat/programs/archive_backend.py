"""The client of archive_worker: collects tasks, submits them in batches, and yields the results."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import uuid
from collections.abc import Iterator
from typing import Any

from gearman import GearmanClient
from gearman.constants import JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN

from tests.compat.programs.json_encoder import JSONDataEncoder


class BackendClient(GearmanClient):  # type: ignore[misc]
    data_encoder = JSONDataEncoder

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


class Batch:
    def __init__(self) -> None:
        self.uuid = uuid.uuid4()
        self.tasks: dict[str, str] = {}
        self.pending: Any = None
        self.collected = False

    def submit(self, client: Any, name: str) -> None:
        tasks = {task: {"arguments": self.tasks[task]} for task in self.tasks}
        self.pending = client.submit_job(
            task=name.encode(),
            data={"tasks": tasks},
            unique=str(self.uuid).encode(),
            wait_until_complete=False,
            background=False,
            max_retries=5,
        )

    def results(self) -> Iterator[tuple[str, Any]]:
        if self.pending.state == JOB_FAILED:
            yield from dict.fromkeys(self.tasks, "failed").items()
        else:
            yield from self.pending.result["task_results"].items()


class Backend:
    batch_size = 2

    def __init__(self, server: str) -> None:
        self.client = BackendClient([server])
        self.batches: list[Batch] = []
        self.current = Batch()

    def submit_task(self, name: str, task: str, arguments: str) -> None:
        self.current.tasks[task] = arguments
        if len(self.current.tasks) == self.batch_size:
            self.flush(name)

    def flush(self, name: str) -> None:
        if self.current.tasks:
            self.current.submit(self.client, name)
            self.batches.append(self.current)
            self.current = Batch()

    def wait_for_results(self, name: str) -> Iterator[tuple[str, Any]]:
        self.flush(name)
        requests = [batch.pending for batch in self.batches]
        self.client.wait_until_jobs_accepted(requests)
        collected = 0
        while collected < len(self.batches):
            requests = self.client.wait_until_any_job_completed(requests)
            for batch in self.batches:
                if not batch.collected and batch.pending.state in (JOB_COMPLETE, JOB_FAILED):
                    yield from batch.results()
                    batch.collected = True
                    collected += 1
            requests = [
                request for request in requests if request.state not in (JOB_COMPLETE, JOB_FAILED)
            ]
