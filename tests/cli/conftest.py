"""Servers of both kinds, and programs that are ended with their test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.sync.support import EmbeddedServer

from .support import Running, command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand

SERVERS = ("gearmand", "JobServer")


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Every test here is watched."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Gearmand | EmbeddedServer]:
    """The shared gearmand, or a JobServer. The test leaves it alive."""
    if request.param == "gearmand":
        yield request.getfixturevalue("gearmand")
    else:
        embedded = EmbeddedServer()
        yield embedded
        embedded.kill()


@pytest.fixture(params=SERVERS)
def launch(request: pytest.FixtureRequest) -> Iterator[Callable[[], Gearmand | EmbeddedServer]]:
    """Starts a server for one test, a gearmand or a JobServer, that may be killed."""
    if request.param == "gearmand":
        yield request.getfixturevalue("start_gearmand")
    else:
        with contextlib.ExitStack() as stack:

            def start() -> EmbeddedServer:
                embedded = EmbeddedServer()
                stack.callback(embedded.kill)
                return embedded

            yield start


@pytest.fixture
def run_program() -> Iterator[Callable[..., Running]]:
    """Starts a program for one test."""
    with contextlib.ExitStack() as stack:

        def run(command: list[bytes], **options: Any) -> Running:
            running = Running(command, **options)
            stack.callback(running.kill)
            return running

        yield run


@pytest.fixture
def start(run_program: Callable[..., Running]) -> Callable[..., Running]:
    """Starts gearmanctl for one test: a command, for the servers `at`."""

    def start(*arguments: Any, at: Any, **options: Any) -> Running:
        servers = at if isinstance(at, tuple) and not isinstance(at[0], str) else (at,)
        return run_program(command_line(*arguments, servers=servers), **options)

    return start


@pytest.fixture
def run_serve(
    run_program: Callable[..., Running],
) -> Callable[..., tuple[Running, tuple[str, int]]]:
    """Starts ``gearmanctl serve`` at a free port, and returns it and its address."""

    def serve(*words: str) -> tuple[Running, tuple[str, int]]:
        running = run_program(command_line("serve", "--port", "0", *words))
        line = running.error()
        prefix = "gearmanctl: a job server for development and tests, at "
        assert line.startswith(prefix), line
        host, _, port = line.removeprefix(prefix).rpartition(":")
        return running, (host.strip("[]"), int(port))

    return serve
