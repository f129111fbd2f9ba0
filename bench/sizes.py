"""Background jobs in one call, from few to many: the cost of a job by the size of the call.

CPU time is the relevant figure. Calls with few jobs are repeated, up to a fixed total number of
jobs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from . import bulk, processes
from .rounds import by_level, interleaved
from .tables import growing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .processes import Child
    from .rounds import Figures, Settings
    from .tables import Table


def run(settings: Settings) -> Iterator[Table]:
    levels = [settings.share(50), settings.share(5), settings.jobs, settings.jobs * 10]
    starts = {
        name: start
        for name, (start, _) in bulk.subjects("background").items()
        if name.startswith("gearman_")
    }
    found = interleaved(
        {
            f"{name} {level}": partial(_measure, start, level, levels[1])
            for level in levels
            for name, start in starts.items()
        },
        settings.rounds,
    )
    results = by_level(found, list(starts), levels)
    yield growing("background jobs in one call, from few to many", "jobs", results)


def _measure(start: Callable[[int], Child], count: int, least: int) -> Figures:
    with processes.serving() as server, start(server.port) as child:
        child.ask(1)
        each = [child.ask(count) for _ in range(max(least // count, 1))]
    return {what: sum(figures[what] for figures in each) / len(each) for what in each[0]}
