"""Fixtures for the compatibility mode, the programs, and workers that end with the test."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync
from tests.support import PATIENCE, nothing_imported, spawn
from tests.sync.conftest import start_script  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Check every test in this directory for leaks and hangs."""


@pytest.fixture
def nothing() -> Iterator[None]:
    """Unload all modules named `gearman` for the test."""
    with nothing_imported():
        yield


@pytest.fixture
def gearman(nothing: None) -> Any:
    """The result of ``import gearman`` in the mode."""
    gearman_sync.install_as_gearman()
    return sys.modules["gearman"]


@pytest.fixture
def load(nothing: None) -> Callable[[str], Any]:
    """Import a program of `programs`, which installs the mode itself."""
    return lambda name: importlib.import_module(f"tests.compat.programs.{name}")


@pytest.fixture
def server(gearmand: Gearmand) -> Gearmand:
    """The shared gearmand. Tests must not kill it."""
    return gearmand


@pytest.fixture
def launch(start_gearmand: Callable[..., Gearmand]) -> Callable[..., Gearmand]:
    """Start a gearmand for one test, which is allowed to kill it."""
    return start_gearmand


@pytest.fixture
def host(server: Gearmand) -> str:
    """The server's address in the format of programs' settings."""
    return "{}:{}".format(*server.address)


@pytest.fixture
def client(gearman: Any, host: str) -> Any:
    """A client of the server."""
    client = gearman.GearmanClient([host])
    yield client
    client.shutdown()


@pytest.fixture
def work() -> Iterator[Callable[..., concurrent.futures.Future[Any]]]:
    """Call `method` of a worker in a thread, until it returns or the test ends."""
    with contextlib.ExitStack() as stack:

        def start(
            worker: Any, *args: Any, method: str = "work", **options: Any
        ) -> concurrent.futures.Future[Any]:
            call = spawn(getattr(worker, method), *args, **options)
            stack.callback(concurrent.futures.wait, [call], PATIENCE)
            stack.callback(worker.shutdown)
            return call

        yield start
