"""A worker of an archive: each of its jobs is a batch of tasks, as JSON."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import functools
import logging
import os
from typing import Any

import gearman
from gearman.job import GearmanJob

from tests.compat.programs.json_encoder import JSONDataEncoder

logger = logging.getLogger("archive.worker")


class ArchiveWorker(gearman.GearmanWorker):  # type: ignore[misc]
    data_encoder = JSONDataEncoder

    def __init__(
        self,
        hosts: list[str],
        scripts: list[str],
        shutdown_event: Any = None,
    ) -> None:
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
        results = {}
        for uuid, task in gearman_job.data["tasks"].items():
            if task["arguments"] == "crash":
                raise ValueError(f"{script} has crashed")
            results[uuid] = {"exitCode": 0, "stdout": task["arguments"].upper()}
        return {"task_results": results}

    def on_job_exception(self, current_job: GearmanJob, exc_info: Any) -> bool:
        logger.error("an exception in a job", exc_info=exc_info)
        return bool(super().on_job_exception(current_job, exc_info))

    def after_poll(self, any_activity: bool) -> bool:
        return self.shutdown_event is None or not self.shutdown_event.is_set()
