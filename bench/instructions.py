"""Counts instructions of the stages of `stages`, and compares them with those that are known.

    python -m bench.instructions [--write]

Unlike times, instructions are the same on each run: nothing else on the machine changes them. They
are counted by callgrind (Debian: ``apt-get install valgrind``), in one process for all stages, with
the collector off and hashes that do not change. A stage fails that takes 5 % more than is known.

How many instructions the same source takes depends on the interpreter. So what is kept, in
``instructions.json``, and compared is the ratio to a piece of plain Python of fixed size
(`stages.calibrate`) that runs in the same process. That takes away nearly all of what differs
between machines, and most of what differs between builds of one version: what is left of that is up
to 9 %, as optimizers do not help all stages alike. So there may be entries for several builds of a
version, which are told apart by what that piece takes; where none is of a build like this one, a
stage fails at 15 %.

Whoever makes a stage faster or, for good reasons, slower, renews the file: ``--write`` does, for
the interpreter that it is run with. Run it with each version that CI has.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .peers import PEERS, has
from .processes import ROOT, environment, scratch
from .stages import STAGES, calibrate

_FILE = Path(__file__).with_suffix(".json")
_CALIBRATION = "calibration"
_ALL = {_CALIBRATION: calibrate, **STAGES}
# Jobs in each stage, and before it, so that the interpreter has adapted itself.
_COUNT = 400
_WARM_UP = 100
# How much more instructions a stage may take, and where the interpreter is built in another way;
# and how much more or less the calibration takes in one that is built in the same way.
_BOUND = 0.05
_LOOSE = 0.15
_ALIKE = 0.01

#: Instructions by the job.
Counts = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"renew {_FILE.name}")
    arguments = parser.parse_args()
    if not has("valgrind"):
        sys.exit(f"this needs valgrind: {PEERS['valgrind'].remedy}")
    known: list[dict[str, Any]] = json.loads(_FILE.read_text()) if _FILE.exists() else []
    counts = count()
    if arguments.write:
        _FILE.write_text(json.dumps(renewed(known, counts), indent=1) + "\n")
    else:
        lines, is_good = compare(known, counts)
        print("\n".join(lines))
        sys.exit(not is_good)


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _distance(entry: dict[str, Any], counts: Counts) -> float:
    """How differently from this interpreter that of an entry was built."""
    return abs(counts[_CALIBRATION] / float(entry[_CALIBRATION]) - 1)


def renewed(known: list[dict[str, Any]], counts: Counts) -> list[dict[str, Any]]:
    """The entries with one of these counts, in the place of the one for the same interpreter."""
    entry = {
        "python": _version(),
        "build": f"{platform.python_version()}, {platform.python_compiler()}",
        _CALIBRATION: round(counts[_CALIBRATION]),
        "stages": {name: round(counts[name] / counts[_CALIBRATION], 4) for name in STAGES},
    }
    others = [
        other
        for other in known
        if other["python"] != entry["python"] or _distance(other, counts) > _ALIKE
    ]
    return sorted([*others, entry], key=lambda each: (each["python"], each[_CALIBRATION]))


def compare(known: list[dict[str, Any]], counts: Counts) -> tuple[list[str], bool]:
    """What to say of these counts, and whether they are good."""
    entries = [entry for entry in known if entry["python"] == _version()]
    renew = "python -m bench.instructions --write"
    if not entries:
        return [f"nothing is known of Python {_version()}; {renew}"], False
    entry = min(entries, key=lambda each: _distance(each, counts))
    is_alike = _distance(entry, counts) <= _ALIKE
    bound = _BOUND if is_alike else _LOOSE
    lines = [
        f"Python {platform.python_version()}, beside {entry['build']}; {bound:.0%} are allowed"
    ]
    if not is_alike:
        lines.append(f"that was built in another way; for one that is like this one, {renew}")
    is_good, is_better = True, False
    lines.append(f"{'':36}{'instructions':>14}{'ratio':>10}{'known':>10}{'change':>9}")
    for name in STAGES:
        ratio = counts[name] / counts[_CALIBRATION]
        before = entry["stages"].get(name)
        change = ratio / before - 1 if before else float("inf")
        verdict = "  too many" if change > bound else ""
        is_good &= change <= bound
        is_better |= change < -bound
        lines.append(
            f"{name:36}{counts[name]:14,.0f}{ratio:10.4f}{before or 0:10.4f}{change:9.1%}{verdict}"
        )
    if not is_good:
        lines.append(f"a stage takes more than it did; where that is meant, {renew}")
    if is_better:
        lines.append(f"a stage takes less than it did; so that it stays so, {renew}")
    return lines, is_good


def count() -> Counts:
    """Count the instructions of each stage, by the job."""
    variables = {**environment(), "PYTHONHASHSEED": "0"}
    # Without site-packages.
    run = [sys.executable, "-S", "-m", "bench.child", "bench.instructions", "work", "{}"]
    out = scratch() / "callgrind.out"
    # Each call of getppid, which nothing else calls, ends a part.
    options = ["--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=getppid"]
    for command in (run, ["valgrind", *options, *run]):
        result = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        if result.returncode:
            sys.exit(f"{command} has failed:\n{result.stderr}")
    parts = [_total(Path(f"{out}.{number + 1}")) for number in range(2 * len(_ALL))]
    return {name: part / _COUNT for name, part in zip(_ALL, parts[1::2])}


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    if found is None:
        sys.exit("callgrind has not seen the calls of getppid")
    return int(found[1])


def work() -> None:
    """In the process that is counted."""
    gc.collect()
    gc.disable()
    for stage in _ALL.values():
        stage(_WARM_UP)()
        run = stage(_COUNT)
        os.getppid()
        kept = run()
        os.getppid()
        del kept, run


if __name__ == "__main__":
    main()
