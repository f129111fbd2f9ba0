"""Clients and workers that are shut down after their test. No test may hang or leak a thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient, GearmanWorker
from gearman_sync.testing import Gate, echo
from tests.support import PATIENCE

from .support import Script, Working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Gearmand

    from .support import MakeClient, MakeWorker, StartScript, StartWorker, Work


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None, strict_engines: None) -> None:
    """Time limit and thread check for every test."""


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """A factory of clients for one test."""
    with contextlib.ExitStack() as stack:

        def make(*hosts: Any, **kwargs: Any) -> GearmanClient:
            return stack.enter_context(GearmanClient(list(hosts), **kwargs))

        yield make


@pytest.fixture
def client(gearmand: Gearmand, make_client: MakeClient) -> GearmanClient:
    """A client of the shared gearmand."""
    return make_client(gearmand.address)


# Workers.


@pytest.fixture
def gate(gearmand: Gearmand, start_worker: StartWorker, task: str) -> Gate:
    """A worker that holds the jobs of `task`-slow. Another one runs those of `task` at once."""
    gate = Gate()
    start_worker(gearmand.address, {f"{task}-slow": gate})
    start_worker(gearmand.address, {task: echo})
    return gate


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    """A factory of workers: `tasks` maps task names to callbacks, and `kind` is the class."""
    with contextlib.ExitStack() as stack:

        def make(
            *hosts: Any,
            tasks: dict[str, Any] | None = None,
            kind: type[GearmanWorker] = GearmanWorker,
            **kwargs: Any,
        ) -> GearmanWorker:
            worker = stack.enter_context(kind(list(hosts), **kwargs))
            for task, callback in (tasks or {}).items():
                worker.register_task(task, callback)
            return worker

        yield make


@pytest.fixture
def work(make_worker: MakeWorker) -> Iterator[Work]:
    """A function that makes a worker like `make_worker` and runs it in a thread for the test."""
    with contextlib.ExitStack() as stack:

        def work(*args: Any, poll_timeout: float | None = 60, **kwargs: Any) -> Working:
            first = args[0]
            worker = first if isinstance(first, GearmanWorker) else make_worker(*args, **kwargs)
            working = Working(worker, poll_timeout)
            stack.callback(concurrent.futures.wait, [working.call], PATIENCE)
            stack.callback(worker.shutdown)
            return working

        yield work


@pytest.fixture
def start_script() -> Iterator[StartScript]:
    """A function that starts a Python program for one test."""
    with contextlib.ExitStack() as stack:

        def start(*command: object, **options: Any) -> Script:
            script = Script(*command, **options)
            stack.callback(script.kill)
            return script

        yield start
