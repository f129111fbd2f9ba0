"""Keys that are pressed on a terminal, one at a time."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

try:
    import termios
except ImportError:  # Not this kind of system: there are no keys but Ctrl-C.
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What `parse` makes of the end of input.
END: Final = "end"
_SEQUENCES: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
}


@contextlib.contextmanager
def raw_keys() -> Iterator[int | None]:
    """Let keys come at once, and unseen. Yields the descriptor to read from, or None."""
    if termios is None or not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    # Signals (Ctrl-C) stay as they are.
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield descriptor
    finally:
        # What was typed ahead is not for the shell.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def read_keys(descriptor: int) -> list[str]:
    """The keys that have been pressed: characters, or names as ``up``; ``end`` if it is closed."""
    try:
        data = os.read(descriptor, 1024)
    except OSError:  # The terminal is no more.
        data = b""
    return list(parse(data)) if data else [END]


def parse(data: bytes) -> Iterator[str]:
    """The keys that a terminal sends as `data`."""
    while data:
        for sequence, name in _SEQUENCES.items():
            if data.startswith(sequence):
                yield name
                data = data[len(sequence) :]
                break
        else:
            yield chr(data[0])
            data = data[1:]
