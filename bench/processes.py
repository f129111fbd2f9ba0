"""Starts subjects and their peers in separate processes, and communicates with them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import raw
from .child import answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .rounds import Figures

ROOT = Path(__file__).parent.parent
# Debian installs gearmand into a directory that users' PATH seldom contains.
GEARMAND = shutil.which("gearmand") or shutil.which("gearmand", path="/usr/sbin:/usr/local/sbin")
# A hash table that is large enough, and one I/O thread, which is the fastest setup.
_OPTIONS = ("-L", "127.0.0.1", "-l", os.devnull, "--hashtable-buckets", "2000003", "-t", "1")
# Seconds to wait for any answer.
_PATIENCE = 300.0


def environment() -> dict[str, str]:
    """Return the environment for a Python process. It caches bytecode, in a temporary directory."""
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": str(scratch() / "code")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


class Child:
    """A process that does measurements on request. See `child`."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill the process if it is running."""
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, number: int) -> Figures:
        """Send a number, and return the figures that the process answers."""
        self.tell(number)
        return self.answer()

    def tell(self, number: int) -> None:
        """Send a number."""
        assert self.process.stdin
        self.process.stdin.write(b"%d\n" % number)

    def answer(self) -> Figures:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], _PATIENCE)[0]:
            sys.exit(f"{self.process.args!r} does not answer")
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args!r} has ended: {self.process.wait()}")
        figures: Figures = json.loads(line)
        return figures


def python(function: Any, **options: Any) -> Child:
    """Start a process that runs a function of one of our modules."""
    command = [sys.executable, "-m", "bench.child", function.__module__, function.__name__]
    return Child(*command, json.dumps(options))


class Server:
    """A running job server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.pid = process.pid
        #: Kills the server.
        self.end = process.kill


@contextlib.contextmanager
def serving(
    kind: str = "gearmand",
    processors: set[int] | None = None,
    options: Iterable[str] = _OPTIONS,
) -> Iterator[Server]:
    """Run gearmand, `gearman_sync.JobServer` or gear's server on a free port.

    Args:
        kind: The server.
        processors: As in `on`.
        options: The options of gearmand.
    """
    port = free_port()
    with on(processors):
        if kind == "gearmand":
            process = subprocess.Popen(
                [str(GEARMAND), "-p", str(port), *options],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        else:
            process = python(serve if kind == "JobServer" else serve_gear, port=port).process
    with process:
        try:
            raw.connect(port).close()
            yield Server(port, process)
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def on(processors: set[int] | None) -> Iterator[None]:
    """Run processes started in this context on these processors.

    An empty set means no restriction.
    """
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processors() -> tuple[set[int], set[int]]:
    """Return one processor for the subject, and all others for its peers.

    Otherwise the system decides whether both share a processor, which halves or doubles the time of
    a round trip. Both sets are empty if there is only one processor.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


def raise_descriptors() -> int:
    """Raise the limit of descriptors to the maximum, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


@functools.cache
def compiled(name: str) -> str | None:
    """Compile one of our C programs with libgearman.

    Return its path, or None if that is impossible here.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = str(scratch() / name)
    source = str(Path(__file__).with_name(f"{name}.c"))
    command = [compiler, "-O2", "-o", program, source, "-lgearman"]
    result = subprocess.run(command, capture_output=True, check=False)
    return None if result.returncode else program


@functools.cache
def scratch() -> Path:
    """Return a temporary directory that is deleted at exit."""
    return Path(_DIRECTORIES.enter_context(tempfile.TemporaryDirectory()))


_DIRECTORIES = contextlib.ExitStack()
atexit.register(_DIRECTORIES.close)


# Code for the processes of servers and workers.


def serve(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    raise_descriptors()
    with gearman_sync.JobServer(host="127.0.0.1", port=port):
        sys.stdin.read()


def serve_gear(port: int) -> None:
    import gear  # noqa: PLC0415

    # The server complains about OPTION_REQ, which it does not know.
    logging.getLogger("gear").setLevel(logging.CRITICAL)
    gear.Server(port=port, host="127.0.0.1")
    sys.stdin.read()
    # The server's threads would keep the process alive.
    os._exit(0)


def work(port: int, **options: Any) -> None:
    """Do jobs with a raw socket until the server disconnects."""
    answer({"idle": raw.work(port, **options)})
