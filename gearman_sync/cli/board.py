"""What ``gearmanctl top`` knows, from the lists of the servers; it neither asks nor draws.

Jobs per second
    Servers do not count the jobs that are done, so this counts by how much a function's queue has
    shrunk from one look to the next, and adds that up over the last seconds. What comes and goes
    between two looks is not seen: the true rate is at least this one. It is exact where a queue is
    only worked off, and all the better the more often one looks.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from gearman_proto import FunctionStatus

#: Seconds over which rates are taken.
WINDOW: Final = 5.0
#: Looks at a queue that are remembered.
HISTORY: Final = 200


class Order(enum.Enum):
    """What rows are sorted by."""

    FUNCTION = "task"
    QUEUED = "queued"
    RUNNING = "running"
    WORKERS = "workers"
    RATE = "rate"


@dataclass
class Row:
    """A function at all servers together."""

    task: str
    queued: int = 0
    running: int = 0
    workers: int = 0
    rate: float = 0.0


@dataclass
class Site:
    """A server."""

    functions: dict[str, FunctionStatus] = field(default_factory=dict)
    #: Why there is no answer, or nothing.
    error: str = ""
    #: When it answered last, and first since it was away.
    looked: float | None = None
    since: float | None = None
    #: When jobs were done, how many, and of what.
    done: deque[tuple[float, str, int]] = field(default_factory=deque)


class Board:
    """All functions at all servers.

    Args:
        sites: What the servers are known by.
    """

    def __init__(self, sites: Iterable[Hashable]) -> None:
        self.sites: dict[Hashable, Site] = {name: Site() for name in sites}
        #: The last sizes of each function's queue.
        self.history: dict[str, deque[int]] = {}

    def answered(self, name: Hashable, functions: Iterable[FunctionStatus], now: float) -> None:
        """A server has sent its list."""
        site = self.sites[name]
        new = {function.task: function for function in functions}
        if site.since is None:
            site.since = now
        for task, before in site.functions.items():
            done = before.queued - (new[task].queued if task in new else 0)
            if done > 0:
                site.done.append((now, task, done))
        while site.done and site.done[0][0] <= now - WINDOW:
            site.done.popleft()
        site.functions = new
        site.looked = now
        site.error = ""

    def failed(self, name: Hashable, error: str) -> None:
        """A server has not answered: nothing is known of it, and its jobs are not done."""
        self.sites[name] = Site(error=error)

    def remember(self) -> None:
        """Take the queues as they are into the history."""
        sizes = {row.task: row.queued for row in self.rows(Order.FUNCTION)}
        for task in [task for task in self.history if task not in sizes]:
            del self.history[task]
        for task, size in sizes.items():
            self.history.setdefault(task, deque(maxlen=HISTORY)).append(size)

    def rows(self, order: Order, *, upside_down: bool = False) -> list[Row]:
        """The functions, the largest first, or by name; `upside_down`: the other way round."""
        rows: dict[str, Row] = {}
        for site in self.sites.values():
            for task, function in site.functions.items():
                row = rows.setdefault(task, Row(task))
                row.queued += function.queued
                row.running += function.running
                row.workers += function.workers
            if site.since is None or site.looked is None:
                continue
            span = min(site.looked - site.since, WINDOW)
            for _, task, count in site.done:
                if task in rows and span > 0:
                    rows[task].rate += count / span
        by_name = sorted(rows.values(), key=lambda row: row.task)
        if order is Order.FUNCTION:
            return by_name[::-1] if upside_down else by_name
        return sorted(by_name, key=lambda row: getattr(row, order.value), reverse=not upside_down)


# From empty to full. A queue with anything in it is not shown as empty.
_LEVELS: Final = "▁▂▃▄▅▆▇█"


def sparkline(sizes: Iterable[int], width: int) -> str:
    """The last `width` sizes as so many columns, the highest of which is the largest of them."""
    shown = list(sizes)[-width:] if width > 0 else []
    top = max(shown, default=0) or 1
    # Rounded up.
    return "".join(_LEVELS[-(-size * (len(_LEVELS) - 1) // top)] for size in shown)
