"""Tests of the functions that run gearmanctl."""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from . import forks
from .support import Result, Running, gearmanctl, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import Server


@pytest.fixture
def ignored_sigint() -> Iterator[None]:
    """Ignore Ctrl-C, like a background program of a shell without job control."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_program_started_while_sigint_is_ignored_receives_it(
    ignored_sigint: None,
    server: Server,
    task: str,
    start: Callable[..., Running],
    run_program: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_program([b"sh", b"-c", b"kill -INT $$"]).end().status == -signal.SIGINT
    # Start a new fork server while SIGINT is ignored.
    monkeypatch.setattr(forks, "_server", functools.cache(forks._server.__wrapped__))
    running = start("submit", task, at=server)
    running.close()
    server.wait_for_jobs(task, 1)
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("words", [("version",), ("cancel", "H:host:1"), ("nothing",)])
def test_all_ways_to_run_gearmanctl_give_the_same(
    server: Server,
    start: Callable[..., Running],
    run_program: Callable[..., Running],
    words: tuple[str, ...],
) -> None:
    forked = start(*words, at=server)
    assert isinstance(forked.process, forks.Forked)
    # A different program name prevents forking.
    program = [sys.executable, "-W", "error", "-m", "gearman_sync.__main__"]
    started = run_program([*map(os.fsencode, program), *words_of(*words, servers=(server,))])
    assert not isinstance(started.process, forks.Forked)
    assert started.end() == forked.end() == gearmanctl(*words, at=server)
