"""Kits for the servers, workers and clients of `gearman_sync` in this process."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

import gearman_sync
from gearman_proto.testing.conformance.program_kit import WORKER, ClientKit, ProgramKit, WorkerKit
from gearman_proto.testing.conformance.server_kit import ServerKit
from gearman_sync.testing.conformance.places import SocketProgramPlace, SocketServerPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gearman_proto.testing.conformance.case import Case
    from gearman_sync.testing.conformance.program import Launch

#: Seconds to wait for an answer.
PATIENCE: Final = 20.0
#: Seconds that a program sleeps for the `slow` data.
WHILE: Final = 0.2

Address = tuple[str, int]


def name_of(case: Case) -> str:
    """Return a name for a case's function."""
    return f"conformance-{case.id}"


# Servers.

# Each case runs many times, and a failing run may leave jobs in the queue of a function.
_TIMES: Final = itertools.count(1)


@contextlib.contextmanager
def serving() -> Iterator[Address]:
    """A JobServer."""
    with gearman_sync.JobServer() as server:
        yield server.address[0], server.address[1]


def server_kit(
    case: Case,
    address: Address,
    has: frozenset[str],
    timeout: float,
    restart: Callable[[], None] | None = None,
) -> ServerKit:
    """Return the kit of a case for servers."""
    place = SocketServerPlace(address, timeout, restart)
    return ServerKit(place, f"{next(_TIMES)}-{name_of(case)}", timeout, has)


# Workers and clients.


class Thread:
    """A program that runs as a thread of this process: `Running`."""

    def __init__(self, main: Callable[[Thread], int], stop: Callable[[], None]) -> None:
        self.status: int | None = None
        self.output: bytes = b""
        self.errors: bytes = b""
        self._main = main
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        status = 1
        try:
            status = self._main(self)
        except Exception:  # noqa: BLE001 - as a program does that ends with a traceback
            self.errors = traceback.format_exc().encode()
        self.status = status

    def signal(self, number: int = 15) -> None:
        """Ask the program to stop."""
        self._stop()

    def end(self) -> None:
        """Ask the program to stop, and wait until it has."""
        self._stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def sync_worker(values: Mapping[str, str], payloads: Sequence[str]) -> Thread:
    """Start a worker of `gearman_sync`."""
    worker = gearman_sync.GearmanWorker([values["address"]], look_again=0.5)
    for function, callback in CALLBACKS.items():
        worker.register_task(function, callback)

    def main(_: Thread) -> int:
        worker.work()
        worker.shutdown()
        return 0

    return Thread(main, worker.stop)


def reverse(worker: Any, job: Any) -> bytes:
    """Return the data in reverse order, optionally after updates, or fail."""
    data: bytes = job.data
    if data.startswith(b"fail"):
        raise ValueError("asked to fail")
    if data.startswith(b"updates"):
        worker.send_job_data(job, b"some")
        worker.send_job_warning(job, b"careful")
        worker.send_job_status(job, 1, 2)
    return data[::-1]


def reverse_slowly(worker: Any, job: Any) -> bytes:
    """Do the same as `reverse`; sleep first if the data begins with `slow`."""
    if job.data.startswith(b"slow"):
        time.sleep(WHILE)
    return reverse(worker, job)


CALLBACKS: Final[dict[str, Callable[[Any, Any], bytes]]] = {
    "reverse": reverse_slowly,
    "other": reverse_slowly,
}


def printed(requests: Sequence[Any], program: Any) -> int:
    """Print the results, one per line, and return the exit status."""
    for request in requests:
        if request.state != gearman_sync.JOB_COMPLETE:
            program.errors += repr(request).encode() + b"\n"
            return 1
    program.output = b"\n".join([request._gm_raw_result for request in requests])
    return 0


def jobs_of(values: Mapping[str, str], payloads: Sequence[str]) -> list[dict[str, Any]]:
    """Return the jobs to submit."""
    return [{"task": values["function"], "data": os.fsencode(data)} for data in payloads]


def sync_client(values: Mapping[str, str], payloads: Sequence[str]) -> Thread:
    """Start a client of `gearman_sync`."""
    client = gearman_sync.GearmanClient([values["address"]])

    def main(program: Thread) -> int:
        try:
            return printed(client.submit_multiple_jobs(jobs_of(values, payloads)), program)
        finally:
            client.shutdown()  # Close its connections, as the exit of a process does.

    return Thread(main, client.shutdown)


def program_kit(case: Case, launch: Launch, timeout: float) -> ProgramKit:
    """Return the kit of a case for workers or clients."""
    make = WorkerKit if case.id in WORKER.cases else ClientKit
    return make(SocketProgramPlace(launch), name_of(case), timeout)
