"""Pickled messages between a test and a client in a process of its own, over pipes."""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Submit(NamedTuple):
    """A job to submit."""

    task: str
    data: bytes
    priority: str | None
    background: bool


class Answer(NamedTuple):
    """The outcome of a job. A background job has no result."""

    failed: bool
    result: bytes | None


def serve(submit: Callable[[Submit], Answer]) -> None:
    """Run the jobs from standard input until it ends."""
    while True:
        try:
            request: Submit = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(submit(request), sys.stdout.buffer)
        sys.stdout.buffer.flush()
