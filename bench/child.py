"""A process that measures a function: ``python -m bench.child MODULE FUNCTION``.

The process reads numbers from standard input, one per line, and answers each with a line of
figures. It ends with its input, and so with its parent. A function with an option `loop` is async
and runs on that event loop.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    module, name, text = sys.argv[1:]
    function: Any = getattr(importlib.import_module(module), name)
    options: dict[str, Any] = json.loads(text)
    if (loop := options.pop("loop", None)) is None:
        function(**options)
        return
    import anyio  # noqa: PLC0415 - an optional dependency

    anyio.run(partial(function, **options), backend=loop)


def orders() -> Iterator[int]:
    """Yield the received numbers until the end of input."""
    for line in sys.stdin:
        yield int(line)


def answer(figures: dict[str, float]) -> None:
    print(json.dumps(figures), flush=True)


def resident(pid: int | str = "self") -> int:
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def peak(pid: int | str = "self") -> int:
    """Return the peak resident memory of a process, since its start or `forget_peak`, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def forget_peak(pid: int | str = "self") -> None:
    with open(f"/proc/{pid}/clear_refs", "w") as clear:
        clear.write("5")


class Clock:
    """The time, CPU time and memory used between entering and leaving the context.

    The garbage collector runs before.

    Args:
        pid: The process whose CPU time and memory to measure, or None for this process.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        # Compute clock_getcpuclockid(3), which Python lacks. /proc counts in hundredths of a
        # second.
        self._cpu_clock = (~self._pid << 3) | 2

    def __enter__(self) -> Self:
        gc.collect()
        forget_peak(self._pid)
        self.before = resident(self._pid)
        self.cpu = time.clock_gettime(self._cpu_clock)
        self.wall = time.perf_counter()
        return self

    def __exit__(self, *args: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.clock_gettime(self._cpu_clock) - self.cpu

    def result(self, jobs: float) -> dict[str, float]:
        """Return seconds and peak bytes per job."""
        memory = max(peak(self._pid) - self.before, 0)
        return {
            "jobs": jobs,
            "wall": self.wall / jobs,
            "cpu": self.cpu / jobs,
            "memory": memory / jobs,
        }


def jobs_for(count: int) -> list[dict[str, Any]]:
    """Return an argument for `submit_multiple_jobs`."""
    from .raw import DATA, TASK  # noqa: PLC0415 - not every child needs it

    return [{"task": TASK, "data": DATA} for _ in range(count)]


if __name__ == "__main__":
    main()
