"""The table of mutants is one of this code."""

from __future__ import annotations

from pathlib import Path

import gearman_proto
from tests.mutants import MUTANTS, find_mutants


def test_each_mutant_has_its_place() -> None:
    mutants = find_mutants(Path(gearman_proto.__file__).parents[1])
    assert len(mutants) == sum(map(len, MUTANTS.values())) > 60
    for mutant in mutants:
        compile(mutant.text, str(mutant.path), "exec")
