"""The program of each process: it imports the application, and does jobs.

SIGTERM and SIGINT drain it, SIGUSR1 pauses and SIGUSR2 resumes it, and SIGQUIT ends it at once. If
the supervisor is gone, its socket ends, which drains it too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.errors import GearmanError, ServerUnavailable
from gearman_proto.signals import SIGNALLED
from gearman_proto.surface.callbacks import is_async
from gearman_proto.surface.tasks import JobLogFilter, Tasks, is_async_context
from gearman_sync import GearmanAdminClient, GearmanWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto import WorkerJob

logger: Final = logging.getLogger("gearman.run")

_FORMAT: Final = (
    "%(asctime)s %(process)d %(levelname)s %(name)s %(gearman_function)s %(gearman_handle)s: "
    "%(message)s"
)
#: The most characters of a traceback in a message.
_MAX_TRACEBACK: Final = 100_000


class Supervised:
    """The supervisor, as its child sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Send a message. Without a supervisor, do nothing."""
        data = json.dumps({"version": 1, **message}).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(data)

    def drain_at_end(self) -> None:
        """Drain this process when the supervisor is gone (in a thread of its own)."""
        with contextlib.suppress(OSError):
            while self._sock.recv(1 << 12):
                pass
        os.kill(os.getpid(), signal.SIGTERM)


class Limits:
    """The limits after which this process asks to be replaced, each up to a tenth more.

    Args:
        supervised: The supervisor.
        max_jobs: The number of jobs, or None.
        max_memory: Resident memory in megabytes, or None.
    """

    def __init__(
        self, supervised: Supervised, max_jobs: int | None, max_memory: int | None
    ) -> None:
        self._supervised = supervised
        self._max_memory = max_memory
        self._left = None if max_jobs is None else round(max_jobs * random.uniform(1, 1.1))  # noqa: S311
        self._memory = None if max_memory is None else max_memory * random.uniform(1, 1.1)  # noqa: S311
        self._has_asked = False

    def check_start(self) -> None:
        """Check that the memory limit leaves room for jobs.

        Raises:
            ValueError: It does not.
        """
        if self._max_memory is not None and (used := _memory_used()) > self._max_memory:
            raise ValueError(
                f"--max-memory is {self._max_memory} MB, and a process without jobs has {used:.0f}"
            )

    def after_job(self) -> bool:
        """Ask to be replaced if a limit is reached (a hook of the worker)."""
        reason = None
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                reason = "it has done its number of jobs"
        if self._memory is not None and (used := _memory_used()) > self._memory:
            reason = f"it has {used:.0f} MB"
        if reason is not None and not self._has_asked:
            self._has_asked = True
            self._supervised.say(recycle=reason)
        return True


def _memory_used() -> float:
    """Return the resident memory of this process, in megabytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Running:
    """The running jobs, each with the time of its start."""

    def __init__(self) -> None:
        self._jobs: dict[WorkerJob, float] = {}

    @contextlib.contextmanager
    def around(self, job: WorkerJob) -> Iterator[None]:
        """Note `job` while it runs."""
        self._jobs[job] = time.monotonic()
        try:
            yield
        finally:
            del self._jobs[job]

    def end_process(self, number: int) -> None:
        """End this process at once. Servers give the jobs to other workers."""
        for job, since in [*self._jobs.items()]:
            age = time.monotonic() - since
            logger.error("%r ends with its process, after %.1f s", job, age)
        logging.shutdown()
        os._exit(SIGNALLED + number)


def find_app(name: str) -> Any:
    """Return the object ``MODULE:OBJECT``."""
    module, _, path = name.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def registry_of(found: Any, name: str) -> Tasks:
    """Return the registry that the object of the command line is.

    Raises:
        TypeError: It is neither a registry nor a dict.
    """
    if not isinstance(found, (Tasks, dict)):
        raise TypeError(
            f"{name} is a Tasks or a dict of names and callbacks, or with --factory a function "
            f"that returns a worker; not {found!r}"
        )
    return Tasks._gm_of(found)  # noqa: SLF001 - one implementation for this and `register`


def needs_awaiting(tasks: Tasks) -> bool:
    """Return True if a callback or a context manager is async."""
    callbacks = [task.callback for task in tasks._gm_tasks.values()]  # noqa: SLF001
    managers = [*tasks.around, *([tasks.lifespan] if tasks.lifespan else [])]
    return any(map(is_async, callbacks)) or any(map(is_async_context, managers))


def _make_worker(settings: dict[str, Any], running: Running) -> tuple[Any, Any]:
    """Return the worker, and the function that makes the context manager of this process."""
    found = find_app(settings["app"])
    if settings["factory"]:
        return found(), contextlib.nullcontext
    tasks = registry_of(found, settings["app"])
    tasks.around = (running.around, *tasks.around)
    kind: Any = GearmanWorker
    if needs_awaiting(tasks):
        kind = importlib.import_module("gearman_anyio").GearmanWorker
    worker = kind(settings["servers"], max_jobs=settings["jobs"], max_outage=None)
    worker.register(tasks)
    worker.set_client_id(f"{settings['id']}:{os.getpid()}:{settings['slot']}"[-127:])
    return worker, tasks.lifespan or contextlib.nullcontext


def _check_servers(servers: list[str]) -> None:
    """Check that a server answers.

    Raises:
        ServerUnavailable: None does.
    """
    reasons = []
    for server in servers:
        try:
            with GearmanAdminClient([server]) as client:
                client.ping_server()
                return
        except GearmanError as error:
            reasons.append(str(error))
    raise ServerUnavailable("; ".join(reasons))


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(JobLogFilter())


def _work(worker: GearmanWorker, ready: Callable[[], None], lifespan: Any) -> None:
    def obey(number: int, _frame: object) -> None:
        if number == signal.SIGUSR1:
            worker.pause()
        elif number == signal.SIGUSR2:
            worker.resume()
        else:
            worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, obey)
    with lifespan():
        ready()
        worker.work()


def main(argument: str) -> int:
    """Run the worker, and return the exit status.

    Args:
        argument: The settings of the supervisor, as JSON.
    """
    settings = json.loads(argument)
    supervised = Supervised(socket.socket(fileno=settings["socket"]))
    os.set_inheritable(settings["socket"], False)
    running = Running()
    sys.path.insert(0, settings["directory"])
    limits = Limits(supervised, settings["max_jobs"], settings["max_memory"])
    is_ready = False

    def ready() -> None:
        nonlocal is_ready
        limits.check_start()
        is_ready = True
        threading.Thread(target=supervised.drain_at_end, daemon=True).start()
        supervised.say(ready=True)

    try:
        worker, lifespan = _make_worker(settings, running)
        _set_up_logging()
        if settings["require_server"]:
            _check_servers(settings["servers"])
        if settings["max_jobs"] or settings["max_memory"]:
            worker.after_job = limits.after_job
        signal.signal(signal.SIGQUIT, lambda number, _frame: running.end_process(number))
        if isinstance(worker, GearmanWorker):
            _work(worker, ready, lifespan)
        else:
            run = importlib.import_module("gearman_anyio._supervised").work
            run(worker, ready, lifespan, settings["backend"])
    except BaseException as error:
        if is_ready:
            raise
        status = 3 if isinstance(error, ServerUnavailable) else 1
        supervised.say(failed=traceback.format_exc()[-_MAX_TRACEBACK:], status=status)
        return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
