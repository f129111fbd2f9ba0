"""Calls a function at each place where CPython checks for signals, one place per run.

CPython checks when it enters a Python function and after a C function has returned. (CPython also
checks at backward jumps, which are next to such a place in all relevant loops.) A profile function
is called at exactly these places, and its exceptions propagate from there.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from .waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Self

_PLACES: Final = ("call", "c_return")


class At:
    """A context that calls `function` at one place in its body, like a signal handler.

    Args:
        number: Index of the place, starting at 0.
        function: Function to call. It may raise.

    Attributes:
        where: The stack at the place, or None if the body has fewer places.
    """

    def __init__(self, number: int, function: Callable[[], object]) -> None:
        self.where: str | None = None
        self._left = number
        self._function = function
        self._collector_callbacks: list[Any] = []

    def __enter__(self) -> Self:
        # Hypothesis leaves one in the process, and Python ignores exceptions of such callbacks.
        self._collector_callbacks[:] = gc.callbacks
        gc.callbacks.clear()
        sys.setprofile(self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(None)
        gc.callbacks[:] = self._collector_callbacks

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in _PLACES or self.where is not None or frame.f_code is _EXIT:
            return
        self._left -= 1
        if self._left < 0:
            stack = "".join(traceback.format_stack(frame)[-8:])
            self.where = f"{event} of {argument or frame.f_code.co_name} in\n{stack}"
            self._function()


_EXIT: Final = At.__exit__.__code__


def every_place(function: Callable[[], object], step: int = 1) -> Iterator[At]:
    """Yield an At for every `step`th place, until one does not find its place."""
    number = 0
    while True:
        at = At(number, function)
        yield at
        if at.where is None:
            return
        number += step


def soon(condition: Callable[[], object]) -> bool:
    """Return whether `condition` becomes true soon."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True
