"""Run fuzz targets: on random inputs, guided by coverage, or on one saved input. See README.md.

python -m fuzz --list
python -m fuzz [TARGET …] --seconds 60              plain Python; all targets if none is named
python -m fuzz TARGET --atheris [libFuzzer options] guided by coverage
python -m fuzz TARGET --replay FILE|HEX             check one input again, and log its steps
python -m fuzz TARGET --minimise FILE               find a smaller input that fails in the same
place
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import mutating

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

TARGETS = (
    "connection",
    "client_engine",
    "worker_engine",
    "server_engine",
    "admin_engine",
    "text",
    "differential",
    "simulation",
)
#: The packages that atheris instruments.
WATCHED = ["gearman_proto", "gearman_sync.cli.lines"]


def load(target: str) -> ModuleType:
    """Return the module of a target."""
    return importlib.import_module(f"fuzz.{target}")


def place_of(check: Callable[[bytes], object], data: bytes) -> tuple[str, str, int] | None:
    """Return the place where `check` fails for `data`: exception, file and line.

    Return None if it passes.
    """
    try:
        check(data)
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error).__name__, last.filename, last.lineno or 0
    return None


def report(target: str, data: bytes) -> None:
    """Print the current exception, and the command that reproduces it."""
    traceback.print_exc()
    print(f"input: {data.hex()}")
    print(f"replay: python -m fuzz {target} --replay {data.hex() or repr('')}")


def run_plain(target: str, seconds: float, seed: int) -> int:
    """Check random inputs. Return the exit status."""
    module = load(target)
    generate = getattr(module, "generate", mutating.generate)
    rng = random.Random(seed)
    seeds = mutating.load(target)
    inputs = 0
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < seconds:
        # Check the corpus first, unchanged.
        data = seeds[inputs] if inputs < len(seeds) else generate(rng, seeds)
        try:
            module.check(data)
        except Exception:  # noqa: BLE001
            report(target, data)
            print(f"{target}: failed at input {inputs} of seed {seed}, after {elapsed:.1f} s")
            return 1
        inputs += 1
    print(f"{target}: seed {seed}: {inputs} inputs, {inputs / elapsed:.0f} a second")
    return 0


def run_atheris(target: str, options: list[str]) -> None:
    """Run libFuzzer, which chooses the inputs and ends the process."""
    atheris: Any = importlib.import_module("atheris")
    # Instrument the product only, not the test code that checks it.
    with atheris.instrument_imports(include=WATCHED):
        check = load(target).check

    def test_one_input(data: bytes) -> None:
        try:
            check(data)
        except Exception:
            report(target, data)
            raise

    atheris.Setup([sys.argv[0], *options], test_one_input)
    atheris.Fuzz()


def replay(target: str, data: bytes) -> int:
    """Check one input and log its steps. Return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("fuzz").setLevel(logging.DEBUG)
    try:
        load(target).check(data)
    except Exception:  # noqa: BLE001
        report(target, data)
        return 1
    print(f"{target}: it holds")
    return 0


def run_minimise(target: str, path: Path) -> int:
    """Print a smaller input than the one in `path`, and write it next to `path`."""
    check = load(target).check
    data = path.read_bytes()
    place = place_of(check, data)
    if place is None:
        print(f"{target}: it holds for {path}")
        return 1
    small = mutating.minimise(data, lambda other: place_of(check, other) == place)
    written = path.with_name(f"{path.name}.small")
    written.write_bytes(small)
    print(f"{target}: {len(data)} bytes are {len(small)}, in {written}: {small.hex()}")
    return 0


def read_input(text: str) -> bytes:
    """Return the input that `text` names: the content of a file, or bytes in hex."""
    with contextlib.suppress(OSError, ValueError):
        return Path(text).read_bytes()
    return bytes.fromhex(text)


def main() -> int:
    """Run the command line. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--replay", metavar="FILE|HEX")
    parser.add_argument("--minimise", metavar="FILE", type=Path)
    parser.add_argument("--atheris", action="store_true", help="other options go to libFuzzer")
    parser.add_argument("--list", action="store_true", help="the targets, and what must hold")
    options, rest = parser.parse_known_args()
    if options.atheris:
        # libFuzzer's arguments that are not options are folders.
        target, *folders = options.targets
        run_atheris(target, [*rest, *folders])
        return 0
    unknown = [name for name in options.targets if name not in TARGETS]
    if rest or unknown:
        parser.error(f"unknown: {' '.join([*rest, *unknown])}")
    chosen = options.targets or TARGETS
    if options.list:
        for target in chosen:
            print(f"{target:15} {(load(target).__doc__ or '').splitlines()[0]}")
        return 0
    if options.replay is not None or options.minimise is not None:
        if len(options.targets) != 1:
            parser.error("of which target?")
        if options.replay is not None:
            return replay(chosen[0], read_input(options.replay))
        return run_minimise(chosen[0], options.minimise)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    return max(run_plain(target, options.seconds, seed) for target in chosen)


if __name__ == "__main__":
    sys.exit(main())
