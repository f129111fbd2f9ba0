"""The main job: a client submits jobs, workers do them, and the results come back.

    python examples/quickstart.py [--server HOST:PORT] [--workers N] [FILE ...]

All of it in one process: a job server, two workers in threads of their own, and a client. With
--server, that gearmand takes the place of the job server. Each FILE (the project's own pages, if
none is given) becomes a job for the function `count-words`. With --workers 0 any worker does them
that has registered for that function, such as

    gearman -w -h localhost -p 4730 -f count-words -- wc -w
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gearman_sync as gearman

TASK = "count-words"
PROJECT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the words of files in Gearman jobs.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="the project's own, if none")
    parser.add_argument("--server", metavar="HOST:PORT", help="a gearmand, in place of our own")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="how many; 2")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="quickstart: %(message)s")
    files = arguments.files or pages()
    try:
        jobs = [{"task": TASK, "data": Path(name).read_bytes()} for name in files]
        with contextlib.ExitStack() as stack:
            server = arguments.server
            if server is None:
                server = str(stack.enter_context(gearman.JobServer()).address)
                say(f"server: listening at {server}, for this program only")
            client = stack.enter_context(gearman.GearmanClient([server]))
            return run(client, server, dict(zip(files, jobs)), arguments)
    except (OSError, ValueError) as error:
        return fail(str(error), 2)
    except gearman.errors.ServerUnavailable as error:
        hint = "Without --server, this program brings its own."
        return fail(f"{error}\n{hint}", 3)


def pages() -> list[str]:
    found = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]
    return sorted(os.path.relpath(path) for path in found)


def run(
    client: gearman.GearmanClient,
    server: str,
    jobs: dict[str, dict[str, Any]],
    arguments: argparse.Namespace,
) -> int:
    started = time.perf_counter()
    requests = client.submit_multiple_jobs(
        list(jobs.values()), wait_until_complete=False, poll_timeout=arguments.timeout
    )
    names = dict(zip(requests, jobs))
    for request in requests:
        say(f"client: submitted {names[request]} as {request.handle or 'nothing yet'}")
    with contextlib.ExitStack() as stack:
        for number in range(arguments.workers):
            stack.enter_context(Worker(f"worker {number + 1}", server))
        for request in client.as_completed(requests, poll_timeout=arguments.timeout):
            words = request.result.decode().strip() if request.complete else request.state
            say(f"client: {names[request]} has {words} words")
    late = [request for request in requests if not request.complete]
    for request in late:
        state = "timed out" if request.timed_out else request.state
        say(f"client: {names[request]}: {state}")
    done = len(requests) - len(late)
    say(f"{done} of {len(requests)} jobs done in {time.perf_counter() - started:.3f} s")
    return 1 if late else 0


class Worker:
    """A worker in a thread of its own."""

    def __init__(self, name: str, server: str) -> None:
        self.worker = gearman.GearmanWorker([server])
        self.worker.set_client_id(name)
        self.worker.register_task(TASK, count_words)
        self.thread = threading.Thread(target=self.worker.work, name=name)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.worker.stop()
        self.thread.join()


def count_words(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    words = len(job.data.split())
    say(f"{worker.worker_client_id}: counted {words} words in {job.handle}")
    return str(words)


def say(line: str) -> None:
    # In one piece, as several threads talk.
    print(f"{line}\n", end="", flush=True)


def fail(message: str, status: int) -> int:
    print(f"quickstart: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
