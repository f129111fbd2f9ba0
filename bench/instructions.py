"""Counts the instructions of each stage in `stages`, and compares them with recorded counts.

    python -m bench.instructions [--write]

Unlike times, instruction counts are the same in each run, whatever else the machine does. callgrind
counts them (Debian: ``apt-get install valgrind``), in one process for all stages, with the garbage
collector off and hash randomization disabled. A stage fails if its count exceeds the recorded one
by 5 %.

The same source takes a different number of instructions in another interpreter. So
``instructions.json`` records, and this program compares, the ratio to a fixed piece of plain Python
(`stages.calibrate`) that runs in the same process. The ratio removes nearly all differences between
machines, and most differences between builds of one version. Up to 9 % remain, since optimizers do
not speed up all stages equally. So a version can have entries for several builds, distinguished by
the count of the calibration. If no entry is from a similar build, a stage fails at 15 %.

After making a stage faster or, for good reasons, slower, update the file. ``--write`` does that for
the current interpreter. Run it with each version that CI uses.
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
# Jobs in each stage, and jobs before that, which let the interpreter specialize its bytecode.
_COUNT = 400
_WARM_UP = 100
# The tolerated increase of a stage's instructions, the same for a different build of the
# interpreter, and the difference of the calibration above which a build counts as different.
_BOUND = 0.05
_LOOSE = 0.15
_ALIKE = 0.01

#: Instructions per job.
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
    """Return the relative difference of the calibrations of an entry and this interpreter."""
    return abs(counts[_CALIBRATION] / float(entry[_CALIBRATION]) - 1)


def renewed(known: list[dict[str, Any]], counts: Counts) -> list[dict[str, Any]]:
    """Return the entries with `counts` added, or in place of the entry for the same interpreter."""
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
    """Return a report about the counts, and True if they pass."""
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
    """Count the instructions of each stage, per job."""
    variables = {**environment(), "PYTHONHASHSEED": "0"}
    # Run without site-packages.
    run = [sys.executable, "-S", "-m", "bench.child", "bench.instructions", "work", "{}"]
    out = scratch() / "callgrind.out"
    # Each call of getppid ends a part of the output. Nothing else calls getppid.
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
    """Run all stages in the measured process."""
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
