"""Programs that are ended with their test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from .support import Running, command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _clean(no_leak: None, no_hang: None) -> None:
    """Every test here is watched."""


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
