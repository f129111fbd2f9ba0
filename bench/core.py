"""The cost of a job in the core, stage by stage, without I/O. See `stages`."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING

from . import instructions
from .peers import has
from .rounds import Figures, interleaved, median
from .stages import STAGES
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Settings


def run(settings: Settings) -> Iterator[Table]:
    count = settings.share(50)
    results = interleaved(
        {name: partial(_measure, name, count) for name in STAGES}, settings.rounds
    )
    counts = instructions.count() if has("valgrind") else {}
    table = Table("the core, without I/O", [("CPU", "us"), ("instructions", "n")])
    for name, found in results.items():
        table.add(name, median(found, "cpu"), counts.get(name))
    yield table


def _measure(name: str, count: int) -> Figures:
    run = STAGES[name](count)
    gc.collect()
    began = time.process_time()
    kept = run()
    cpu = time.process_time() - began
    del kept
    return {"cpu": cpu / count}
