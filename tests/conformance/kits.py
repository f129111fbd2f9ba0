"""What is judged in this process: our servers, workers and clients, on three surfaces."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.from_thread

import gearman_anyio
import gearman_sync
from gearman_sync.testing.conformance.programkit import WORKER, ClientKit, ProgramKit, WorkerKit
from gearman_sync.testing.conformance.serverkit import ServerKit
from tests.conformance.lying import Lie, Lying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gearman_sync.testing.conformance.case import Case
    from gearman_sync.testing.conformance.program import Launch

SURFACES: Final = ("sync", "asyncio", "trio")
#: Seconds that something is waited for where a case is to pass, and where it is to fail.
PATIENCE: Final = 20.0
IMPATIENCE: Final = 0.25
#: How long a program takes that sleeps for a while, in seconds.
WHILE: Final = 0.2

Address = tuple[str, int]


def name_of(case: Case) -> str:
    """Return a name for a case's function."""
    return f"conformance-{case.id}"


# Servers.

# A server has a case many times: what is wrong may leave jobs behind, which are not the next one's.
_TIMES: Final = itertools.count(1)


@contextlib.contextmanager
def serving(surface: str) -> Iterator[Address]:
    """A JobServer."""
    if surface == "sync":
        with gearman_sync.JobServer() as server:
            yield server.address[0], server.address[1]
    else:
        with anyio.from_thread.start_blocking_portal(surface) as portal:
            job_server = gearman_anyio.JobServer()
            with portal.wrap_async_context_manager(job_server):
                yield job_server.address[0], job_server.address[1]


@contextlib.contextmanager
def server_kit(
    case: Case,
    address: Address,
    has: frozenset[str],
    timeout: float,
    lies: Sequence[Lie] = (),
    restart: Callable[[], None] | None = None,
) -> Iterator[ServerKit]:
    """The kit of a case for servers, perhaps with a proxy between that lies."""
    with contextlib.ExitStack() as stack:
        if lies:
            address = stack.enter_context(Lying(address, lies)).address
        name = f"{next(_TIMES)}-{name_of(case)}"
        yield stack.enter_context(ServerKit(address, name, has, timeout, restart))


# Workers and clients.


class Thread:
    """A program that is a thread of this process: `Running`."""

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
        """Ask it to end."""
        self._stop()

    def end(self) -> None:
        """Ask it to end, and wait for that."""
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


def anyio_worker(surface: str) -> Launch:
    """Return what starts a worker of `gearman_anyio`."""

    def launch(values: Mapping[str, str], payloads: Sequence[str]) -> Thread:
        stop = threading.Event()

        async def work() -> None:
            worker = gearman_anyio.GearmanWorker([values["address"]], look_again=0.5)
            for function, callback in CALLBACKS.items():
                worker.register_task(function, callback)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.work)
                while not stop.is_set():  # noqa: ASYNC110 - it is another thread's
                    await anyio.sleep(0.01)
                worker.stop()

        def main(_: Thread) -> int:
            anyio.run(work, backend=surface)
            return 0

        return Thread(main, stop.set)

    return launch


def reverse(worker: Any, job: Any) -> bytes:
    """The data back to front, perhaps with updates before, or after a while; or a failure."""
    data: bytes = job.data
    if data.startswith(b"fail"):
        raise ValueError("asked to fail")
    if data.startswith(b"slow"):
        time.sleep(WHILE)
    if data.startswith(b"updates"):
        worker.send_job_data(job, b"some")
        worker.send_job_warning(job, b"careful")
        worker.send_job_status(job, 1, 2)
    return data[::-1]


CALLBACKS: Final[dict[str, Callable[[Any, Any], bytes]]] = {"reverse": reverse, "other": reverse}
WORKERS: Final[dict[str, Launch]] = {
    "sync": sync_worker,
    "asyncio": anyio_worker("asyncio"),
    "trio": anyio_worker("trio"),
}


def printed(requests: Sequence[Any], program: Thread) -> int:
    """Print results, a line each, and return the exit status."""
    for request in requests:
        if request.state != gearman_sync.JOB_COMPLETE:
            program.errors += repr(request).encode() + b"\n"
            return 1
    program.output = b"\n".join([request._gm_raw_result for request in requests])
    return 0


def jobs_of(values: Mapping[str, str], payloads: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is to be submitted."""
    return [{"task": values["function"], "data": os.fsencode(data)} for data in payloads]


def sync_client(values: Mapping[str, str], payloads: Sequence[str]) -> Thread:
    """Start a client of `gearman_sync`."""
    client = gearman_sync.GearmanClient([values["address"]])

    def main(program: Thread) -> int:
        try:
            return printed(client.submit_multiple_jobs(jobs_of(values, payloads)), program)
        finally:
            client.shutdown()  # As the end of a process closes its connections.

    return Thread(main, client.shutdown)


def anyio_client(surface: str) -> Launch:
    """Return what starts a client of `gearman_anyio`."""

    def launch(values: Mapping[str, str], payloads: Sequence[str]) -> Thread:
        stop = threading.Event()

        async def submit(program: Thread) -> int:
            client = gearman_anyio.GearmanClient([values["address"]])
            status = 1

            async with client, anyio.create_task_group() as tasks:

                async def call() -> None:
                    nonlocal status
                    requests = await client.submit_multiple_jobs(jobs_of(values, payloads))
                    status = printed(requests, program)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(call)
                while not stop.is_set():  # noqa: ASYNC110 - it is another thread's
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            return status

        return Thread(lambda program: anyio.run(submit, program, backend=surface), stop.set)

    return launch


CLIENTS: Final[dict[str, Launch]] = {
    "sync": sync_client,
    "asyncio": anyio_client("asyncio"),
    "trio": anyio_client("trio"),
}


@contextlib.contextmanager
def program_kit(
    case: Case, launch: Launch, timeout: float, lies: Sequence[Lie] = ()
) -> Iterator[ProgramKit]:
    """The kit of a case for workers or clients, perhaps with a proxy between that lies."""
    make = WorkerKit if case.id in WORKER.cases else ClientKit
    with contextlib.ExitStack() as stack:
        kit = stack.enter_context(make(launch, name_of(case), timeout))
        if lies:
            kit.told = stack.enter_context(Lying(kit.address, lies)).address
        yield kit
