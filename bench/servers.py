"""Foreground jobs through three job servers: gearmand, `gearman_sync.JobServer` and gear's.

The client and the worker are raw sockets that do as little as possible, and are the same for all
servers.

* ``pipelined``: the client keeps up to 1,000 jobs in flight, and the worker up to 64 grabs.
* ``one at a time``: the client submits a job when the previous one is complete, and the worker has
  one grab in flight.
* ``quick ACKs``: as before, but the peers make the kernel acknowledge received data at once. By
  default, the kernel does so with the next data that it sends, or after 40 ms. A server that leaves
  Nagle's algorithm on, as gear's does, waits for the acknowledgement between two packets to one
  peer. Hardly any real peer sets this option. The mode shows the potential of gear's server.
* ``our client and worker``: `GearmanClient.submit_multiple_jobs` and `GearmanWorker`.

With a slow server, the client stops after two seconds. The CPU time is the server's. "idle" is the
number of grabs per job that were answered NO_JOB. The slower modes have fewer jobs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from . import processes, raw
from .child import Clock, answer, jobs_for, orders
from .peers import has
from .raw import TASK
from .rounds import interleaved
from .tables import RatioColumn, compared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Figures, Settings
    from .tables import Table

_SECONDS = 2.0
_WARM_UP = 100


class Mode(NamedTuple):
    """The behaviour of a client and a worker.

    Attributes:
        share: The divisor of ``--jobs``.
        window: Maximum number of jobs in flight.
        batch: Number of jobs that have to end before more are submitted.
        grabs: Maximum number of grabs in flight.
        quick: True to acknowledge received data at once.
    """

    share: int
    window: int = 0
    batch: int = 0
    grabs: int = 0
    quick: bool = False


OURS = "our client and worker"
MODES = {
    "pipelined": Mode(5, window=1000, batch=100, grabs=64),
    "pipelined, quick ACKs": Mode(5, window=1000, batch=100, grabs=64, quick=True),
    "one at a time": Mode(100, window=1, batch=1, grabs=1),
    "one at a time, quick ACKs": Mode(100, window=1, batch=1, grabs=1, quick=True),
    OURS: Mode(25),
}


def kinds(*, gear: bool = False) -> list[str]:
    """Return the available servers. gear's is slow and knows fewer packets, so it is optional."""
    found = ["gearmand"] if has("gearmand") else []
    return [*found, "JobServer", *(["gear"] if gear and has("gear") else [])]


def run(settings: Settings) -> Iterator[Table]:
    for name, mode in MODES.items():
        count = settings.share(mode.share)
        results = interleaved(
            {kind: partial(_measure, kind, name, count) for kind in kinds(gear=True)},
            settings.rounds,
        )
        ratio_columns = [
            RatioColumn(f"jobs/s / {baseline}", "rate", dict.fromkeys(results, baseline))
            for baseline in ("gearmand", "gear")
            if baseline in results
        ]
        more = [] if name == OURS else [("idle", "", "idle")]
        table = compared(f"job servers, {name}", results, ratio_columns, more=more)
        table.drawn = "" if mode.quick else table.drawn
        yield table


def _measure(kind: str, mode: str, count: int) -> Figures:
    with processes.serving(kind) as server:
        options = {"grabs": MODES[mode].grabs, "quick": MODES[mode].quick}
        if mode == OURS:
            worker = processes.python(work, port=server.port)
        else:
            worker = processes.python(processes.work, port=server.port, **options)
        client = processes.python(client_of, port=server.port, mode=mode, server=server.pid)
        with worker, client:
            client.ask(_WARM_UP)
            figures = client.ask(count)
            if mode != OURS:
                server.end()
                figures["idle"] = worker.answer()["idle"] / figures["jobs"]
            return figures


# Code for the child processes.


def client_of(port: int, mode: str, server: int) -> None:
    (_submit if mode == OURS else partial(_submit_raw, MODES[mode]))(port, Clock(server))


def _submit(port: int, clock: Clock) -> None:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for count in orders():
            jobs = jobs_for(count)
            with clock:
                requests = client.submit_multiple_jobs(jobs)
            answer(clock.result(count))
            assert all(request.complete for request in requests)


def _submit_raw(mode: Mode, port: int, clock: Clock) -> None:
    options: dict[str, Any] = {"window": mode.window, "batch": mode.batch, "quick": mode.quick}
    with raw.connect(port) as sock:
        sock.setblocking(False)
        for count in orders():
            packets = b"".join(raw.submit_packet(background=False) for _ in range(count))
            # Keep the warm-up of slow servers short.
            seconds = _SECONDS if count != _WARM_UP else 0.1
            with clock:
                done = raw.pump(
                    sock, memoryview(packets), count, background=False, seconds=seconds, **options
                )
            answer(clock.result(done))


def work(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    worker = gearman_sync.GearmanWorker([f"127.0.0.1:{port}"])
    worker.register_task(TASK, lambda _, job: job.data)
    worker.work()
