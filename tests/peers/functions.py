"""The functions of all workers here. As a program: one function from standard input to output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(data: bytes) -> bytes:
    """Return the data in brackets, so that even an empty result shows a worker's reply."""
    return b"<" + data + b">"


def touch(data: bytes) -> bytes:
    """Create the file of that name."""
    with open(data, "xb"):
        return b""


def fail(data: bytes) -> bytes:
    """Raise an error."""
    raise RuntimeError("this job fails")


FUNCTIONS: dict[str, Callable[[bytes], bytes]] = {"wrap": wrap, "touch": touch, "fail": fail}

if __name__ == "__main__":
    # Read all input before writing: the `gearman` program does not read until it has sent all.
    sys.stdout.buffer.write(FUNCTIONS[sys.argv[1]](sys.stdin.buffer.read()))
