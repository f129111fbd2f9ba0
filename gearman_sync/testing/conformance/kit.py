"""What the kits of all sides have."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .exchange import Exchange

if TYPE_CHECKING:
    from typing import Self


class Kit:
    """What a case gets, inside of its ``with``.

    Args:
        name: The name of a function that no other case has.
        timeout: Seconds that something is waited for.

    Attributes:
        function: As `name`.
        timeout: As given.
        exchange: What passes.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.function: bytes = name.encode()
        self.timeout: float = timeout
        self.exchange: Exchange = Exchange()
        # What is closed at the end.
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def errors(self) -> bytes:
        """What a program that is judged has written to standard error."""
        return b""
