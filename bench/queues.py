"""This library and gearmand beside Celery and RQ, both with Redis.

Each system has one worker that runs one job at a time, and its function returns its argument. All
three use JSON. "stored" means that the queue survives a restart of the server: gearmand stores
background jobs in SQLite, Redis appends to a file that it flushes once a second.

* ``round trip``: one job at a time; the client waits for each result.
* ``results/s``: the client submits many jobs in one call and then waits for all results.
* ``submits/s``: the client submits many jobs in one call. No worker runs them, and their results
  are not stored.
* ``worker``: the memory of the idle worker with all its processes. Pages that processes share count
  once.
* ``queued job``: the memory of the server for one such job.

Otherwise, Celery and RQ have their default settings. With "acks late", Celery prefetches one job,
and gives it to another worker if its worker dies, as gearmand does. RQ's worker forks for each job,
and its SimpleWorker does not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import processes, raw
from .child import answer, orders, resident
from .peers import has
from .rounds import interleaved, median
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .rounds import Settings

TEXT: Final = "x" * 64
# Seconds to wait for a result.
_PATIENCE: Final = 120


class System(NamedTuple):
    """A system to measure.

    Attributes:
        library: The name of the peer.
        stored: True to store the queue.
        options: The options of its functions `work_…` and `use_…`.
    """

    library: str
    stored: bool
    options: dict[str, Any]


SYSTEMS = {
    "gearman_sync, gearmand": System("gearman", False, {}),
    "gearman_sync, gearmand, stored": System("gearman", True, {}),
    "Celery": System("celery", False, {"late": False}),
    "Celery, acks late": System("celery", False, {"late": True}),
    "Celery, acks late, stored": System("celery", True, {"late": True}),
    "RQ": System("rq", False, {"fork": True}),
    "RQ, SimpleWorker": System("rq", False, {"fork": False}),
    "RQ, stored": System("rq", True, {"fork": True}),
}


def run(settings: Settings) -> Iterator[Table]:
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(_started(system))
            for name, system in SYSTEMS.items()
            if system.library == "gearman" or (has(system.library) and has("Redis"))
        }
        first = {name: each.memory() for name, each in running.items()}
        counts = {"trips": 2000, "results": 500, "submits": 20}
        found = {
            what: interleaved(
                {name: each.asking(what, settings.share(part)) for name, each in running.items()},
                settings.rounds,
            )
            for what, part in counts.items()
        }
    columns = [("round trip", "us"), ("results/s", "n"), ("submits/s", "n")]
    columns += [("worker", "MB"), ("queued job", "B")]
    table = Table(f"one worker with one slot, {len(TEXT)} characters in JSON", columns)
    for name in running:
        table.add(
            name,
            median(found["trips"][name], "wall"),
            1 / median(found["results"][name], "wall"),
            1 / median(found["submits"][name], "wall"),
            first[name],
            median(found["submits"][name], "memory"),
        )
    yield table


class Running:
    """A server, a worker and a client of one system."""

    def __init__(self, server: processes.Server, worker: processes.Child, client: Any) -> None:
        self._server = server
        self._worker = worker
        self._client = client

    def memory(self) -> float:
        """Wait for the first result, and return the memory of the worker's processes."""
        self._client["trips"].ask(1)
        found = []
        for _ in range(10):
            time.sleep(0.1)  # RQ's process for the job is ending.
            found.append(sum(map(_proportional, _family(self._worker.pid))))
        return min(found)

    def asking(self, what: str, count: int) -> Callable[[], dict[str, float]]:
        """Return a function that measures `what`."""

        def ask() -> dict[str, float]:
            before = resident(self._server.pid)
            figures = self._client[what].ask(count)
            return {**figures, "memory": max(resident(self._server.pid) - before, 0) / count}

        return ask


@contextlib.contextmanager
def _started(system: System) -> Iterator[Running]:
    library = system.library
    functions = {"gearman": (work_gearman, use_gearman), "celery": (work_celery, use_celery)}
    work, use = functions.get(library, (work_rq, use_rq))
    with _serving(library, stored=system.stored) as server, contextlib.ExitStack() as stack:
        worker = processes.python(work, port=server.port, **system.options)
        stack.callback(_end_family, worker)
        options = {"port": server.port, **system.options}
        clients = {
            what: stack.enter_context(processes.python(use, what=what, **options))
            for what in ("trips", "results", "submits")
        }
        yield Running(server, worker, clients)


@contextlib.contextmanager
def _serving(library: str, *, stored: bool) -> Iterator[processes.Server]:
    directory = processes.scratch() / f"{library}-{os.urandom(4).hex()}"
    directory.mkdir()
    if library == "gearman":
        options = ["-L", "127.0.0.1", "-l", os.devnull]
        if stored:
            options += ["-q", "libsqlite3", "--libsqlite3-db", str(directory / "queue")]
        with processes.serving(options=options) as server:
            yield server
        return
    port = processes.free_port()
    append = ["--appendonly", "yes" if stored else "no", "--appendfsync", "everysec"]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", *append]
    process = subprocess.Popen([*command, "--dir", str(directory)], stdout=subprocess.DEVNULL)
    with process:
        try:
            raw.connect(port).close()
            yield processes.Server(port, process)
        finally:
            process.kill()
    shutil.rmtree(directory)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = []
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _proportional(pid: int) -> int:
    """Return the memory of a process in bytes, with its share of shared pages, or 0 if it ended."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return 0


def _end_family(worker: processes.Child) -> None:
    for pid in _family(worker.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.end()


# Code for the child processes.


def same(text: str) -> str:
    """The function of all workers."""
    return text


def _measure(measures: dict[str, Callable[[int], Any]], what: str) -> None:
    for count in orders():
        began = time.perf_counter()
        measures[what](count)
        answer({"jobs": count, "wall": (time.perf_counter() - began) / count})


def work_gearman(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    worker = gearman_sync.GearmanWorker([f"127.0.0.1:{port}"])
    worker.data_encoder = gearman_sync.JSONEncoder
    worker.register_task("same", lambda _, job: same(job.data))
    worker.work()


def use_gearman(port: int, what: str) -> None:
    import gearman_sync  # noqa: PLC0415

    client = gearman_sync.GearmanClient([f"127.0.0.1:{port}"])
    client.data_encoder = gearman_sync.JSONEncoder

    def trips(count: int) -> None:
        for _ in range(count):
            assert client.submit_job("same", TEXT).result == TEXT

    def results(count: int) -> None:
        jobs = [{"task": "same", "data": TEXT} for _ in range(count)]
        assert {request.result for request in client.submit_multiple_jobs(jobs)} == {TEXT}

    def submits(count: int) -> None:
        jobs = [{"task": "later", "data": TEXT} for _ in range(count)]
        client.submit_multiple_jobs(jobs, background=True)

    _measure({"trips": trips, "results": results, "submits": submits}, what)


def _celery(port: int, *, late: bool) -> tuple[Any, Any, Any]:
    """Return the application, the function, and one that no worker runs."""
    import celery  # noqa: PLC0415

    url = f"redis://127.0.0.1:{port}"
    app = celery.Celery("bench", broker=f"{url}/0", backend=f"{url}/1")
    app.conf.update(
        task_acks_late=late,
        worker_prefetch_multiplier=1 if late else 4,
        broker_connection_retry_on_startup=True,
    )
    later = app.task(name="later", queue="later", ignore_result=True)(same)
    return app, app.task(name="same")(same), later


def work_celery(port: int, *, late: bool) -> None:
    app, *_ = _celery(port, late=late)
    warnings.simplefilter("ignore")  # It warns of running as root.
    app.worker_main(["--quiet", "worker", "--concurrency", "1", "--loglevel", "ERROR"])


def use_celery(port: int, what: str, *, late: bool) -> None:
    import celery  # noqa: PLC0415

    app, function, later = _celery(port, late=late)

    def trips(count: int) -> None:
        for _ in range(count):
            assert function.delay(TEXT).get(timeout=_PATIENCE) == TEXT

    def results(count: int) -> None:
        group = celery.group(function.s(TEXT) for _ in range(count))
        assert {*group.apply_async().get(timeout=_PATIENCE)} == {TEXT}

    def submits(count: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                later.apply_async((TEXT,), producer=producer)

    _measure({"trips": trips, "results": results, "submits": submits}, what)


def work_rq(port: int, *, fork: bool) -> None:
    import redis  # noqa: PLC0415
    import rq  # noqa: PLC0415
    import rq.serializers  # noqa: PLC0415

    kind = rq.Worker if fork else rq.SimpleWorker
    connection = redis.Redis(port=port)
    worker = kind(["same"], connection=connection, serializer=rq.serializers.JSONSerializer)
    worker.work(logging_level="ERROR")


def use_rq(port: int, what: str, *, fork: bool) -> None:  # noqa: ARG001 - as of the worker
    import redis  # noqa: PLC0415
    import rq  # noqa: PLC0415
    import rq.serializers  # noqa: PLC0415

    options = {"connection": redis.Redis(port=port), "serializer": rq.serializers.JSONSerializer}
    queue, later = rq.Queue("same", **options), rq.Queue("later", **options)

    def result(job: Any) -> Any:
        return job.latest_result(timeout=_PATIENCE).return_value

    def trips(count: int) -> None:
        for _ in range(count):
            assert result(queue.enqueue(same, TEXT)) == TEXT

    def results(count: int) -> None:
        jobs = queue.enqueue_many([rq.Queue.prepare_data(same, (TEXT,)) for _ in range(count)])
        assert {*map(result, jobs)} == {TEXT}

    def submits(count: int) -> None:
        later.enqueue_many([rq.Queue.prepare_data(same, (TEXT,)) for _ in range(count)])

    _measure({"trips": trips, "results": results, "submits": submits}, what)
