"""Subclasses of the python-gearman classes can use any ordinary private name."""

from __future__ import annotations

from typing import Any

import pytest

import gearman_sync.compat as gearman
from tests.contract.test_subclasses import open_names


@pytest.mark.parametrize(
    "kind", [gearman.GearmanClient, gearman.GearmanWorker, gearman.GearmanAdminClient]
)
def test_private_names_begin_with_the_prefix(kind: Any) -> None:
    with kind(["127.0.0.1:1"]) as made:
        assert not [name for name in open_names(made) if name.startswith("_")]
