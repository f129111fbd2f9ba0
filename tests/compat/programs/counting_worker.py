"""Workers with copies of `work`: one that counts its jobs, and one polled by a function."""

# ruff: noqa: E402, TRY300

import gearman_sync

gearman_sync.install_as_gearman()

import logging
import time
from typing import Any

import gearman
from gearman.worker import GearmanWorker


class CountingWorker(gearman.GearmanWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.max_jobs = kwargs.get("max_jobs", 100)
        del kwargs["max_jobs"]
        self.counter = 1
        self.cont = True
        gearman.GearmanWorker.__init__(self, *args, **kwargs)

    def on_job_execute(self, current_job: Any) -> Any:
        if self.counter >= self.max_jobs:
            self.cont = False
        self.counter += 1
        return super().on_job_execute(current_job)

    def work(self, poll_timeout: float = 60) -> None:
        continue_working = True
        worker_connections: Any = []

        def continue_while_connections_alive(any_activity: bool) -> bool:
            return self.after_poll(any_activity)

        while continue_working and self.cont is True:
            worker_connections = self.establish_worker_connections()
            continue_working = self.poll_connections_until_stopped(
                worker_connections, continue_while_connections_alive, timeout=poll_timeout
            )
        for current_connection in worker_connections:
            current_connection.close()

    def work_and_retry(self, poll_timeout: float = 60) -> int:
        """Call `work` until it returns normally. Return the number of lost servers."""
        away = 0
        while True:
            try:
                self.work(poll_timeout)
                return away
            except gearman.errors.ServerUnavailable:
                logging.getLogger("counting").warning("the server is away")
                away += 1
                time.sleep(0.01)

    def after_poll(self, any_activity: bool) -> bool:
        return bool(self.cont)


class MultiGearmanWorker(GearmanWorker):  # type: ignore[misc]
    """Its functions are outside of the class, and processes get pickled copies of it."""

    def __init__(self, host_list: Any = None, jobs: int = 1) -> None:
        super().__init__(host_list=host_list)
        self.jobs = jobs

    def after_poll(self, any_activity: bool) -> bool:
        return self.jobs > 0


def count_down(worker: MultiGearmanWorker, job: Any) -> Any:
    worker.jobs -= 1
    return job.data


def gearman_work(gm_worker: MultiGearmanWorker, poll_timeout: float) -> int:
    """Work in one process. Return the number of remaining jobs."""
    continue_working = True
    worker_connections: Any = []

    def continue_while_connections_alive(any_activity: bool) -> bool:
        return gm_worker.after_poll(any_activity)

    while continue_working:
        worker_connections = gm_worker.establish_worker_connections()
        continue_working = gm_worker.poll_connections_until_stopped(
            worker_connections, continue_while_connections_alive, timeout=poll_timeout
        )
    for current_connection in worker_connections:
        current_connection.close()
    return gm_worker.jobs
