"""Fixtures for servers and programs that end with their test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import EmbeddedServer, Gearmand

from .support import Queue, Running, command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_sync.testing import ScriptedWorker

    from .support import Server


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Check every test in this directory for leaks and hangs."""


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of server: a JobServer, unless the test uses `on_both`."""
    return getattr(request, "param", "JobServer")


@pytest.fixture
def launch(kind: str) -> Iterator[Callable[[], Server]]:
    """Start a server for one test, which is allowed to kill it."""
    with contextlib.ExitStack() as stack:

        def start() -> Server:
            server = Gearmand() if kind == "gearmand" else EmbeddedServer()
            stack.callback(server.kill)
            return server

        yield start


@pytest.fixture
def server(kind: str, launch: Callable[[], Server], request: pytest.FixtureRequest) -> Server:
    """The shared gearmand, or a JobServer. Tests must not kill it."""
    return request.getfixturevalue("gearmand") if kind == "gearmand" else launch()


@pytest.fixture
def run_program() -> Iterator[Callable[..., Running]]:
    """Start a program for one test."""
    with contextlib.ExitStack() as stack:

        def run(command: list[str], **options: Any) -> Running:
            running = Running(command, **options)
            stack.callback(running.kill)
            return running

        yield run


@pytest.fixture
def start(run_program: Callable[..., Running]) -> Callable[..., Running]:
    """Start gearmanctl for one test, with a command for the servers `at`."""

    def start(*arguments: Any, at: Any, **options: Any) -> Running:
        return run_program(command_line(*arguments, at=at), **options)

    return start


@pytest.fixture
def queue(
    server: Server,
    task: str,
    start: Callable[..., Running],
    start_worker: Callable[..., ScriptedWorker],
) -> Queue:
    """The queue of a function that no other test uses."""
    return Queue(server, task, start, start_worker)


@pytest.fixture
def run_serve(
    run_program: Callable[..., Running],
) -> Callable[..., tuple[Running, tuple[str, int]]]:
    """Start ``gearmanctl serve`` on a free port. Return the program and its address."""

    def serve(*words: str) -> tuple[Running, tuple[str, int]]:
        running = run_program(command_line("serve", "--port", "0", *words))
        line = running.error()
        prefix = "gearmanctl: a job server for development and tests, at "
        assert line.startswith(prefix), line
        host, _, port = line.removeprefix(prefix).rpartition(":")
        return running, (host.strip("[]"), int(port))

    return serve
