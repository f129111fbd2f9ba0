"""Subclasses of programs' own, whose private names the library has to leave alone."""

from __future__ import annotations

import pytest

import gearman_sync.compat as gearman

KINDS = (gearman.GearmanClient, gearman.GearmanWorker, gearman.GearmanAdminClient)


@pytest.mark.parametrize("kind", KINDS)
def test_private_names_begin_with_the_prefix(kind: type) -> None:
    with kind(["127.0.0.1:1"]) as made:
        names = set(vars(made))
    for base in kind.__mro__:
        if base.__module__.startswith("gearman_"):
            names |= vars(base).keys() | base.__annotations__.keys()
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    assert {name for name in private if not name.startswith("_gm_")} == {"_abc_impl"}
