"""Random walks of the client's and the admin client's engines: the games of the fuzz targets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fuzz import admin_engine, client_engine
from tests.profiles import seeds


@pytest.mark.parametrize("game", [client_engine, admin_engine], ids=["client", "admin"])
@pytest.mark.parametrize("seed", seeds(30))
def test_engine_stays_consistent_and_ends_every_call(game: Any, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        game.check(rng.randbytes(rng.randrange(400)))
