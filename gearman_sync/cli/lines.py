"""``gearmanctl submit --lines``: a job for each line, and only so many at once.

    reader's thread:   lines -> Room.enter -> submit -> queue
    main thread:       queue -> wait -> write the results -> Room.leave
    listener's thread: tells the main thread that something came from a server

A line enters when there is room, and leaves when its result is written. So neither a slow server,
nor a slow reader of the results, nor, where results keep their order, a slow first job makes more
lines be read. As many lines are submitted at once as have come and have room.

The reader may wait for its next line (``tail -f``) while results come, which is why it has a thread
of its own. That is left behind when the program ends. The main thread waits for the reader and for
the servers at once, and so for an event that both of them set.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE
from gearman_proto.errors import GearmanError, SubmitError
from gearman_proto.foreign import shown
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests
from gearman_sync import JOB_UNKNOWN, GearmanClient
from gearman_sync._turns import sleep_until

from . import exits
from .bars import Bars
from .output import flush

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .options import Servers

# Bytes of lines that may be under way at once, unless it is a single line.
_MAX_BYTES: Final = 64 * 1024 * 1024
# Which of several failures the exit status tells of.
_WORST_FIRST: Final = (exits.NO_SERVER, exits.TIMED_OUT, exits.FAILED, exits.DONE)


@dataclass(eq=False)
class Entry:
    """A line that was submitted."""

    number: int
    size: int
    request: GearmanJobRequest
    #: When to wait no longer, by the monotonic clock.
    deadline: float

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing to wait for."""
        request = self.request
        return (
            request.complete
            or request.state == JOB_UNKNOWN
            or (self.deadline != math.inf and self.deadline <= time.monotonic())
        )


class Room:
    """What may be under way at once: so many lines, and so many bytes or a single line."""

    def __init__(self, lines: int, size: int = _MAX_BYTES) -> None:
        self._lines = lines
        self._size = size
        self._inside = 0
        self._changed = threading.Condition()

    def enter(self, lines: deque[bytes]) -> list[bytes]:
        """Wait for room, and take what there is room for from the front of `lines`."""
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
        """These are no longer under way."""
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
    """Yield the lines in `chunks`, without their line feeds, as many together as come together.

    Raises:
        ValueError: A line has more than `max_size` bytes.
    """
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


class _Reader:
    """Submits the lines, in a thread of its own.

    Args:
        client: The client.
        job: What all jobs have in common.
        chunks: Where the lines are.
        room: What may be under way.
        news: Set when something was submitted, and at the end.
        background: Whether they are background jobs.
        timeout: Seconds to wait for each job, or None.
    """

    def __init__(
        self,
        client: GearmanClient,
        job: dict[str, Any],
        chunks: Iterable[bytes],
        room: Room,
        news: threading.Event,
        *,
        background: bool,
        timeout: float | None,
    ) -> None:
        #: What was submitted; None is the end.
        self.submitted: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
        #: Why it is the end, if there may be more lines.
        self.error: BaseException | None = None
        self._client = client
        self._job = job
        self._chunks = chunks
        self._room = room
        self._news = news
        self._background = background
        self._timeout = timeout
        self._count = 0
        threading.Thread(target=self._run, name="gearmanctl-reader", daemon=True).start()

    def _run(self) -> None:
        try:
            for lines in split_lines(self._chunks):
                while lines:
                    self._submit(self._room.enter(lines))
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error
        finally:
            self._pass_on(None)

    def _pass_on(self, entries: list[Entry] | None) -> None:
        self.submitted.put(entries)
        self._news.set()

    def _submit(self, lines: list[bytes]) -> None:
        jobs = [{**self._job, "data": line} for line in lines]
        requests = make_requests(jobs, background=self._background)
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        entries = [
            Entry(self._count + number, len(line), request, deadline)
            for number, (line, request) in enumerate(zip(lines, requests), 1)
        ]
        self._count += len(entries)
        try:
            self._client.submit_multiple_requests(
                requests, wait_until_complete=False, poll_timeout=self._timeout
            )
        except SubmitError:
            # What has got to a server goes on.
            entries = [entry for entry in entries if entry.request.state != JOB_UNKNOWN]
            self._pass_on(entries)
            raise
        self._pass_on(entries)


class _Listener:
    """Tells when something comes from a server, in a thread of its own, until the client is closed.

    Args:
        client: The client.
        news: Set when something has come.
    """

    def __init__(self, client: GearmanClient, news: threading.Event) -> None:
        #: Why it does not listen any more.
        self.error: GearmanError | None = None
        self._client = client
        self._news = news
        threading.Thread(target=self._run, name="gearmanctl-listener", daemon=True).start()

    def _run(self) -> None:
        try:
            self._client.poll_connections_until_stopped((), self._tell)
        except GearmanError as error:
            self.error = error
            self._news.set()

    def _tell(self, any_activity: bool) -> bool:  # noqa: ARG002
        self._news.set()
        return True


class _Writer:
    """Waits for the jobs, and writes their results."""

    def __init__(
        self,
        reader: _Reader,
        listener: _Listener,
        room: Room,
        news: threading.Event,
        bars: Bars,
        *,
        ordered: bool,
    ) -> None:
        self._reader = reader
        self._listener = listener
        self._room = room
        self._news = news
        self._bars = bars
        self._ordered = ordered
        self._under_way: deque[Entry] = deque()
        self._written = 0
        self._submitted = 0
        self._is_complete = False
        self._statuses: set[int] = set()

    def run(self) -> int:
        """Return the exit status when there are no more lines."""
        while True:
            self._take()
            ended = self._ended()
            if ended:
                for entry in ended:
                    self._write(entry)
                self._room.leave(ended)
                self._count()
            elif self._is_complete and not self._under_way:
                break
            else:
                self._report()
                flush()
                self._wait()
        if self._reader.error is not None:
            raise self._reader.error
        return next((status for status in _WORST_FIRST if status in self._statuses), exits.DONE)

    def _take(self) -> None:
        """Take what was submitted."""
        while not self._is_complete:
            try:
                entries = self._reader.submitted.get(block=False)
            except queue.Empty:
                return
            if entries is None:
                self._is_complete = True
            else:
                self._under_way += entries
                self._submitted += len(entries)
            self._count()

    def _ended(self) -> list[Entry]:
        """Take out what has ended and can be written now."""
        ended: list[Entry] = []
        if self._ordered:
            while self._under_way and self._under_way[0].has_ended:
                ended.append(self._under_way.popleft())
        else:
            others: deque[Entry] = deque()
            for entry in self._under_way:
                (ended if entry.has_ended else others).append(entry)
            self._under_way = others
        return ended

    def _wait(self) -> None:
        """Wait for news, or for the first job to time out: they do in the order of the lines."""
        if self._listener.error is not None:
            raise self._listener.error
        self._news.wait(sleep_until(self._under_way[0].deadline if self._under_way else math.inf))
        self._news.clear()

    def _report(self) -> None:
        if self._bars.are_drawn:
            for entry in self._under_way:
                status = entry.request.status
                if status:
                    name = f"line {entry.number}"
                    done, of = status["numerator"], status["denominator"]
                    self._bars.report(entry, name, done, of, place=entry.number)

    def _count(self) -> None:
        self._bars.count(self._written, self._submitted if self._is_complete else None)

    def _write(self, entry: Entry) -> None:
        request = entry.request
        self._bars.end(entry)
        if not request.background:
            for warning in request.warning_updates:
                self._bars.warn(warning)
        timed_out = not request.complete and request.state != JOB_UNKNOWN
        status, reason = exits.outcome(request, timed_out=timed_out)
        self._statuses.add(status)
        self._written += 1
        if status == exits.DONE:
            self._bars.write(result_of(request) + b"\n")
            return
        self._bars.complain(f"gearmanctl: line {entry.number}: {reason}")
        if self._ordered:
            self._bars.write(b"\n")  # The nth line is still that of the nth job.


def result_of(request: GearmanJobRequest) -> bytes:
    """All that a job has sent; the handle of a background job."""
    if request.background:
        return shown(request.handle or "").encode()
    return b"".join([*request.data_updates, request.result or b""])


def submit_lines(
    servers: Servers,
    job: dict[str, Any],
    chunks: Iterable[bytes],
    *,
    background: bool,
    ordered: bool,
    in_flight: int,
    timeout: float | None,
) -> int:
    """Submit a job for each line, and write the results.

    Args:
        servers: Where to.
        job: What all jobs have in common.
        chunks: Where the lines are.
        background: Whether they are background jobs; their handles are written.
        ordered: Whether results are written in the order of the lines, or as the jobs end.
        in_flight: How many jobs may be under way at once.
        timeout: Seconds to wait for each job, or None.

    Returns:
        The exit status: of several failures, the worst.

    Raises:
        GearmanError: No server could be reached any more.
        OSError: The lines can't be read.
        ValueError: A line is too long, or something is wrong with the job.
    """
    room = Room(in_flight)
    news = threading.Event()
    with servers.client() as client, Bars(total=True) as bars:
        listener = _Listener(client, news)
        reader = _Reader(client, job, chunks, room, news, background=background, timeout=timeout)
        return _Writer(reader, listener, room, news, bars, ordered=ordered).run()
