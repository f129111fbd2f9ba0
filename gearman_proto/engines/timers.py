"""Deadlines of many things, the next one first, and what happens when they come."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T", bound="Hashable")

# Fewer than this are not worth sweeping up.
_FEW: Final = 64


class Timers:
    """Things with a deadline. Each thing has at most one, and what to call when it comes."""

    def __init__(self) -> None:
        # Deadline, number, thing, call. The numbers make entries comparable.
        self._heap: list[tuple[float, int, Any, Callable[[Any, float], object]]] = []
        # Thing -> the number of its entry; what is in the heap under another number is dead.
        self._current: dict[Any, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._current

    def set(self, thing: T, deadline: float, call: Callable[[T, float], object]) -> None:
        """Give `thing` a deadline, in place of any that it had.

        Args:
            thing: What the deadline is of.
            deadline: When it comes, in the engine's time.
            call: What to call then, with the thing and the time.
        """
        self._count += 1
        self._current[thing] = self._count
        heapq.heappush(self._heap, (deadline, self._count, thing, call))
        # What is set again and again, and never cancelled, leaves dead entries, too.
        if not self._count % _FEW:
            self._sweep()

    def cancel(self, thing: Hashable) -> None:
        """Take the deadline of `thing` away, if it has one."""
        if self._current.pop(thing, None) is not None and len(self._heap) > _FEW:
            self._sweep()

    def _sweep(self) -> None:
        """Take the dead entries out of the heap, if they are most of it."""
        if len(self._heap) > 2 * len(self._current):
            self._heap = [entry for entry in self._heap if self._current.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap:
            deadline, number, thing, _ = heap[0]
            if self._current.get(thing) == number:
                return deadline
            heapq.heappop(heap)
        return None

    def expire(self, now: float) -> None:
        """Call what is due, the earliest first; what a call makes due is called too."""
        while self.expire_one(now):
            pass

    def expire_one(self, now: float) -> bool:
        """Call the earliest of what is due. Returns whether there was anything."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return False
        _, _, thing, call = heapq.heappop(self._heap)
        del self._current[thing]
        call(thing, now)
        return True

    def clear(self) -> None:
        """Take all deadlines away."""
        self._heap.clear()
        self._current.clear()
