"""Clients, workers and job servers together, in random plans of the simulated network.

The network's books check each result, update and handle, and its witnesses check each step of the
servers; see `gearman_proto.testing.network`.
"""

from __future__ import annotations

import random

import pytest

from fuzz.simulation import fails, plan_of
from tests.profiles import seeds


@pytest.mark.parametrize("seed", seeds(60))
def test_engines_keep_their_promises(seed: int) -> None:
    problem = fails(plan_of(random.Random(f"engines {seed}"), size=30))
    assert problem is None, problem
