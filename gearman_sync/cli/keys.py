"""Single key presses on a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

try:
    import termios
except ImportError:  # The platform has no termios. Only Ctrl-C works.
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The key that stands for the end of input.
END: Final = "end"
_SEQUENCES: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
}
# The escape sequence of a special key, or another byte; and an incomplete sequence.
_KEY: Final = re.compile(rb"\x1b[\[O][0-?]*[ -/]*[@-~]|.", re.DOTALL)
_BEGUN: Final = re.compile(rb"\x1b[\[O][0-?]*[ -/]*\Z")


@contextlib.contextmanager
def raw_keys() -> Iterator[Keys | None]:
    """Make the terminal deliver each key at once, without echo.

    Yields:
        The keys, or None if standard input is not a terminal.
    """
    if termios is None or not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    # Keep Ctrl-C, but don't let it discard pending output.
    mode[3] = mode[3] & ~(termios.ICANON | termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield Keys(descriptor)
    finally:
        # Discard keys typed ahead, so that the shell does not read them.
        with contextlib.suppress(termios.error):  # The terminal is gone.
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


class Keys:
    """The keys of a terminal.

    Args:
        descriptor: The file descriptor to read from.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        # The incomplete escape sequence of a key.
        self._begun = b""

    def read(self) -> list[str]:
        """Read the pressed keys: characters, names like ``up``, or ``end`` at the end of input."""
        try:
            data = os.read(self.descriptor, 1024)
        except OSError:  # The terminal is gone.
            data = b""
        return self.parse(data) if data else [END]

    def parse(self, data: bytes) -> list[str]:
        """Return the keys that send `data`, without the special keys that have no name here."""
        data = self._begun + data
        begun = _BEGUN.search(data)
        self._begun = begun[0] if begun else b""
        found = _KEY.findall(data.removesuffix(self._begun))
        keys = [chr(key[0]) if len(key) == 1 else _SEQUENCES.get(key) for key in found]
        return [key for key in keys if key is not None]
