"""Deadlines of many things, the next one first."""

from __future__ import annotations

import heapq
from typing import Any, Final

# Fewer than this are not worth sweeping up.
_FEW: Final = 64


class Timers:
    """Things with a deadline, the next one first. Each thing has at most one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        # Thing -> the number of its entry; what is in the heap under another number is dead.
        self._current: dict[Any, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, thing: Any) -> bool:
        return thing in self._current

    def set(self, thing: Any, deadline: float) -> None:
        """Give `thing` a deadline."""
        self._count += 1
        self._current[thing] = self._count
        heapq.heappush(self._heap, (deadline, self._count, thing))

    def cancel(self, thing: Any) -> None:
        """Take the deadline of `thing` away, if it has one."""
        if self._current.pop(thing, None) is None:
            return
        if len(self._heap) > _FEW and len(self._heap) > 2 * len(self._current):
            self._heap = [entry for entry in self._heap if self._is_live(entry)]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_expired(self, now: float) -> Any:
        """Remove and return a thing whose deadline has come, or return None."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        thing = heapq.heappop(self._heap)[2]
        del self._current[thing]
        return thing

    def _is_live(self, entry: tuple[float, int, Any]) -> bool:
        return self._current.get(entry[2]) == entry[1]
