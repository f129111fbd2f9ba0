"""The text commands of a job server, with gearmand's replies.

The server generates a long list in pieces (`Listing`), and serves other links between the pieces. A
list has the entries that existed when the command arrived, except jobs that have ended since.

These gearmand bugs are fixed: With any line ending, ``create function`` keeps the last letter of
the name. ``drop function`` requires the exact name, and refuses a function with jobs. ``cancel
job`` ends the job. Addresses are not truncated. ``shutdown`` behaves as in the Perl server and the
protocol document, since gearmand 1.1.21 does not have it.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final, Protocol

from gearman_proto.wire.packets import number
from gearman_proto.wire.rows import words_of

from .jobqueue import HIGH, LOW, NORMAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .jobqueue import Function, JobQueue, QueuedJob

_OK: Final = b"OK\r\n"
# Cost of a piece of a list. Each byte costs 1, and each part of a line another _PART_SIZE, for the
# time that it takes. Generating a piece takes well under a millisecond.
_PIECE_SIZE: Final = 64 * 1024
_PART_SIZE: Final = 64
# Bytes that a list uses for each entry.
_REFERENCE_SIZE: Final = 8

# In a name, these characters would look like the end of a field or line.
_CONTROLS: Final = re.compile(rb"[\0-\x1f\x7f]")


class Listed(Protocol):
    """A connection in the list of workers."""

    number: int
    peer: str
    client_id: bytes
    abilities: dict[Function, float]


class Commanded(Protocol):
    """A job server that receives commands."""

    pid: int
    version: str
    queue: JobQueue

    @property
    def links(self) -> Iterable[Listed]:
        """The connections."""

    def cancel(self, job: QueuedJob) -> None:
        """End `job` in any state."""

    def retire(self, *, graceful: bool) -> None:
        """Send all queued packets, then end. If `graceful` is true, finish all jobs first."""


class Listing:
    """A reply of many lines. Iterating over it yields each piece and its cost.

    Args:
        count: Number of entries.
        parts: The lines, or parts of lines.

    Attributes:
        size: Bytes that the list uses until it is complete.
    """

    def __init__(self, count: int, parts: Iterator[bytes]) -> None:
        self.size: int = count * _REFERENCE_SIZE
        self._parts = parts

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        piece, size = [], 0
        for part in self._parts:
            piece.append(part)
            size += len(part) + _PART_SIZE
            if size >= _PIECE_SIZE:
                yield b"".join(piece), size
                piece, size = [], 0
        piece.append(b".\n")
        yield b"".join(piece), size


def reply(server: Commanded, line: bytes) -> bytes | Listing:
    """Run the command `line` and return its reply."""
    words = words_of(line)
    command = _COMMANDS.get(words[0].lower())
    answer = command(server, words) if command is not None else None
    if answer is None:
        return b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % words[0]
    return answer


def _shown(name: bytes) -> bytes:
    return _CONTROLS.sub(b"?", name)


def _incomplete(command: bytes) -> bytes:
    text = b"An+incomplete+set+of+arguments+was+sent+to+this+command+"
    return b"ERR INVALID_ARGUMENTS %b%b\r\n" % (text, command)


def _version(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK %b\n" % server.version.encode()


def _getpid(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK %d\n" % server.pid


def _verbose(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK ERROR\n"


def _status(server: Commanded, words: list[bytes]) -> Listing:
    functions = list(server.queue.functions.values())
    return Listing(
        len(functions),
        (
            b"%b\t%d\t%d\t%d\n" % (_shown(each.name), each.total, each.running, each.workers)
            for each in functions
        ),
    )


def _prioritystatus(server: Commanded, words: list[bytes]) -> Listing:
    functions = list(server.queue.functions.values())
    return Listing(len(functions), map(_priorities, functions))


def _priorities(function: Function) -> bytes:
    counts = [len(queue) for queue in function.queues]
    counts[NORMAL] += function.delayed
    name, workers = _shown(function.name), function.workers
    return b"%b\t%d\t%d\t%d\t%d\n" % (name, counts[HIGH], counts[NORMAL], counts[LOW], workers)


def _workers(server: Commanded, words: list[bytes]) -> Listing:
    links = list(server.links)
    return Listing(len(links), itertools.chain.from_iterable(map(_worker, links)))


def _worker(link: Listed) -> Iterator[bytes]:
    yield b"%d %b %b :" % (link.number, link.peer.encode(), _shown(link.client_id))
    for function in list(reversed(link.abilities)):
        yield b" " + _shown(function.name)
    yield b"\n"


def _maxqueue(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) < 2:
        return _incomplete(words[0])
    sizes = [max(number(word), 0) for word in words[2:5]]
    if len(sizes) == 1:
        sizes *= 3
    high, normal, low = (*sizes, 0, 0, 0)[:3]
    function = server.queue.functions.get(words[1])
    if function is not None:
        function.limits = (high, normal, low)
    return _OK


def _show(server: Commanded, words: list[bytes]) -> bytes | Listing | None:
    what = [word.lower() for word in words[1:]]
    if not what:
        return None
    if what == [b"jobs"]:
        line = _job
    elif what == [b"unique", b"jobs"]:
        line = _unique
    else:
        return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
    jobs = server.queue.jobs
    # Keep handles instead of jobs, so that jobs that end meanwhile are freed.
    handles = list(jobs)
    there = (job for handle in handles if (job := jobs.get(handle)) is not None)
    return Listing(len(handles), map(line, there))


def _job(job: QueuedJob) -> bytes:
    return b"%b\t%d\t%d\t%d\n" % (job.handle, job.losses, not job.wanted, job.background)


def _unique(job: QueuedJob) -> bytes:
    return _shown(job.unique) + b"\n"


def _cancel(server: Commanded, words: list[bytes]) -> bytes | None:
    if len(words) < 3:
        return None
    if len(words) > 3 or words[1].lower() != b"job":
        return b"ERR UNKNOWN_ERROR\r\n"
    job = server.queue.jobs.get(words[2])
    if job is None:
        return b"ERR UNKNOWN_JOB\r\n"
    server.cancel(job)
    return _OK


def _create(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) != 3 or words[1].lower() != b"function":
        return _incomplete(words[0])
    if not server.queue.has_room(len(words[2])):
        return b"ERR CREATE_FUNCTION %b\r\n" % words[2]
    server.queue.function(words[2])
    return _OK


def _drop(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) != 3 or words[1].lower() != b"function":
        return _incomplete(words[0])
    function = server.queue.functions.get(words[2])
    if function is None:
        return b"ERR function not found\r\n"
    if function.workers or function.total:
        return b"ERR there are still connected workers or executing clients\r\n"
    server.queue.drop_function(function)
    return _OK


def _shutdown(server: Commanded, words: list[bytes]) -> bytes:
    graceful = [word.lower() for word in words[1:]] == [b"graceful"]
    if words[1:] and not graceful:
        return _incomplete(words[0])
    server.retire(graceful=graceful)
    return _OK


_COMMANDS: Final[dict[bytes, Callable[[Commanded, list[bytes]], bytes | Listing | None]]] = {
    b"version": _version,
    b"getpid": _getpid,
    b"verbose": _verbose,
    b"status": _status,
    b"prioritystatus": _prioritystatus,
    b"workers": _workers,
    b"maxqueue": _maxqueue,
    b"show": _show,
    b"cancel": _cancel,
    b"create": _create,
    b"drop": _drop,
    b"shutdown": _shutdown,
}
