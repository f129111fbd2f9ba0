"""Clients that are shut down with their test; no test hangs or leaves a thread."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Every test here is watched."""


@pytest.fixture
def make_client() -> Iterator[Callable[..., GearmanClient]]:
    """Makes a client for one test."""
    with contextlib.ExitStack() as stack:

        def make(*hosts: Any, **kwargs: Any) -> GearmanClient:
            return stack.enter_context(GearmanClient(list(hosts), **kwargs))

        yield make


@pytest.fixture
def client(gearmand: Gearmand, make_client: Callable[..., GearmanClient]) -> GearmanClient:
    """A client of the shared gearmand."""
    return make_client(gearmand.address)
