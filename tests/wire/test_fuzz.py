"""Tests of the fuzz target `connection`."""

from __future__ import annotations

import random

import pytest

from fuzz import connection as fuzz
from fuzz import mutating


@pytest.mark.unmeasured
def test_generated_inputs_hold_invariant() -> None:
    rng = random.Random(1)
    seeds = mutating.load("connection")
    events = sum(fuzz.check(fuzz.generate(rng, seeds)) for _ in range(600))
    assert events > 3000
