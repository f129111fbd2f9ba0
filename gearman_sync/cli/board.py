"""The model of ``gearmanctl top``, computed from the servers' lists. It does no I/O.

Jobs per second
    Servers do not count finished jobs. The model therefore counts how much a function's queue
    shrinks between two samples, and sums that up over the last seconds. A job that is queued and
    finished between two samples is not counted, so the true rate is at least the one shown. The
    rate is exact for a queue that only shrinks, and more frequent samples make it more accurate.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from gearman_proto import FunctionStatus

#: Length in seconds of the window over which rates are computed.
WINDOW: Final = 5.0
#: Number of samples to keep of each queue.
HISTORY: Final = 200


class Order(enum.Enum):
    """A sort order of the rows."""

    FUNCTION = "task"
    QUEUED = "queued"
    RUNNING = "running"
    WORKERS = "workers"
    RATE = "rate"


@dataclass
class Row:
    """The totals of a function over all servers."""

    task: str
    queued: int = 0
    running: int = 0
    workers: int = 0
    rate: float = 0.0


@dataclass
class Site:
    """A server."""

    functions: dict[str, FunctionStatus] = field(default_factory=dict)
    #: The reason for the last failure; empty if the server answered.
    error: str = ""
    #: When the server last answered, and when it first answered since its last failure.
    last_answer: float | None = None
    first_answer: float | None = None
    #: Finished jobs as (time, function, number of jobs).
    done: deque[tuple[float, str, int]] = field(default_factory=deque)


class Board:
    """The functions of all servers.

    Args:
        sites: Keys that identify the servers.
    """

    def __init__(self, sites: Iterable[Hashable]) -> None:
        self.sites: dict[Hashable, Site] = {name: Site() for name in sites}
        #: The latest sizes of each function's queue.
        self.history: dict[str, deque[int]] = {}

    def answered(self, name: Hashable, functions: Iterable[FunctionStatus], now: float) -> None:
        """Process the list of functions that a server has sent."""
        site = self.sites[name]
        new = {function.task: function for function in functions}
        if site.first_answer is None:
            site.first_answer = now
        for task, before in site.functions.items():
            done = before.queued - (new[task].queued if task in new else 0)
            if done > 0:
                site.done.append((now, task, done))
        while site.done and site.done[0][0] <= now - WINDOW:
            site.done.popleft()
        site.functions = new
        site.last_answer = now
        site.error = ""

    def failed(self, name: Hashable, error: str) -> None:
        """Mark a server as failed.

        Its earlier answers are discarded, and its jobs do not count as done.
        """
        self.sites[name] = Site(error=error)

    def remember(self) -> None:
        """Add the current size of each queue to the history."""
        sizes = {row.task: row.queued for row in self.rows(Order.FUNCTION)}
        for task in [task for task in self.history if task not in sizes]:
            del self.history[task]
        for task, size in sizes.items():
            self.history.setdefault(task, deque(maxlen=HISTORY)).append(size)

    def rows(self, order: Order, *, is_reversed: bool = False) -> list[Row]:
        """Return a row for each function: the largest first, or by name.

        `is_reversed` reverses the order.
        """
        rows: dict[str, Row] = {}
        for site in self.sites.values():
            for task, function in site.functions.items():
                row = rows.setdefault(task, Row(task))
                row.queued += function.queued
                row.running += function.running
                row.workers += function.workers
            if site.first_answer is None or site.last_answer is None:
                continue
            span = min(site.last_answer - site.first_answer, WINDOW)
            for _, task, count in site.done:
                if task in rows and span > 0:
                    rows[task].rate += count / span
        by_name = sorted(rows.values(), key=lambda row: row.task)
        if order is Order.FUNCTION:
            return by_name[::-1] if is_reversed else by_name
        return sorted(by_name, key=lambda row: getattr(row, order.value), reverse=not is_reversed)


# From empty to full. A queue that has jobs is never shown as empty.
_LEVELS: Final = "▁▂▃▄▅▆▇█"


def sparkline(sizes: Iterable[int], width: int) -> str:
    """Draw the last `width` sizes as columns. The highest column is the largest of these sizes."""
    latest = list(sizes)[-width:] if width > 0 else []
    top = max(latest, default=0) or 1
    # Round up.
    return "".join(_LEVELS[-(-size * (len(_LEVELS) - 1) // top)] for size in latest)
