"""Commands of a site: a worker with a copy of `work`, and a report on the server."""

# ruff: noqa: E402, PERF401

import gearman_sync

gearman_sync.install_as_gearman()

import multiprocessing
import sys
import time
from typing import Any

import gearman


class HookedGearmanWorker(gearman.GearmanWorker):  # type: ignore[misc]
    def __init__(self, exit_after_job: bool, host_list: Any = None) -> None:
        super().__init__(host_list=host_list)
        self.exit_after_job = exit_after_job

    def after_job(self) -> bool:
        return not self.exit_after_job


class HaltIfInactiveWorker(HookedGearmanWorker):
    """Ends after some seconds without a job. Another process measures the time."""

    halt_timeout = 5.0

    @staticmethod
    def stopwatch(seconds: float) -> None:
        time.sleep(seconds)
        sys.exit(1)

    def start_watch(self) -> None:
        context = multiprocessing.get_context("fork")
        self.watch = context.Process(target=self.stopwatch, args=(self.halt_timeout,))
        self.watch.start()

    def work(self, poll_timeout: float = 1) -> None:
        continue_working = True
        worker_connections: Any = []
        had_job: list[bool] = []

        def continue_while_connections_alive(any_activity: bool) -> bool:
            if had_job and not self.has_job_lock():
                self.watch.terminate()
                self.watch.join()
                self.start_watch()
                del had_job[:]
                return self.after_poll(any_activity) and self.after_job()
            del had_job[:]
            if self.has_job_lock():
                had_job.append(True)
            elif self.watch.exitcode:
                return False
            return bool(self.after_poll(any_activity))

        self.start_watch()
        while continue_working and not self.watch.exitcode:
            worker_connections = self.establish_worker_connections()
            continue_working = self.poll_connections_until_stopped(
                worker_connections, continue_while_connections_alive, timeout=poll_timeout
            )
        for current_connection in worker_connections:
            current_connection.close()


def server_info(host: str, task_filter: str = "") -> str:
    client = gearman.GearmanAdminClient([host])
    version = client.get_version()
    tasks = [item for item in client.get_status() if task_filter in item["task"]]
    workers = [
        item
        for item in client.get_workers()
        if item["tasks"] and any(task_filter in task for task in item["tasks"])
    ]
    ping = f"{client.ping_server():0.016f}"
    tasks = sorted(tasks, key=lambda item: item["task"])
    workers = sorted(workers, key=lambda item: item["tasks"])
    lines = [f"{host} {version} {ping}"]
    for row in tasks:
        lines.append(f"{row['task']} {row['workers']} {row['running']} {row['queued']}")
    for row in workers:
        lines.append(
            " ".join((row["ip"], ",".join(row["tasks"]), row["client_id"], row["file_descriptor"]))
        )
    return "\n".join(lines)


def submit_job(task_name: str, data: Any = "", client: Any = None, **options: Any) -> Any:
    background = options.pop("background", True)
    wait_until_complete = options.pop("wait_until_complete", False)
    return client.submit_job(
        task_name,
        data=data,
        background=background,
        wait_until_complete=wait_until_complete,
        **options,
    )


def main(server: str, task: str, seconds: str) -> None:
    HaltIfInactiveWorker.halt_timeout = float(seconds)
    worker = HaltIfInactiveWorker(exit_after_job=False, host_list=[server])
    worker.register_task(task, lambda worker, job: job.data)
    worker.work(poll_timeout=0.1)
    print("halted", worker.watch.exitcode)


if __name__ == "__main__":
    main(*sys.argv[1:])
