"""Empty jobs of a worker: `GearmanWorker` compared with libgearman's.

gearmand has all background jobs before the worker connects. The worker runs in its own process on
its own processor, and is measured from its first job to its last. Slots are the maximum number of
concurrent jobs (`max_jobs`): threads in the blocking worker, async functions in the others.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from . import processes, raw
from .child import Clock, answer, orders
from .peers import loops
from .raw import TASK
from .rounds import interleaved
from .tables import RatioColumn, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .processes import Child
    from .rounds import Figures, Settings
    from .tables import Table

PEER = "libgearman's worker"


def run(settings: Settings) -> Iterator[Table]:
    count = settings.share(20)
    subjects: dict[str, Callable[[int], Child]] = {}
    if (program := processes.compiled("worker")) is not None:
        subjects[PEER] = lambda port: processes.Child(program, str(port))

    def ours(function: Any, slots: int, **options: Any) -> Callable[[int], Child]:
        return lambda port: processes.python(function, port=port, slots=slots, **options)

    for slots in (1, 4):
        subjects[f"gearman_sync, {slots} {_slots(slots)}"] = ours(blocking, slots)
    for loop in loops():
        for slots in (1, 100):
            name = f"gearman_anyio, {loop}, {slots} {_slots(slots)}"
            subjects[name] = ours(waiting, slots, loop=loop)
    results = interleaved(
        {name: partial(_measure, start, count) for name, start in subjects.items()},
        settings.rounds,
    )
    baselines = dict.fromkeys(results, PEER)
    yield compared(
        "empty jobs that a worker does",
        results,
        [
            RatioColumn("jobs/s / libgearman", "rate", baselines),
            RatioColumn("CPU", "cpu", baselines),
        ],
    )


def _slots(number: int) -> str:
    return "slot" if number == 1 else "slots"


def _measure(start: Callable[[int], Child], count: int) -> Figures:
    first, others = processes.processors()
    with processes.serving(processors=others) as server:
        with raw.connect(server.port) as sock:
            sock.setblocking(False)
            packets = b"".join(raw.submit_packet(background=True, data=b"") for _ in range(count))
            raw.pump(sock, memoryview(packets), count, background=True)
        with processes.on(first):
            child = start(server.port)
        with child:
            return child.ask(count)


# Code for the child processes.


class _Counter:
    """A job counter that runs the clock from the first job to the last."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.clock = Clock()
        self._done = 0
        # Threads can share the counter, and the last job can begin while the clock is being
        # started.
        self._lock = threading.Lock()

    def job(self) -> bool:
        """Count a job. Return True if it is the last."""
        with self._lock:
            self._done += 1
            if self._done == 1:
                self.clock.__enter__()
            elif self._done == self.count:
                self.clock.__exit__()
                return True
            return False

    def answer(self) -> None:
        answer({**self.clock.result(self.count - 1), "jobs": self.count})


def blocking(port: int, slots: int) -> None:
    import gearman_sync  # noqa: PLC0415

    for count in orders():
        worker = gearman_sync.GearmanWorker([f"127.0.0.1:{port}"], max_jobs=slots)
        counter = _Counter(count)

        def work(_: object, __: object, counter: _Counter = counter) -> bytes:
            if counter.job():
                worker.stop()  # noqa: B023 - it has ended before the next one exists
            return b""

        worker.register_task(TASK, work)
        worker.work()
        counter.answer()


async def waiting(port: int, slots: int) -> None:
    import gearman_anyio  # noqa: PLC0415

    for count in orders():
        worker = gearman_anyio.GearmanWorker([f"127.0.0.1:{port}"], max_jobs=slots)
        counter = _Counter(count)

        async def work(_: object, __: object, counter: _Counter = counter) -> bytes:
            if counter.job():
                worker.stop()  # noqa: B023 - it has ended before the next one exists
            return b""

        worker.register_task(TASK, work)
        await worker.work()
        counter.answer()
