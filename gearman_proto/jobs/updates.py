"""What comes of a job while it runs, and what of that has not been read yet."""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, overload

from gearman_proto import constants
from gearman_proto.records import record


@record(frozen=True)
class JobData:
    """A part of the result has come (WORK_DATA), decoded."""

    #: What the worker has sent.
    data: Any


@record(frozen=True)
class JobWarning:
    """A warning has come (WORK_WARNING), decoded."""

    #: What the worker has sent.
    data: Any


@record(frozen=True)
class JobProgress:
    """The job's progress has come (WORK_STATUS)."""

    #: How much is done.
    numerator: int
    #: Of how much.
    denominator: int


@record(frozen=True)
class JobEnded:
    """The job has ended, or its connection was lost (then `state` is JOB_UNKNOWN)."""

    #: The request's, as the next two.
    state: str
    #: What the job returned.
    result: Any = None
    #: The data of the exception that it failed with.
    exception: Any = None


#: What `updates` yields.
JobUpdate = JobData | JobWarning | JobProgress | JobEnded


#: Bytes of updates of one job that may lie unread. A job that sends more fails.
MAX_UNREAD_UPDATES: Final = constants.DEFAULT_MAX_PACKET_SIZE

#: Status updates of one job that may lie unread. Older ones are dropped.
MAX_UNREAD_PROGRESS: Final = 1000

#: Bytes of what a worker said that are shown as the reason of a failure.
MAX_REASON: Final = 10_000

# What an update costs beside its bytes, roughly.
_UPDATE_COST: Final = 200


@record(eq=False)
class _Update:
    number: int
    value: Any
    size: int
    is_raw: bool


class UpdateQueue(Sequence[Any]):
    """The unread updates of one kind, oldest first; `popleft` takes one out.

    Reading one decodes it, once.
    """

    __slots__ = ("_added", "_encoder", "_entries", "_taken")

    def __init__(self, encoder: Any, maxlen: int | None = None) -> None:
        self._encoder = encoder
        self._entries: deque[_Update] = deque(maxlen=maxlen)
        # Bytes. Two counters, as two threads count: the engine's, and the one that reads.
        self._added = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._read(entry) for entry in list(self._entries)[index]]
        return self._read(self._entries[index])

    def __repr__(self) -> str:
        return f"<UpdateQueue of {len(self)}>"

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """Return the state for a copy. Later updates from another thread do not change it."""
        entries = self._entries.copy()
        added = sum(entry.size for entry in entries)
        return None, {
            "_encoder": self._encoder,
            "_entries": entries,
            "_added": added,
            "_taken": 0,
        }

    def popleft(self) -> Any:
        """Remove and return the oldest update.

        Raises:
            IndexError: There is none.
            Exception: Whatever the encoder's `decode` raises. The update is removed all the same.
        """
        entry = self._entries.popleft()
        self._taken += entry.size
        return self._read(entry)

    @property
    def unread(self) -> int:
        """Bytes that lie in it."""
        return self._added - self._taken

    @property
    def first(self) -> int:
        """The number of the oldest update; beyond all numbers if there is none."""
        return self._entries[0].number if self._entries else sys.maxsize

    def add(self, number: int, value: Any, size: int, *, is_raw: bool) -> None:
        """Append an update; for engines."""
        self._added += size
        self._entries.append(_Update(number, value, size, is_raw))

    def _read(self, entry: _Update) -> Any:
        if entry.is_raw:
            entry.value = self._encoder.decode(entry.value)
            entry.is_raw = False
        return entry.value


class Updates:
    """All updates of one request, numbered as they came."""

    __slots__ = ("count", "data", "last_warning", "progress", "warnings")

    def __init__(self, encoder: Any) -> None:
        self.count: int = 0
        self.data: UpdateQueue = UpdateQueue(encoder)
        self.warnings: UpdateQueue = UpdateQueue(encoder)
        self.progress: UpdateQueue = UpdateQueue(encoder, MAX_UNREAD_PROGRESS)
        #: The beginning of the last warning, whether or not that was read.
        self.last_warning: bytes | None = None

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """Return the state for a copy with its own queues."""
        state = {name: getattr(self, name) for name in self.__slots__}
        return None, {
            **state,
            "data": copy.copy(self.data),
            "warnings": copy.copy(self.warnings),
            "progress": copy.copy(self.progress),
        }

    # Each of these appends an update, and returns whether the unread ones are still few enough.

    def add_data(self, raw: bytes) -> bool:
        """WORK_DATA has come."""
        return self._add(self.data, raw)

    def add_warning(self, raw: bytes) -> bool:
        """WORK_WARNING has come."""
        self.last_warning = raw[:MAX_REASON]
        return self._add(self.warnings, raw)

    def add_progress(self, numerator: int, denominator: int) -> bool:
        """WORK_STATUS has come."""
        self.count += 1
        self.progress.add(self.count, (numerator, denominator), 0, is_raw=False)
        return True

    def _add(self, queue: UpdateQueue, raw: bytes) -> bool:
        self.count += 1
        queue.add(self.count, raw, len(raw) + _UPDATE_COST, is_raw=True)
        return self.data.unread + self.warnings.unread <= MAX_UNREAD_UPDATES
