"""Random games against each engine: the steps and invariants of the fuzz targets.

`python -m fuzz` plays the same games for longer, and reduces a failing one.
"""

from __future__ import annotations

import importlib
import random

import pytest

from tests.profiles import seeds


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "target", ["client_engine", "worker_engine", "server_engine", "admin_engine"]
)
@pytest.mark.parametrize("seed", seeds(30))
def test_engine_in_random_games_stays_consistent(target: str, seed: int) -> None:
    game = importlib.import_module(f"fuzz.{target}")
    rng = random.Random(seed)
    for _ in range(20):
        game.check(rng.randbytes(rng.randrange(600)))
