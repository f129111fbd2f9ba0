"""What jobs send while they run: the updates, their queues, and the status of a job."""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypedDict, overload

from gearman_proto import constants
from gearman_proto.records import record


class JobStatus(TypedDict, total=False):
    """The content of `GearmanJobRequest.status`. Empty until the server sends a status."""

    #: The job's handle, if it is known. The answer to a query by unique does not contain it.
    handle: str | None
    #: True if the server knows the job. A server forgets a job when the job ends.
    known: bool
    #: True if a worker has the job.
    running: bool
    #: The amount of work done, as reported by the worker; 0 without a report.
    numerator: int
    #: The total amount of work, as reported by the worker; 0 without a report.
    denominator: int
    #: When the client received this status, in seconds since 1970.
    time_received: float
    #: Number of foreground submits that wait for the job. Only in answers to queries by unique.
    client_count: int


@record(frozen=True)
class JobData:
    """A part of the result (WORK_DATA)."""

    #: The decoded data.
    data: Any


@record(frozen=True)
class JobWarning:
    """A warning (WORK_WARNING)."""

    #: The decoded data.
    data: Any


@record(frozen=True)
class JobProgress:
    """The job's progress (WORK_STATUS)."""

    #: The amount of work done.
    numerator: int
    #: The total amount of work.
    denominator: int


@record(frozen=True)
class JobEnded:
    """The end of the job, or of its connection (then `state` is JOB_UNKNOWN)."""

    #: The final state of the request.
    state: constants.State
    #: The decoded result of the job.
    result: Any = None
    #: The decoded data of the exception that the job failed with.
    exception: Any = None


#: The items of a client's `updates`.
JobUpdate = JobData | JobWarning | JobProgress | JobEnded


#: Maximum size of the unread updates of one job in bytes, and of all jobs of one call of `updates`.
#: A job that sends more fails.
MAX_UNREAD_UPDATES: Final = constants.DEFAULT_MAX_PACKET_SIZE

#: Maximum number of unread status updates of one job. Older ones are dropped.
MAX_UNREAD_PROGRESS: Final = 1000

#: Maximum size of the text in `GearmanJobRequest.reason`, in bytes.
MAX_REASON: Final = 10_000

#: The approximate overhead of an update in memory, in bytes.
UPDATE_COST: Final = 200


@record(eq=False)
class _Update:
    number: int
    value: Any
    size: int
    is_raw: bool


class UpdateQueue(Sequence[Any]):
    """The unread updates of one kind, oldest first; `popleft` removes the oldest.

    An update is decoded when it is first read.
    """

    __slots__ = ("_added", "_encoder", "_entries", "_removed")

    def __init__(self, encoder: Any, maxlen: int | None = None) -> None:
        self._encoder = encoder
        self._entries: deque[_Update] = deque(maxlen=maxlen)
        # Bytes. There are two counters because two threads count: the engine's and the reader's.
        self._added = 0
        self._removed = 0

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
            "_removed": 0,
        }

    def popleft(self) -> Any:
        """Remove and return the oldest update.

        Raises:
            IndexError: The queue is empty.
            Exception: Any exception that the encoder's `decode` raises. The update is removed
                anyway.
        """
        entry = self._pop()
        if entry is None:
            raise IndexError("there is no unread update")
        return self._read(entry)

    def _pop(self) -> _Update | None:
        """Remove and return the oldest update, or return None."""
        try:
            entry = self._entries.popleft()
        except IndexError:
            return None
        self._removed += entry.size
        return entry

    @property
    def _unread(self) -> int:
        """The size of the unread updates, in bytes."""
        return self._added - self._removed

    @property
    def _first(self) -> int:
        """The number of the oldest update; `sys.maxsize` if the queue is empty."""
        return self._entries[0].number if self._entries else sys.maxsize

    def _add(self, number: int, value: Any, size: int, *, is_raw: bool) -> None:
        self._added += size
        self._entries.append(_Update(number, value, size, is_raw))

    def _read(self, entry: _Update) -> Any:
        if entry.is_raw:
            entry.value = self._encoder.decode(entry.value)
            entry.is_raw = False
        return entry.value


class Updates:
    """All updates of one request, numbered in the order of arrival."""

    __slots__ = ("count", "data", "last_warning", "progress", "warnings")

    def __init__(self, encoder: Any) -> None:
        self.count: int = 0
        self.data: UpdateQueue = UpdateQueue(encoder)
        self.warnings: UpdateQueue = UpdateQueue(encoder)
        self.progress: UpdateQueue = UpdateQueue(encoder, MAX_UNREAD_PROGRESS)
        #: The beginning of the last warning, even after the application has read that.
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

    @property
    def unread(self) -> int:
        """The size of all unread updates, in bytes."""
        return self.data._unread + self.warnings._unread + len(self.progress) * UPDATE_COST

    def drop_progress(self) -> None:
        """Drop the unread progress, except for the last."""
        # Another thread might read the queue meanwhile, so that it might be empty now. It then
        # reads from the old deque or from the new one.
        entries = self.progress._entries.copy()
        self.progress._entries = deque(list(entries)[-1:], entries.maxlen)

    # Each of these returns False if the unread updates exceed MAX_UNREAD_UPDATES.

    def add_data(self, raw: bytes) -> bool:
        """Append the data of WORK_DATA."""
        return self._add(self.data, raw)

    def add_warning(self, raw: bytes) -> bool:
        """Append the data of WORK_WARNING."""
        self.last_warning = raw[:MAX_REASON]
        return self._add(self.warnings, raw)

    def add_progress(self, numerator: int, denominator: int) -> bool:
        """Append the numbers of WORK_STATUS."""
        self.count += 1
        self.progress._add(self.count, (numerator, denominator), 0, is_raw=False)
        return True

    def _add(self, queue: UpdateQueue, raw: bytes) -> bool:
        self.count += 1
        queue._add(self.count, raw, len(raw) + UPDATE_COST, is_raw=True)
        return self.data._unread + self.warnings._unread <= MAX_UNREAD_UPDATES
