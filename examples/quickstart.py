"""The basic case: a client submits jobs, workers do them, and the client receives the results.

    python examples/quickstart.py [--server HOST:PORT] [--workers N] [FILE ...]

Everything runs in one process: a job server, two workers in their own threads, and a client. With
--server, the program uses that gearmand instead of its own job server. Each FILE (by default the
project's own pages) becomes a job for the function `count-words`. With --workers 0, any other
worker that has registered the function does the jobs, such as

    gearman -w -h localhost -p 4730 -f count-words -- wc -w

quickstart_trio.py and quickstart_asyncio.py do the same without threads.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gearman_sync as gearman

TASK = "count-words"
PATIENCE = 5.0
PROJECT = Path(__file__).resolve().parent.parent
ERRORS = (OSError, ValueError, gearman.errors.ServerUnavailable)


def main() -> int:
    arguments = parse_arguments()
    try:
        jobs = read_jobs(arguments.files)
        with contextlib.ExitStack() as stack:
            server = arguments.server
            if server is None:
                server = str(stack.enter_context(gearman.JobServer()).address)
                say(f"server: listening at {server}, for this program only")
            client = stack.enter_context(gearman.GearmanClient([server]))
            return run(client, server, jobs, arguments)
    except ERRORS as error:
        return fail(error)


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
    for request, name in names.items():
        say(f"client: submitted {name} as {request.handle or 'nothing yet'}")
    gate = Gate(min(arguments.workers, len(jobs)))
    with contextlib.ExitStack() as stack:
        for number in range(arguments.workers):
            stack.enter_context(Worker(f"worker {number + 1}", server, gate))
        for request in client.as_completed(requests, poll_timeout=arguments.timeout):
            if request.state == gearman.JOB_COMPLETE:
                say(f"client: {names[request]} has {request.result.decode().strip()} words")
    return summary(names, started, arguments.server)


class Worker:
    """A worker in its own thread."""

    def __init__(self, name: str, server: str, gate: Gate) -> None:
        self.worker = gearman.GearmanWorker([server])
        self.worker.set_client_id(name)
        self.worker.register_task(TASK, functools.partial(count_words, gate))
        self.thread = threading.Thread(target=self.worker.work, name=name)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.worker.stop()
        self.thread.join()


def count_words(gate: Gate, worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    gate.wait(worker.worker_client_id)
    words = len(job.data.split())
    say(f"{worker.worker_client_id}: counted {words} words in {job.handle}")
    return str(words)


class Gate:
    """Holds the first jobs until each worker has one.

    Otherwise the first worker might do all jobs.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.with_a_job: set[str | None] = set()
        self.open = threading.Event()

    def wait(self, worker: str | None) -> None:
        self.with_a_job.add(worker)
        if len(self.with_a_job) < self.workers:
            # Use a timeout: other workers might have taken the other jobs.
            self.open.wait(PATIENCE)
        self.open.set()


# The command line.


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the words of files in Gearman jobs.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="the project's own, if none")
    parser.add_argument("--server", metavar="HOST:PORT", help="a gearmand, in place of our own")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="how many; 2")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    logging.basicConfig(level=logging.ERROR, format="quickstart: %(message)s")
    return parser.parse_args()


def read_jobs(files: list[str]) -> dict[str, dict[str, Any]]:
    if not files:
        found = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
        files = sorted(os.path.relpath(path) for path in found)
    return {name: {"task": TASK, "data": Path(name).read_bytes()} for name in files}


def summary(names: dict[gearman.GearmanJobRequest, str], started: float, server: str | None) -> int:
    late = [request for request in names if request.state != gearman.JOB_COMPLETE]
    for request in late:
        say(f"client: {names[request]}: {'timed out' if request.timed_out else request.state}")
    done = len(names) - len(late)
    say(f"{done} of {len(names)} jobs done in {time.perf_counter() - started:.3f} s")
    if late:
        return 1
    say_what_next(server)
    return 0


def say_what_next(server: str | None) -> None:
    python = Path(sys.executable)
    say("")
    if server is None:
        say(f"With a gearmand:    {short(python)} {short(sys.argv[0])} --server localhost:4730")
    extra = shlex.quote(f"{short(PROJECT)}[cli]")
    say(
        f"On a command line:  {short(python)} -m pip install {extra}; "
        f"{short(python.with_name('gearmanctl'))} --help\n"
        f"All that there is:  {short(PROJECT / 'docs' / 'index.md')}"
    )


def short(path: str | Path) -> str:
    return shlex.quote(min(str(path), os.path.relpath(path), key=len))


def say(line: str) -> None:
    # Print with one call, because several threads print.
    print(f"{line}\n", end="", flush=True)


def fail(error: Exception) -> int:
    print(f"quickstart: {error}", file=sys.stderr)
    if not isinstance(error, gearman.errors.ServerUnavailable):
        return 2
    print("Without --server, this program brings its own.", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
