"""Run simulations one after the other, each with its own seed, until the time is up.

    python -m fuzz.simulate --minutes 20            new seeds; also --seconds
    python -m fuzz.simulate --seconds 20 --seed 7   the seeds 7, 8, 9, ...
    python -m fuzz.simulate --replay FILE           a plan, as printed by a failure

`simulation` and `gearman_proto.testing.network` describe a run and its checks. A failure ends the
program with exit status 1. It prints the seed, the last steps, and the plan, reduced to the steps
that the failure needs.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.simulation import Run, fails, plan_of
from gearman_proto.testing.shrinking import shrink
from gearman_proto.testing.simulation import SimulationError

if TYPE_CHECKING:
    from fuzz.simulation import Plan

# Seconds between two reports of the speed.
_STRETCH = 20.0


def main() -> int:
    """Run the command line. Return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--seed", type=int, help="the first one; by default any")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a plan to run, and no more")
    parser.add_argument("--as-is", action="store_true", help="do not shrink a plan that fails")
    options = parser.parse_args()
    if options.replay is not None:
        return replay(read(options.replay.read_text()))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    seconds = 60 * options.minutes + options.seconds or 60.0
    return simulate(seconds, seed, shrink_plan=not options.as_is)


def simulate(seconds: float, seed: int, *, shrink_plan: bool = True) -> int:
    """Run the seeds from `seed` on for `seconds` seconds. Return the exit status."""
    begun, first = time.monotonic(), seed
    said = begun
    steps = 0
    virtual = busy = 0.0
    counts: Counter[str] = Counter()
    while (now := time.monotonic()) - begun < seconds:
        if now - said > _STRETCH:
            said = now
            print(f"{now - begun:6.0f} s, {seed - first:,} seeds, {steps:,} steps", flush=True)
        cpu = time.process_time()
        plan = plan_of(random.Random(seed))
        run = Run(plan)
        try:
            run.run()
        except SimulationError as error:
            report(plan, error, seed, shrink_plan=shrink_plan)
            return 1
        busy += time.process_time() - cpu
        steps += run.net.steps
        virtual += run.net.now
        counts += run.net.books.counts
        counts["faults"] += len(run.net.happened)
        seed += 1
    elapsed = time.monotonic() - begun
    print(
        f"seeds {first} to {seed - 1}: {steps:,} steps in {elapsed:.0f} seconds, "
        f"{steps / elapsed:,.0f} a second ({steps / busy:,.0f} of the processor's); "
        f"{virtual / 3600:,.1f} hours of virtual time"
    )
    for what, number in sorted(counts.items()):
        print(f"{number:12,} {what}")
    return 0


def report(plan: Plan, error: SimulationError, seed: int, *, shrink_plan: bool) -> None:
    """Print a failure and a reduced plan."""
    print(f"plan of seed {seed}, {len(plan)} steps: {error}", flush=True)
    if not shrink_plan:
        return
    kind = error.problem[:20]
    # Without servers and workers, any plan fails.
    kept = [step for step in plan if step[0] in ("network", "server", "worker")]

    def still(steps: Plan) -> bool:
        found = fails([*kept, *steps])
        return found is not None and found.problem[:20] == kind

    left = [*kept, *shrink([step for step in plan if step not in kept], still, most=300)]
    last = fails(left)
    if last is not None:
        print(f"\nshrunk to {len(left)} steps: {last}\n\nplan for --replay:")
        print("".join(f"{step!r}\n" for step in left))


def read(text: str) -> Plan:
    """Return the plan in `text`, which has one step on each line."""
    return [ast.literal_eval(line) for line in text.splitlines() if line.strip()]


def replay(plan: Plan) -> int:
    """Run a plan. Return the exit status."""
    error = fails(plan)
    if error is None:
        print("nothing was found")
        return 0
    print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
