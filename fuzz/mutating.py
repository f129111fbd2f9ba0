"""The inputs of the plain runner: mutated inputs of the corpus, and random bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.shrinking import shrink

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

CORPUS: Final = Path(__file__).with_name("corpus")
_LONGEST: Final = 600


def load(target: str) -> list[bytes]:
    """Return the corpus of a target."""
    folder = CORPUS / target
    return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []


def generate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return an input: one of `seeds` with a change, or random bytes."""
    if not seeds or rng.random() < 0.4:
        return rng.randbytes(rng.choice([20, 60, 200, _LONGEST]))
    data = rng.choice(seeds)
    for _ in range(rng.randrange(1, 8)):
        data = mutate(rng, data, seeds)
    return data[:_LONGEST]


def mutate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Return `data` with one change."""
    at = rng.randrange(len(data) + 1)
    match rng.randrange(6):
        case 0 if at < len(data):
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            return data[:at] + other[begin : begin + 64] + data[at:]
        case 3:
            return data[:at] + data[at + rng.randrange(6) :]
        case 4 if at < len(data):
            return data[:at] + rng.randbytes(1) + data[at + 1 :]
        case _:
            return data[:at] + rng.randbytes(rng.randrange(4)) + data[at:]


def minimise(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Return a smaller input that also fails. Remove chunks first, then replace bytes by zeros.

    Args:
        data: A failing input.
        fails: A predicate that tells whether an input fails.
    """
    data = bytes(shrink(data, lambda left: fails(bytes(left)), most=10_000))
    for at, byte in enumerate(data):
        plainer = data[:at] + b"\0" + data[at + 1 :]
        if byte and fails(plainer):
            data = plainer
    return data
