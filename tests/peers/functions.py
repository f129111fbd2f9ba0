"""What all workers here can do. As a program: one function from standard input to output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(data: bytes) -> bytes:
    """The data in brackets: even an empty result shows that there was a worker."""
    return b"<" + data + b">"


def touch(data: bytes) -> bytes:
    """Make the file of that name."""
    with open(data, "xb"):
        return b""


def fail(data: bytes) -> bytes:
    """Fail."""
    raise RuntimeError("this job fails")


FUNCTIONS: dict[str, Callable[[bytes], bytes]] = {"wrap": wrap, "touch": touch, "fail": fail}

if __name__ == "__main__":
    # All is read before anything is written: the `gearman` program does not read before that.
    sys.stdout.buffer.write(FUNCTIONS[sys.argv[1]](sys.stdin.buffer.read()))
