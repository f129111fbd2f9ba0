"""Servers, clients and workers by name, with one interface for each kind."""

from __future__ import annotations

import contextlib
import functools
import importlib
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gearman_sync
from gearman_sync.testing import Gate, ScriptedWorker, echo
from tests.peers.functions import FUNCTIONS
from tests.support import (
    PATIENCE,
    EmbeddedServer,
    Gearmand,
    Program,
    eventually,
    require,
    require_module,
    spawn,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from gearman_proto.constants import Priority

    Address = tuple[str, int]

ROOT = Path(__file__).parents[2]
FUNCTIONS_SCRIPT = Path(__file__).with_name("functions.py")


class JobFailed(Exception):
    """Raised by a client if the job failed."""


def import_pygearman() -> Any:
    require_module("gearman")
    return importlib.import_module("gearman")


class Peer(Protocol):
    """A peer that can be closed."""

    def close(self) -> None: ...


class Client(Peer, Protocol):
    """A client that submits jobs with a priority of "high", "low" or None."""

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        """Return the job's result."""

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        """Submit a background job."""


# Servers.


def gearadmin(address: Address, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `gearadmin` and return its output."""
    host, port = address
    return subprocess.run(
        [require("gearadmin"), "-h", host, "-p", str(port), *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


Server = Gearmand | EmbeddedServer

SERVERS: dict[str, Callable[[], Server]] = {"gearmand": Gearmand, "JobServer": EmbeddedServer}


@contextlib.contextmanager
def busy(address: Address) -> Iterator[None]:
    """Give a server a running job, queued jobs of all priorities, and a function without jobs."""
    gate = Gate()
    worker = ScriptedWorker(address, {"held": gate, "free": echo})
    with gearman_sync.GearmanClient([address]) as client:
        jobs: tuple[tuple[str, str, Priority], ...] = (
            ("held", "running", None),
            ("held", "a\\b", None),
            ("idle", "normal", None),
            ("idle", "high 1", gearman_sync.PRIORITY_HIGH),
            ("idle", "high 2", gearman_sync.PRIORITY_HIGH),
            ("idle", "low", gearman_sync.PRIORITY_LOW),
        )
        for task, unique, priority in jobs:
            client.submit_job(task, b"data", unique, priority, background=True)
            wait_for(gate.begun, "the start of a job")
        yield
        gate.open.set()
        worker.stop()


class Script:
    """A module of this package for gear, whose threads need a process of their own."""

    def __init__(self, name: str, *args: str) -> None:
        require_module("gear")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.peers.{name}", *args],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self._process.kill()
        with self._process:
            pass


# Clients.


class LibgearmanClient:
    """libgearman's `gearman` program, run once for each job."""

    def __init__(self, address: Address) -> None:
        host, port = address
        self._command = [require("gearman"), "-h", host, "-p", str(port)]

    def _call(
        self, task: str, data: bytes, priority: str | None, *options: str
    ) -> subprocess.CompletedProcess[bytes]:
        if priority is not None:
            options = (*options, {"high": "-I", "low": "-L"}[priority])
        command = [*self._command, *options, "-f", task]
        return subprocess.run(
            command, input=data, capture_output=True, timeout=PATIENCE, check=False
        )

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        process = self._call(task, data, priority)
        if process.returncode:
            # A warning may precede this line.
            assert process.stderr.endswith(b"Job failed\n"), process
            raise JobFailed
        return process.stdout

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        process = self._call(task, data, priority, "-b")
        assert (process.returncode, process.stderr) == (0, b""), process

    def close(self) -> None:
        pass


class PygearmanClient:
    """The client of pygearman."""

    def __init__(self, address: Address) -> None:
        self._gearman = import_pygearman()
        self._client = self._gearman.GearmanClient([address])
        self.close = self._client.shutdown

    def _submit(self, task: str, data: bytes, priority: str | None, *, background: bool) -> Any:
        request = self._client.submit_job(
            task,
            data,
            priority=priority and priority.upper(),
            background=background,
            # Without a timeout, pygearman does not wait at all.
            poll_timeout=PATIENCE,
        )
        assert not request.timed_out
        return request

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        request = self._submit(task, data, priority, background=False)
        if request.state == self._gearman.JOB_FAILED:
            raise JobFailed
        result: bytes = request.result
        return result

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        self._submit(task, data, priority, background=True)


class GearClient(Script):
    """The client of gear, which keeps its connection."""

    def __init__(self, address: Address) -> None:
        # With half the time, the script reports its errors before this process gives up.
        super().__init__("gear_client", *map(str, address), str(PATIENCE / 2))

    def _submit(self, *job: Any) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(job, self._process.stdin)
        self._process.stdin.flush()
        has_failed, result = pickle.load(self._process.stdout)
        if has_failed:
            raise JobFailed
        assert isinstance(result, bytes)
        return result

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        return self._submit(task, data, priority, False)

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        self._submit(task, data, priority, True)


PRIORITIES: dict[str | None, Priority] = {"high": "HIGH", "low": "LOW", None: None}


class OurClient:
    """The client of this project."""

    def __init__(self, address: Address) -> None:
        self._client = gearman_sync.GearmanClient([address])
        self.close = self._client.shutdown

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        chosen = PRIORITIES[priority]
        request = self._client.submit_job(task, data, None, chosen, poll_timeout=PATIENCE)
        if request.state == gearman_sync.JOB_FAILED:
            raise JobFailed
        assert request.state == gearman_sync.JOB_COMPLETE
        result: bytes = request.result
        return result

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        chosen = PRIORITIES[priority]
        request = self._client.submit_job(task, data, None, chosen, True, poll_timeout=PATIENCE)
        assert request.state == gearman_sync.JOB_CREATED


CLIENTS: dict[str, Callable[[Address], Client]] = {
    "libgearman": LibgearmanClient,
    "pygearman": PygearmanClient,
    "gear": GearClient,
    "gearman_sync": OurClient,
}


# Workers register all of FUNCTIONS, with a prefix.


def callback(function: Callable[[bytes], bytes]) -> Callable[[Any, Any], bytes]:
    return lambda worker, job: function(job.data)


class LibgearmanWorker:
    """libgearman's `gearman` program, one process per function, as each runs one command only."""

    def __init__(self, address: Address, prefix: str) -> None:
        host, port = address
        gearman = (require("gearman"), "-w", "-h", host, "-p", str(port))
        # -I and -S make Python start faster.
        python = (sys.executable, "-I", "-S", str(FUNCTIONS_SCRIPT))
        self._programs = [
            Program(*gearman, "-f", prefix + name, "--", *python, name) for name in FUNCTIONS
        ]
        for program in self._programs:
            program.spawn()

    def close(self) -> None:
        for program in self._programs:
            program.kill()


class PygearmanWorker:
    """The worker of pygearman."""

    def __init__(self, address: Address, prefix: str) -> None:
        stopped = self._stopped = threading.Event()

        class Worker(import_pygearman().GearmanWorker):  # type: ignore[misc]
            def after_poll(self, any_activity: bool) -> bool:
                return not stopped.is_set()

        self._worker = Worker([address])
        for name, function in FUNCTIONS.items():
            # pygearman looks tasks up by their encoded names.
            self._worker.register_task((prefix + name).encode(), callback(function))
        self._work = spawn(self._worker.work, poll_timeout=0.1)

    def close(self) -> None:
        self._stopped.set()
        self._work.result(PATIENCE)
        self._worker.shutdown()


class GearWorker(Script):
    """The worker of gear."""

    def __init__(self, address: Address, prefix: str) -> None:
        super().__init__("gear_worker", *map(str, address), prefix)


class OurWorker:
    """The worker of this project."""

    def __init__(self, address: Address, prefix: str, *, exceptions: bool = False) -> None:
        self._worker = gearman_sync.GearmanWorker([address], exceptions=exceptions)
        for name, function in FUNCTIONS.items():
            self._worker.register_task(prefix + name, callback(function))
        self._work = spawn(self._worker.work)

    def close(self) -> None:
        self._worker.stop()
        self._work.result(PATIENCE)
        self._worker.shutdown()


WORKERS: dict[str, Callable[[Address, str], Peer]] = {
    "libgearman": LibgearmanWorker,
    "pygearman": PygearmanWorker,
    "gear": GearWorker,
    "gearman_sync": OurWorker,
    "exceptions": functools.partial(OurWorker, exceptions=True),
}


class Peers:
    """Starts peers on first use, and stops all of them."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.server = functools.cache(self._start_server)
        self.client = functools.cache(self._start_client)
        self.worker = functools.cache(self._start_worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def _start_server(self, name: str) -> Server:
        """Return a server."""
        server = SERVERS[name]()
        self._stack.callback(server.kill)
        return server

    def _start_client(self, server: str, name: str) -> Client:
        """Return a client of a server."""
        client = CLIENTS[name](self.server(server).address)
        self._stack.callback(client.close)
        return client

    def _start_worker(self, server: str, name: str) -> str:
        """Return the prefix of the tasks of a worker of a server."""
        peer, prefix = self.server(server), f"{name}-"
        self._stack.callback(WORKERS[name](peer.address, prefix).close)
        eventually(
            lambda: all(peer.counts(prefix + function)[2] for function in FUNCTIONS),
            f"the worker {name}",
        )
        return prefix
