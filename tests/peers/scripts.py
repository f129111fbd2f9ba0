"""What a test and a client in a process of its own tell each other, pickled, over pipes."""

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
    """What became of it. A job in the background has no result."""

    failed: bool
    result: bytes | None


def serve(submit: Callable[[Submit], Answer]) -> None:
    """Do what comes in at standard input, until that ends."""
    while True:
        try:
            request: Submit = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(submit(request), sys.stdout.buffer)
        sys.stdout.buffer.flush()
