"""Does something at each place at which CPython looks for signals, one after the other.

It looks where a function of Python code is entered, and where one in C has returned. (Where a loop
goes back it does as well: that is before or behind one of these in all loops that matter here.) A
profile function is called at just these places, and what it raises comes out of them.
"""

from __future__ import annotations

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
    """Calls `function` at a place of what is done in its ``with``, as a signal handler would be.

    Args:
        number: Which place, from 0 on.
        function: What to call. It may raise.

    Attributes:
        where: Where that was: the stack. None if there were not so many places.
    """

    def __init__(self, number: int, function: Callable[[], object]) -> None:
        self.where: str | None = None
        self._left = number
        self._function = function

    def __enter__(self) -> Self:
        sys.setprofile(self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(None)

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
    """One At for each place, or each `step` places, until one has not found its place."""
    number = 0
    while True:
        at = At(number, function)
        yield at
        if at.where is None:
            return
        number += step


def soon(condition: Callable[[], object]) -> bool:
    """Whether `condition` comes true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True
