"""Servers, clients and workers by name, with one interface for each kind."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import gearman_sync
from tests.peers.functions import FUNCTIONS
from tests.peers.scripts import Answer, Submit
from tests.support import (
    PATIENCE,
    Gearmand,
    Program,
    eventually,
    require,
    require_module,
    spawn,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    Address = tuple[str, int]

ROOT = Path(__file__).parents[2]
FUNCTIONS_SCRIPT = Path(__file__).with_name("functions.py")


class JobFailed(Exception):
    """Raised by a client if the job failed."""


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


def counts(address: Address, task: str) -> tuple[int, int, int]:
    """Return the numbers of jobs of `task`, of running jobs and of workers."""
    for line in gearadmin(address, "--status").stdout.splitlines():
        name, *numbers = line.split("\t")
        if name == task:
            total, running, workers = map(int, numbers)
            return total, running, workers
    return 0, 0, 0


class GearmandServer:
    """The server in C."""

    def __init__(self) -> None:
        self._server = Gearmand()
        self.address = self._server.address

    def close(self) -> None:
        self._server.kill()


class OurServer:
    """The server of this project."""

    def __init__(self) -> None:
        self._server = gearman_sync.JobServer(host="127.0.0.1", port=0)
        self._server.start()
        self.address: Address = self._server.address

    def close(self) -> None:
        self._server.stop()


Server = GearmandServer | OurServer

SERVERS: dict[str, Callable[[], Server]] = {"gearmand": GearmandServer, "JobServer": OurServer}


# Peers in processes of their own.


class Script:
    """A module of this package that runs in a process of its own."""

    def __init__(self, name: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.peers.{name}", *args],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, request: Submit) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        answer: Answer = pickle.load(self._process.stdout)
        return answer

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


class ScriptClient:
    """A client in a process of its own, which keeps its connection."""

    module: str
    script: str

    def __init__(self, address: Address) -> None:
        require_module(self.module)
        host, port = address
        # With half the time, the script reports its errors before this process gives up.
        self._script = Script(self.script, host, str(port), str(PATIENCE / 2))

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        answer = self._script.ask(Submit(task, data, priority, background=False))
        if answer.failed:
            raise JobFailed
        assert answer.result is not None
        return answer.result

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        assert not self._script.ask(Submit(task, data, priority, background=True)).failed

    def close(self) -> None:
        self._script.close()


class PygearmanClient(ScriptClient):
    """pygearman's client."""

    module = "gearman"
    script = "pygearman_client"


class GearClient(ScriptClient):
    """gear's client."""

    module = "gear"
    script = "gear_client"


class LibgearmanClient:
    """libgearman's `gearman` program, run once for each job."""

    def __init__(self, address: Address) -> None:
        host, port = address
        self._command = [require("gearman"), "-h", host, "-p", str(port)]

    def _call(self, task: str, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *options, "-f", task],
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        process = self._call(task, data, *self._options(priority))
        if process.returncode:
            # A warning may precede this line.
            assert process.stderr.endswith(b"Job failed\n"), process
            raise JobFailed
        return process.stdout

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        process = self._call(task, data, "-b", *self._options(priority))
        assert (process.returncode, process.stderr) == (0, b""), process

    def _options(self, priority: str | None) -> list[str]:
        return {None: [], "high": ["-I"], "low": ["-L"]}[priority]

    def close(self) -> None:
        pass


class OurClient:
    """The client of this project."""

    def __init__(self, address: Address) -> None:
        self._client = gearman_sync.GearmanClient([address])

    def run(self, task: str, data: bytes, priority: str | None = None) -> bytes:
        request = self._submit(task, data, priority, background=False)
        if request.state == gearman_sync.JOB_FAILED:
            raise JobFailed
        assert request.state == gearman_sync.JOB_COMPLETE
        result: bytes = request.result
        return result

    def queue(self, task: str, data: bytes, priority: str | None = None) -> None:
        request = self._submit(task, data, priority, background=True)
        assert request.state == gearman_sync.JOB_CREATED

    def _submit(
        self, task: str, data: bytes, priority: str | None, *, background: bool
    ) -> gearman_sync.GearmanJobRequest:
        request = self._client.submit_job(
            task,
            data,
            priority={
                None: gearman_sync.PRIORITY_NONE,
                "high": gearman_sync.PRIORITY_HIGH,
                "low": gearman_sync.PRIORITY_LOW,
            }[priority],
            background=background,
            poll_timeout=PATIENCE,
        )
        assert not request.timed_out
        return request

    def close(self) -> None:
        self._client.shutdown()


CLIENTS: dict[str, Callable[[Address], Client]] = {
    "libgearman": LibgearmanClient,
    "pygearman": PygearmanClient,
    "gear": GearClient,
    "gearman_sync": OurClient,
}


# Workers register all of FUNCTIONS, with a prefix.


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


class PygearmanWorker(Script):
    """pygearman's worker."""

    def __init__(self, address: Address, prefix: str) -> None:
        require_module("gearman")
        super().__init__("pygearman_worker", address[0], str(address[1]), prefix)


class GearWorker(Script):
    """gear's worker."""

    def __init__(self, address: Address, prefix: str) -> None:
        require_module("gear")
        super().__init__("gear_worker", address[0], str(address[1]), prefix)


class OurWorker:
    """The worker of this project."""

    def __init__(self, address: Address, prefix: str, *, exceptions: bool = False) -> None:
        self._worker = gearman_sync.GearmanWorker([address], exceptions=exceptions)
        for name, function in FUNCTIONS.items():
            self._worker.register_task(prefix + name, self._make_callback(function))
        self._work = spawn(self._worker.work)

    @staticmethod
    def _make_callback(
        function: Callable[[bytes], bytes],
    ) -> Callable[[gearman_sync.GearmanWorker, gearman_sync.GearmanJob], bytes]:
        return lambda worker, job: function(job.data)

    def close(self) -> None:
        self._worker.stop()
        self._work.result(PATIENCE)
        self._worker.shutdown()


WORKERS: dict[str, Callable[[Address, str], Peer]] = {
    "libgearman": LibgearmanWorker,
    "pygearman": PygearmanWorker,
    "gear": GearWorker,
    "gearman_sync": OurWorker,
}


class Peers:
    """Starts peers on first use, and stops all of them."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, Server] = {}
        self._clients: dict[tuple[str, str], Client] = {}
        self._workers: dict[tuple[str, str], str] = {}
        # Don't wait again for peers that failed to start.
        self._missing: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def address(self, server: str) -> Address:
        """Return the address of a server."""
        if server not in self._servers:
            peer = self._servers[server] = SERVERS[server]()
            self._stack.callback(peer.close)
        return self._servers[server].address

    def client(self, server: str, name: str) -> Client:
        """Return a client of a server."""
        if (server, name) not in self._clients:
            peer = self._clients[server, name] = CLIENTS[name](self.address(server))
            self._stack.callback(peer.close)
        return self._clients[server, name]

    def worker(self, server: str, name: str) -> str:
        """Return the prefix of the tasks of a worker of a server."""
        assert (server, name) not in self._missing, f"{server} has not got its worker {name}"
        if (server, name) not in self._workers:
            address, prefix = self.address(server), f"{name}-"
            counts(address, prefix)  # Skip before starting anything if gearadmin is missing.
            peer = WORKERS[name](address, prefix)
            self._stack.callback(peer.close)
            tasks = [prefix + function for function in FUNCTIONS]
            try:
                eventually(
                    lambda: all(counts(address, task)[2] for task in tasks), f"the worker {name}"
                )
            except AssertionError:
                self._missing.add((server, name))
                raise
            self._workers[server, name] = prefix
        return self._workers[server, name]
