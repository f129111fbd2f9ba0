"""A priority queue of deadlines, each with a callback."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T", bound="Hashable")

# Don't compact a heap smaller than this.
_MIN_COMPACT: Final = 64


class Timers:
    """Deadlines by key. A key has at most one deadline; setting it again replaces it.

    A cancelled, replaced or expired deadline keeps neither its key nor its callback alive.
    """

    def __init__(self) -> None:
        # Each entry is [deadline, sequence number, key, callback]. The sequence number breaks
        # ties, so entries with equal deadlines never compare their keys.
        self._heap: list[list[Any]] = []
        # The entry of each key. Every other entry of the heap is stale. It stays in the heap, since
        # removing it from the middle would be slow, but its key and callback are dropped.
        self._current: dict[Any, list[Any]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._current

    def set(self, key: T, deadline: float, callback: Callable[[T, float], object]) -> None:
        """Set the deadline of `key`, replacing an earlier one.

        Args:
            key: The object that the deadline belongs to.
            deadline: When the deadline passes, in the engine's time.
            callback: Called as `callback(key, now)` when the deadline passes.
        """
        self._count += 1
        replaced = self._current.get(key)
        entry = self._current[key] = [deadline, self._count, key, callback]
        heapq.heappush(self._heap, entry)
        if replaced is not None:
            replaced[2] = replaced[3] = None
        # A deadline that is only ever moved, never cancelled, leaves stale entries as well.
        if not self._count % _MIN_COMPACT:
            self._compact()

    def cancel(self, key: Hashable) -> None:
        """Remove the deadline of `key`, if it has one."""
        entry = self._current.pop(key, None)
        if entry is not None:
            entry[2] = entry[3] = None
            if len(self._heap) > _MIN_COMPACT:
                self._compact()

    def deadline(self, key: Hashable) -> float | None:
        """Return the deadline of `key`, or None if it has none."""
        entry = self._current.get(key)
        return None if entry is None else entry[0]

    def _compact(self) -> None:
        """Rebuild the heap if more than half of its entries are stale."""
        if len(self._heap) > 2 * len(self._current):
            self._heap = list(self._current.values())
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, or None without any."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._current.get(entry[2]) is entry:
                return entry[0]  # type: ignore[no-any-return]
            heapq.heappop(heap)
        return None

    def expire(self, now: float) -> None:
        """Run all expired callbacks in order, including those that become due meanwhile."""
        while self.expire_one(now):
            pass

    def expire_one(self, now: float) -> bool:
        """Run the earliest expired callback. Return False if none has expired."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return False
        _, _, key, callback = heapq.heappop(self._heap)
        del self._current[key]
        callback(key, now)
        return True

    def clear(self) -> None:
        """Remove all deadlines."""
        self._heap.clear()
        self._current.clear()
