"""Runs benchmarks and prints their tables.

python -m bench [NAME …] [--jobs N] [--rounds N] [--quick] [--json FILE] [--plot FILE.svg]
python -m bench --list
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine, peers, plot
from .rounds import Settings

if TYPE_CHECKING:
    from .tables import Table

#: The benchmarks, with True for those that need gearmand.
MEASURES = {
    "bulk": True,
    "single": True,
    "worker": True,
    "servers": False,
    "sizes": True,
    "waits": True,
    "fairness": True,
    "functions": False,
    "connections": False,
    "listings": False,
    "memory": False,
    "updates": False,
    "payloads": False,
    "imports": False,
    "core": False,
    "queues": True,
}
# The measures that run only if they are named.
_OPTIONAL = {"queues"}
_QUICK = Settings(jobs=20_000, rounds=3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the library costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="measures; all by default")
    parser.add_argument("--jobs", type=int, help="jobs in one call (100000); others get a share")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each measurement (7)")
    parser.add_argument("--quick", action="store_true", help="20000 jobs and 3 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all of it")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="where to draw it")
    parser.add_argument("--list", action="store_true", help="what the measures are")
    arguments = parser.parse_args()
    if arguments.list:
        for name in MEASURES:
            about = inspect.getdoc(_module(name)) or ""
            print(f"{name:12} {about.splitlines()[0]}")
        return
    names: list[str] = arguments.names or [name for name in MEASURES if name not in _OPTIONAL]
    if unknown := sorted(set(names) - set(MEASURES)):
        parser.error(f"there is no measure {unknown[0]!r}; --list has them")
    usual = _QUICK if arguments.quick else Settings()
    settings = Settings(arguments.jobs or usual.jobs, arguments.rounds or usual.rounds)
    if min(settings.jobs, settings.rounds) < 1:
        parser.error("there is at least one job, and one round")
    # End started processes as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    facts = machine.facts()
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    print(f"{settings.jobs:,} jobs, medians of {settings.rounds} rounds", flush=True)
    missing = peers.missing()
    tables = [table for name in names for table in _measure(name, settings, missing)]
    for name, remedy in missing.items():
        print(f"\n{name} is not installed: {remedy}")
    if arguments.json:
        found = {
            "facts": facts,
            "settings": {"jobs": settings.jobs, "rounds": settings.rounds},
            "missing": missing,
            "tables": [table.json() for table in tables],
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.plot:
        caption = f"{facts['machine']}, Python {facts['Python'].split()[0]}"
        arguments.plot.write_text(plot.drawn(tables, caption))


def _measure(name: str, settings: Settings, missing: dict[str, str]) -> list[Table]:
    if MEASURES[name] and "gearmand" in missing:
        print(f"\n{name}: this needs gearmand", flush=True)
        return []
    began = time.perf_counter()
    tables = []
    for table in _module(name).run(settings):
        tables.append(table)
        print(f"\n{table.text()}", flush=True)
    print(f"({name}: {time.perf_counter() - began:.0f} s)", file=sys.stderr)
    return tables


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


if __name__ == "__main__":
    main()
