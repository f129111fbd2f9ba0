"""``gearmanctl submit --lines``: submits a job for each line, with a limit on jobs in flight.

    reader's thread:   lines -> Room.enter -> submit -> queue
    main thread:       queue -> wait -> write the results -> Room.leave
    listener's thread: notifies the main thread of activity on a connection

A line occupies room from its submission until its result is written. So reading pauses while the
server is slow, while the reader of the results is slow, or, with ordered results, while an early
job is slow. Each submission takes all lines that have been read and fit.

Waiting for the next line (``tail -f``) must not delay results, so the reader has its own thread.
That thread is not joined when the program ends. The main thread waits for the reader and for the
servers at the same time, on an event that both of them set.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE
from gearman_proto.errors import GearmanError, SubmitError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.printable import printable
from gearman_sync import JOB_UNKNOWN, GearmanClient
from gearman_sync._leader import sleep_until

from . import exits
from .bars import Bars
from .output import flush

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# Maximum bytes of lines in flight, unless there is only one line.
_MAX_BYTES: Final = 64 * 1024 * 1024
# If jobs fail for several reasons, the exit status is the first of these.
_WORST_FIRST: Final = (exits.NO_SERVER, exits.TIMED_OUT, exits.FAILED, exits.DONE)


@dataclass(eq=False)
class Entry:
    """A submitted line."""

    number: int
    size: int
    request: GearmanJobRequest
    #: The monotonic time at which the wait for the job times out.
    deadline: float

    @property
    def has_ended(self) -> bool:
        """True if the job has ended or timed out."""
        request = self.request
        return (
            request.complete
            or request.state == JOB_UNKNOWN
            or (self.deadline != math.inf and self.deadline <= time.monotonic())
        )


class Room:
    """A limit on the lines in flight, and on their bytes unless there is only one line."""

    def __init__(self, lines: int, size: int = _MAX_BYTES) -> None:
        self._lines = lines
        self._size = size
        self._inside = 0
        self._changed = threading.Condition()

    def enter(self, lines: deque[bytes]) -> list[bytes]:
        """Wait for room. Remove the lines that fit from the front of `lines`, and return them."""
        taken: list[bytes] = []
        with self._changed:
            self._changed.wait_for(lambda: self._fits(lines[0]))
            while lines and self._fits(lines[0]):
                taken.append(lines.popleft())
                self._lines -= 1
                self._size -= len(taken[-1])
                self._inside += 1
        return taken

    def leave(self, entries: Iterable[Entry]) -> None:
        """Release the room of these entries."""
        with self._changed:
            for entry in entries:
                self._lines += 1
                self._size += entry.size
                self._inside -= 1
            self._changed.notify()

    def _fits(self, line: bytes) -> bool:
        return self._lines > 0 and (len(line) <= self._size or not self._inside)


def split_lines(
    chunks: Iterable[bytes], max_size: int = DEFAULT_MAX_PACKET_SIZE
) -> Iterator[deque[bytes]]:
    """Yield all complete lines of each chunk together, without their line feeds."""
    begun: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if max([size, *map(len, others)]) > max_size:
            raise ValueError(f"a line of more than {max_size} bytes")
        if others:
            yield deque([b"".join(begun), *others[:-1]])
            begun = [others[-1]]
            size = len(others[-1])
    if size:
        yield deque([b"".join(begun)])


@dataclass(eq=False)
class LineSubmitter:
    """Submits a job for each line, and writes the results.

    Attributes:
        client: The client that submits the jobs.
        bars: The progress bars, with a total.
        job: The options of all jobs.
        chunks: The input.
        background: True to submit background jobs and write their handles.
        ordered: True to write the results in the order of the lines, False to write them as jobs
            end.
        in_flight: Maximum number of jobs in flight.
        timeout: Seconds to wait for each job, or None.
    """

    client: GearmanClient
    bars: Bars
    job: dict[str, Any]
    chunks: Iterable[bytes]
    background: bool
    ordered: bool
    in_flight: int
    timeout: float | None

    def __post_init__(self) -> None:
        self._room = Room(self.in_flight)
        # Set by the reader and by the listener.
        self._news = threading.Event()
        # The entries from the reader. None marks the end of the input.
        self._submitted: deque[list[Entry] | None] = deque()
        # The errors that ended the reader and the listener.
        self._input_error: BaseException | None = None
        self._client_error: GearmanError | None = None
        self._pending: deque[Entry] = deque()
        self._count = 0
        self._written = 0
        self._is_complete = False
        self._statuses: set[int] = set()

    def run(self) -> int:
        """Write the results until the input has ended.

        Returns:
            The exit status: of several failures, the worst.

        Raises:
            GearmanError: No server can be reached.
            OSError: The lines can't be read.
            ValueError: A line is too long, or an option of the job is invalid.
        """
        for work in (self._listen, self._read):
            threading.Thread(target=work, daemon=True).start()
        while True:
            self._collect_submitted()
            ended = self._pop_ended()
            for entry in ended:
                self._write(entry)
            self._room.leave(ended)
            self.bars.count(self._written, self._count if self._is_complete else None)
            if self._is_complete and not self._pending:
                break
            if not ended:
                self._report()
                flush()
                self._wait()
        if self._input_error is not None:
            raise self._input_error
        return next((status for status in _WORST_FIRST if status in self._statuses), exits.DONE)

    # The reader's thread.

    def _read(self) -> None:
        try:
            for lines in split_lines(self.chunks):
                while lines:
                    self._submit(self._room.enter(lines))
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._input_error = error
        finally:
            self._pass_on(None)

    def _pass_on(self, entries: list[Entry] | None) -> None:
        self._submitted.append(entries)
        self._news.set()

    def _submit(self, lines: list[bytes]) -> None:
        jobs = [{**self.job, "data": line} for line in lines]
        requests = make_requests(jobs, background=self.background)
        deadline = math.inf if self.timeout is None else time.monotonic() + self.timeout
        entries = [
            Entry(self._count + number, len(line), request, deadline)
            for number, (line, request) in enumerate(zip(lines, requests), 1)
        ]
        self._count += len(entries)
        try:
            self.client.submit_multiple_requests(
                requests, wait_until_complete=False, poll_timeout=self.timeout
            )
        except SubmitError:
            # Requests that have reached a server continue.
            self._pass_on([entry for entry in entries if entry.request.state != JOB_UNKNOWN])
            raise
        self._pass_on(entries)

    # The listener's thread, which ends when the client is closed.

    def _listen(self) -> None:
        try:
            self.client.poll_connections_until_stopped((), self._notify)
        except GearmanError as error:
            self._client_error = error
            self._news.set()

    def _notify(self, any_activity: bool) -> bool:  # noqa: ARG002
        self._news.set()
        return True

    # The main thread.

    def _collect_submitted(self) -> None:
        """Take over the submitted entries from the reader."""
        while self._submitted:
            entries = self._submitted.popleft()
            self._is_complete = entries is None
            self._pending += entries or ()

    def _pop_ended(self) -> list[Entry]:
        """Remove and return the ended entries that can be written now."""
        ended: list[Entry] = []
        if self.ordered:
            while self._pending and self._pending[0].has_ended:
                ended.append(self._pending.popleft())
        else:
            others: deque[Entry] = deque()
            for entry in self._pending:
                (ended if entry.has_ended else others).append(entry)
            self._pending = others
        return ended

    def _wait(self) -> None:
        """Wait for news or for the first job to time out.

        Jobs time out in the order of the lines.
        """
        if self._client_error is not None:
            raise self._client_error
        self._news.wait(sleep_until(self._pending[0].deadline if self._pending else math.inf))
        self._news.clear()

    def _report(self) -> None:
        if self.bars.are_drawn:
            for entry in self._pending:
                status = entry.request.status
                if status:
                    name = f"line {entry.number}"
                    done, of = status["numerator"], status["denominator"]
                    self.bars.report(entry, name, done, of, place=entry.number)

    def _write(self, entry: Entry) -> None:
        request = entry.request
        self.bars.end(entry)
        if not request.background:
            for warning in request.warning_updates:
                self.bars.warn(warning)
        timed_out = not request.complete and request.state != JOB_UNKNOWN
        status, reason = exits.outcome(request, timed_out=timed_out)
        self._statuses.add(status)
        self._written += 1
        if status == exits.DONE:
            self.bars.write(result_of(request) + b"\n")
            return
        self.bars.complain(f"gearmanctl: line {entry.number}: {reason}")
        if self.ordered:
            self.bars.write(b"\n")  # Keep the result of the nth job on the nth line.


def result_of(request: GearmanJobRequest) -> bytes:
    """Return all data that a job has sent, or the handle of a background job."""
    if request.background:
        return printable(request.handle or "").encode()
    return b"".join([*request.data_updates, request.result or b""])
