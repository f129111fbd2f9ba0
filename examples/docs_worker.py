"""The worker for the examples in README.md and docs/.

    python examples/docs_worker.py [--server HOST:PORT]

The worker does the examples' functions, for the server on this machine at port 4730, until Ctrl-C.
If no server listens there, the program starts a job server, so only Python is needed. That server
ends with the program.
"""

# ruff: noqa: ARG001 - all callbacks have the same parameters

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import gearman_sync as gearman
from gearman_proto import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gearman_proto import ServerAddress

    Callback = Callable[[gearman.GearmanWorker, gearman.WorkerJob], Any]

HERE = ("localhost", "127.0.0.1", "::1")


# The functions. Each receives the data of a job as bytes, and returns its result.


def reverse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    """Return the data in reverse order."""
    data: bytes = job.data
    return data[::-1]


def add(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    """Return the sum of a list of numbers, in JSON."""
    return json.dumps({"sum": sum(json.loads(job.data))})


def divide(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    """Divide the numbers in a text like "6 by 3". "1 by 0" fails."""
    numerator, denominator = map(int, job.data.split(b" by "))
    return str(numerator // denominator)


def refuse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> None:
    """Fail always."""
    raise ValueError("not today")


def slow(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    """Return the data after two seconds."""
    time.sleep(2)
    data: bytes = job.data
    return data


# Two workers with one job at a time each. So `slow` delays no other function, and all other results
# arrive in the order of their jobs.
WORKERS: dict[str, tuple[Callback, ...]] = {
    "docs-worker": (reverse, add, divide, refuse),
    "docs-worker-slow": (slow,),
}


@contextlib.contextmanager
def working(servers: Sequence[Any]) -> Iterator[None]:
    """Run the workers in their own threads."""
    with contextlib.ExitStack() as stack:
        for name, callbacks in WORKERS.items():
            # While a server restarts, the workers retry without a limit.
            worker = gearman.GearmanWorker(servers, max_outage=None, poll_interval=1.0)
            worker.set_client_id(name)
            for callback in callbacks:
                worker.register_task(callback.__name__, callback)
            thread = threading.Thread(target=worker.work, name=name)
            thread.start()
            stack.callback(worker.shutdown)
            stack.callback(thread.join)
            stack.callback(worker.stop)
        yield


def bring_server(address: ServerAddress) -> contextlib.AbstractContextManager[object]:
    """Start a job server if `address` is on this machine and no server listens there."""
    try:
        with gearman.GearmanAdminClient([address]) as admin:
            admin.ping_server()
        return contextlib.nullcontext()
    except gearman.errors.ServerUnavailable:
        if address.host not in HERE:
            raise
    say(f"server: nobody listens at {address}, so a job server of this program does")
    return gearman.JobServer(address.host, address.port)


def main() -> int:
    parser = argparse.ArgumentParser(description="Do the functions that the documentation names.")
    parser.add_argument("--server", metavar="HOST:PORT", default="localhost:4730")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="docs_worker: %(message)s")
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        address = parse_address(arguments.server)
        with bring_server(address), working([address]):
            functions = ", ".join(one.__name__ for some in WORKERS.values() for one in some)
            say(f"worker: doing {functions} at {address}; Ctrl-C ends it")
            # Sleep in short intervals. A signal that arrives just before a sleep does not interrupt
            # it, and its handler runs only afterwards. (A handler must not call `set` of an Event.)
            while not signals:
                time.sleep(0.2)
    except gearman.errors.ServerUnavailable as error:
        return fail(error, 3)
    except (OSError, ValueError, gearman.errors.GearmanError) as error:
        return fail(error, 2)
    return 0


def say(line: str) -> None:
    print(line, flush=True)


def fail(error: Exception, status: int) -> int:
    print(f"docs_worker: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
