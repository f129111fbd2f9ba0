"""`python -m tests.chaos`: see README.md beside this file."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time

from .plan import Plan
from .run import Chaos


def main() -> int:
    """Run the command line. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (20)")
    parser.add_argument("--seed", type=int, help="of the first run; random if not given")
    parser.add_argument("--runs", type=int, default=1, help="each with the next seed (1)")
    parser.add_argument("--show", action="store_true", help="show the plan, and do nothing")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    # SIGTERM has to end the servers, too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    bad = []
    for seed in range(first, first + options.runs):
        plan = Plan(seed, options.seconds)
        if options.show:
            for step in plan.steps():
                print(step)
            continue
        print(f"chaos: --seconds {plan.seconds:g} --seed {seed}", flush=True)
        begun = time.monotonic()
        good = Chaos(plan, lambda line: print(line, flush=True)).run()
        if not good:
            bad.append(seed)
        took = time.monotonic() - begun
        print(f"chaos: seed {seed} is {'good' if good else 'BAD'} after {took:.0f} s", flush=True)
    if bad:
        print(f"chaos: bad seeds: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
