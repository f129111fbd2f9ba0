"""The compatibility mode for one test, the programs, and workers that end with the test."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync
from gearman_sync.testing import ScriptedClient
from tests.support import PATIENCE, nothing_imported, spawn

from .support import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Every test here is watched."""


@pytest.fixture
def nothing() -> Iterator[None]:
    """Nothing named `gearman` is imported, whatever other tests have done."""
    with nothing_imported():
        yield


@pytest.fixture
def gearman(nothing: None) -> Any:
    """What ``import gearman`` gives in the mode."""
    gearman_sync.install_as_gearman()
    return sys.modules["gearman"]


@pytest.fixture
def load(nothing: None) -> Callable[[str], Any]:
    """Imports a program of `programs`, which installs the mode itself."""
    return lambda name: importlib.import_module(f"tests.compat.programs.{name}")


@pytest.fixture
def server(gearmand: Gearmand) -> Gearmand:
    """The shared gearmand. The test leaves it alive."""
    return gearmand


@pytest.fixture
def launch(start_gearmand: Callable[..., Gearmand]) -> Callable[..., Gearmand]:
    """Starts a gearmand for one test, which may be killed."""
    return start_gearmand


@pytest.fixture
def host(server: Gearmand) -> str:
    """The address of the server, as programs have it in their settings."""
    return "{}:{}".format(*server.address)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts a program in a process of its own, for one test."""
    with contextlib.ExitStack() as stack:

        def start(*command: object, **options: Any) -> Running:
            running = Running(*command, **options)
            stack.callback(running.kill)
            return running

        yield start


@pytest.fixture
def work() -> Iterator[Callable[..., concurrent.futures.Future[Any]]]:
    """Lets a worker work in a thread, until it ends or the test does: `method` of it is called."""
    with contextlib.ExitStack() as stack:

        def start(
            worker: Any, *args: Any, method: str = "work", **options: Any
        ) -> concurrent.futures.Future[Any]:
            call = spawn(getattr(worker, method), *args, **options)
            stack.callback(concurrent.futures.wait, [call], PATIENCE)
            stack.callback(worker.shutdown)
            return call

        yield start


@pytest.fixture
def link(server: Gearmand) -> Iterator[ScriptedClient]:
    """A plain connection to the server."""
    link = ScriptedClient(server.address)
    yield link
    link.close()
