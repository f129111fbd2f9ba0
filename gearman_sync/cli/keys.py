"""Keys that are pressed on a terminal, one at a time."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

try:
    import termios
except ImportError:  # Not this kind of system: there are no keys but Ctrl-C.
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The end of input, as a key.
END: Final = "end"
_SEQUENCES: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
}
# What keys send that are no characters, and how that begins.
_SEQUENCE: Final = re.compile(rb"\x1b[\[O][0-?]*[ -/]*[@-~]")
_BEGUN: Final = re.compile(rb"\x1b[\[O][0-?]*[ -/]*\Z")


@contextlib.contextmanager
def raw_keys() -> Iterator[Keys | None]:
    """Let keys come at once, and unseen. Yields the keys, or None if there are none."""
    if termios is None or not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    # Ctrl-C stays as it is, but does not throw away what is being written.
    mode[3] = mode[3] & ~(termios.ICANON | termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield Keys(descriptor)
    finally:
        # What was typed ahead is not for the shell.
        with contextlib.suppress(termios.error):  # The terminal is no more.
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


class Keys:
    """The keys of a terminal.

    Args:
        descriptor: What to read from.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        # The beginning of what a key sends.
        self._begun = b""

    def read(self) -> list[str]:
        """The keys that were pressed: characters, or names as ``up``; ``end`` if it is closed."""
        try:
            data = os.read(self.descriptor, 1024)
        except OSError:  # The terminal is no more.
            data = b""
        return self.parse(data) if data else [END]

    def parse(self, data: bytes) -> list[str]:
        """The keys that send `data`. Those without a name here are left out."""
        data, self._begun = self._begun + data, b""
        keys = []
        while data:
            if sequence := _SEQUENCE.match(data):
                keys.append(_SEQUENCES.get(sequence[0], ""))
                data = data[sequence.end() :]
            elif _BEGUN.match(data):
                self._begun, data = data, b""
            else:
                keys.append(chr(data[0]))
                data = data[1:]
        return [key for key in keys if key]
