"""The text commands of a job server, and their replies as typed records.

A `Command` has the line to send, and the function that reads the reply. A reply is one line, or a
list of lines that ends with a single dot. A server can also reply with an ``ERR`` line. `Reply`
collects lines until the reply is complete.

Ambiguous names
    Servers print names without escaping them, and a name can contain the separators. This module
    reads the lists so that only the following cases are wrong:

    * ``workers``: blanks separate functions, so a function with a blank in its name counts as two.
      A client id ends at the first " :" before a blank or the end of the line. A line that begins
      like an entry is an entry. Any other line continues a name that contains a line feed.
    * ``status``, ``prioritystatus``, ``show jobs``: the last columns are numbers, so names keep
      their blanks, tabs and line feeds, unless a line in a name ends in numbers itself.
    * ``show unique jobs``: a unique with a line feed counts as several, and the unique "." ends the
      list.

    gearmand prints the addresses of IPv6 peers incorrectly (``::3539:3436:3600:0%2078575408``). The
    field `ip` has the printed text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from gearman_proto import constants
from gearman_proto.errors import RemoteProtocolError, ServerError
from gearman_proto.names import check_name, to_text
from gearman_proto.records import record

from .packets import TextLine

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Command",
    "FunctionStatus",
    "JobRecord",
    "PriorityStatus",
    "Record",
    "Reply",
    "WorkerStatus",
    "cancel_job",
    "create_function",
    "drop_function",
    "getpid",
    "maxqueue",
    "prioritystatus",
    "show_jobs",
    "show_unique_jobs",
    "shutdown",
    "status",
    "verbose",
    "version",
    "workers",
]

T = TypeVar("T")
_R = TypeVar("_R", bound="Record")

#: Default limit for one reply in bytes, enough for ``show jobs`` with two million jobs.
DEFAULT_MAX_REPLY_SIZE: Final = 128 * 1024 * 1024
# The overhead of a line in bytes, so that many short lines can't exceed the limit.
_LINE_OVERHEAD: Final = 40

# The largest number in gearmand's lists has ten digits.
_MAX_DIGITS: Final = 20
# An entry of ``workers`` begins with a socket number and an address. (The number is negative for
# connections within the server's process.)
_ENTRY: Final = re.compile(rb"(-?\d{1,20}) ([^ ]*) ")
# A client id ends before " :", if a blank or the end of the line follows.
_END_OF_ID: Final = re.compile(rb" :(?= |\Z)")
# Matches a code. gearmand refuses some commands with a code, and some with a sentence.
_CODE: Final = re.compile(r"[A-Z]{2,}|[A-Za-z]+(_[A-Za-z]+)+")


class Record(Mapping[str, Any]):
    """A line of a list. Its fields are attributes, and keys as in python-gearman's dicts.

    A record is equal to a dict with the same keys and values.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).__slots__:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(type(self).__slots__)

    def __len__(self) -> int:
        return len(type(self).__slots__)


@record(frozen=True, eq=False)
class FunctionStatus(Record):
    """A function on a server (``status``).

    Attributes:
        task: The name of the function.
        queued: The number of its jobs, including running ones.
        running: The number of its running jobs.
        workers: The number of connections that have registered for it.
    """

    task: str
    queued: int
    running: int
    workers: int


@record(frozen=True, eq=False)
class PriorityStatus(Record):
    """The queue of a function (``prioritystatus``).

    Attributes:
        task: The name of the function.
        high: The number of waiting jobs of high priority.
        normal: The number of waiting jobs of normal priority.
        low: The number of waiting jobs of low priority.
        workers: The number of connections that have registered for the function.
    """

    task: str
    high: int
    normal: int
    low: int
    workers: int


@record(frozen=True, eq=False)
class WorkerStatus(Record):
    """A connection to a server (``workers``). The list includes the connections of clients.

    Attributes:
        file_descriptor: The server's file descriptor for the connection.
        ip: The address of the peer, as the server prints it.
        client_id: The name from SET_CLIENT_ID, by default ``-``.
        tasks: The functions that the peer has registered for.
    """

    file_descriptor: int
    ip: str
    client_id: str
    tasks: tuple[str, ...]


@record(frozen=True, eq=False)
class JobRecord(Record):
    """A job on a server (``show jobs``).

    Attributes:
        handle: The handle of the job.
        retries: The number of times that the server had to requeue it.
        ignored: True if the job was cancelled, or if all its clients have disconnected.
        queued: True for a background job, which the server can store in its persistent queue.
    """

    handle: str
    retries: int
    ignored: bool
    queued: bool


@record(frozen=True)
class Command(Generic[T]):
    """A command, and the function that converts its reply to a `T`.

    Attributes:
        line: The command, without a line ending.
        read: Converts the lines of the reply, which have no line feeds.
        is_list: True if the reply is a list, which ends with a single dot.
        hint: Advice for the error message if the server does not know the command.
    """

    line: bytes
    read: Callable[[Sequence[bytes]], T]
    is_list: bool = False
    hint: str = ""

    def __repr__(self) -> str:
        return f"<Command {to_text(self.line[:80])!r}>"

    @property
    def event(self) -> TextLine:
        """The line to send. It ends in CRLF; see TextLine."""
        return TextLine(self.line)


class Reply(Generic[T]):
    """The received lines of the reply to a command.

    Args:
        command: The command.
        max_size: Maximum size in bytes. Each line counts with its own bytes and 40 more.
    """

    def __init__(self, command: Command[T], max_size: int = DEFAULT_MAX_REPLY_SIZE) -> None:
        self._command = command
        self._room = max_size
        self._lines: list[bytes] = []

    def receive_line(self, event: TextLine) -> bool:
        """Add a line to the reply. Return True if the reply is complete.

        Raises:
            ServerError: The line is a refusal, which completes the reply.
            RemoteProtocolError: The reply is too long.
        """
        line = event.line
        is_list = self._command.is_list
        if not self._lines and line[:4] in (b"ERR", b"ERR ") and (not is_list or _ends_crlf(event)):
            raise self._refused(line)
        if is_list and line == b".":
            return True
        if is_list and _ends_crlf(event):
            line += b"\r"  # Lines of lists end in LF, so the CR belongs to a name.
        self._room -= len(line) + _LINE_OVERHEAD
        if self._room < 0:
            raise RemoteProtocolError(f"the reply to {self._command!r} is too long")
        self._lines.append(line)
        return not is_list

    def value(self) -> T:
        """Return the value of the complete reply.

        Raises:
            RemoteProtocolError: The reply does not fit the command.
        """
        return self._command.read(self._lines)

    def _refused(self, line: bytes) -> ServerError:
        error = server_error(line)
        if error.code == "UNKNOWN_COMMAND" and self._command.hint:
            return ServerError(error.code, f"{error.text} ({self._command.hint})")
        return error


def _ends_crlf(event: TextLine) -> bool:
    return event.ending == b"\r\n"


def server_error(line: bytes) -> ServerError:
    """Return the error for an ``ERR`` line.

    The error's `code` is the word after ERR. If the line has only a sentence, the code is ERR.
    """
    # Importing this takes as long as importing the rest of this module.
    from urllib.parse import unquote_plus  # noqa: PLC0415

    code, _, text = to_text(line[4:]).partition(" ")
    if not _CODE.fullmatch(code):
        code, text = "ERR", f"{code} {text}"
    return ServerError(code, unquote_plus(text).strip())


# Commands.


def status() -> Command[tuple[FunctionStatus, ...]]:
    """List all functions, with the numbers of their jobs and workers (``status``)."""
    return Command(b"status", _read_status, is_list=True)


def prioritystatus() -> Command[tuple[PriorityStatus, ...]]:
    """List all functions, with their waiting jobs by priority (``prioritystatus``)."""
    return Command(b"prioritystatus", _read_prioritystatus, is_list=True)


def workers() -> Command[tuple[WorkerStatus, ...]]:
    """List all connections, including those of clients (``workers``)."""
    return Command(b"workers", _read_workers, is_list=True)


def show_jobs() -> Command[tuple[JobRecord, ...]]:
    """List all jobs (``show jobs``)."""
    return Command(b"show jobs", _read_jobs, is_list=True)


def show_unique_jobs() -> Command[tuple[str, ...]]:
    """List the uniques of all jobs (``show unique jobs``)."""
    return Command(b"show unique jobs", _read_uniques, is_list=True)


def version() -> Command[str]:
    """Get the line with the server's version (``version``)."""
    return Command(b"version", _read_line)


def getpid() -> Command[int]:
    """Get the process ID of the server (``getpid``)."""
    return Command(b"getpid", _read_number)


def verbose() -> Command[str]:
    """Get the server's log level, such as ``ERROR`` (``verbose``)."""
    return Command(b"verbose", _read_word)


def maxqueue(task: str | bytes, max_size: int | Iterable[int | None] | None) -> Command[str]:
    """Limit the queue of a function (``maxqueue``).

    Args:
        task: The name of the function.
        max_size: Maximum number of waiting jobs, or a sequence of three such numbers, for high,
            normal and low priority. 0 and None mean unlimited.

    Raises:
        TypeError: `max_size` has another type.
        ValueError: `max_size` is out of range, or the name can't be a word of a command.
    """
    # Bytes also are a sequence of numbers.
    is_sequence = isinstance(max_size, Iterable) and not isinstance(max_size, (str, bytes))
    given: Iterable[object] = max_size if is_sequence else (max_size,)  # type: ignore[assignment]
    sizes = [_check_size(size) for size in given]
    if len(sizes) not in (1, 3):
        raise ValueError(f"a maxqueue is one number or three (high, normal, low), not {max_size!r}")
    words = [b"maxqueue", _word("task", task), *(b"%d" % size for size in sizes)]
    return _ok(*words)


def cancel_job(handle: str | bytes) -> Command[str]:
    """Remove the job of `handle` from the queue (``cancel job``).

    Raises:
        TypeError: `handle` is neither `str` nor `bytes`.
        ValueError: `handle` can't be a word of a command, or is too long.
    """
    return _ok(b"cancel job", _word("handle", handle, constants.MAX_HANDLE_SIZE))


def create_function(task: str | bytes) -> Command[str]:
    """Add the function `task` to the lists (``create function``).

    Raises:
        TypeError: `task` is neither `str` nor `bytes`.
        ValueError: `task` can't be a word of a command, for example because it contains a blank.
    """
    return _ok(b"create function", _word("task", task))


def drop_function(task: str | bytes) -> Command[str]:
    """Remove the function `task` from the lists (``drop function``).

    Raises:
        TypeError, ValueError: As in `create_function`.
    """
    return _ok(b"drop function", _word("task", task))


def shutdown(*, graceful: bool) -> Command[str]:
    """Stop the server (``shutdown``). If `graceful`, the server finishes its jobs first."""
    return Command(
        b"shutdown graceful" if graceful else b"shutdown",
        _read_ok,
        hint="gearmand has no such command; its process ends with SIGTERM, "
        "and with SIGUSR1 when its jobs are done",
    )


def _ok(*words: bytes) -> Command[str]:
    return Command(b" ".join(words), _read_ok)


def _word(what: str, name: str | bytes, limit: int = constants.MAX_FUNCTION_SIZE) -> bytes:
    """Return a name as a word of a command."""
    wire = check_name(what, name, limit)
    if not wire or b" " in wire or b"\n" in wire or wire.endswith(b"\r"):
        raise ValueError(
            f"the {what} {name!r} can't be given in a command, whose words are separated by blanks"
        )
    return wire


def _check_size(size: object) -> int:
    if size is None:
        return 0
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"a maxqueue is a number of jobs or None, not {size!r}")
    if not 0 <= size < 2**31:
        raise ValueError(f"a maxqueue is a number from 0 to {2**31 - 1}, not {size}")
    return size


# Replies.


def _bad(line: bytes, expected: str) -> NoReturn:
    raise RemoteProtocolError(f"{expected} was expected, not {line[:200]!r}")


def _read_line(lines: Sequence[bytes]) -> str:
    return to_text(lines[0])


def _read_ok(lines: Sequence[bytes]) -> str:
    if lines[0] != b"OK":
        _bad(lines[0], "OK")
    return "OK"


def _read_word(lines: Sequence[bytes]) -> str:
    word = lines[0].removeprefix(b"OK ")
    if word == lines[0]:
        _bad(lines[0], "OK and a word")
    return to_text(word)


def _read_number(lines: Sequence[bytes]) -> int:
    word = lines[0].removeprefix(b"OK ")
    if word == lines[0] or not _is_number(word):
        _bad(lines[0], "OK and a number")
    return int(word)


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= _MAX_DIGITS


def _read_columns(lines: Sequence[bytes], make: Callable[..., _R], count: int) -> tuple[_R, ...]:
    """Read a table whose rows have a name and `count` numbers.

    Any other line is the beginning of a name that contains a line feed.
    """
    records = []
    begun: list[bytes] = []
    for line in lines:
        name, *columns = line.removesuffix(b"\r").rsplit(b"\t", count)
        if len(columns) == count and all(map(_is_number, columns)):
            full_name = b"\n".join([*begun, name])
            records.append(make(to_text(full_name), *map(int, columns)))
            begun.clear()
        else:
            begun.append(line)
    if begun:
        _bad(begun[0], f"a name and {count} numbers")
    return tuple(records)


def _read_status(lines: Sequence[bytes]) -> tuple[FunctionStatus, ...]:
    return _read_columns(lines, FunctionStatus, 3)


def _read_prioritystatus(lines: Sequence[bytes]) -> tuple[PriorityStatus, ...]:
    return _read_columns(lines, PriorityStatus, 4)


def _read_jobs(lines: Sequence[bytes]) -> tuple[JobRecord, ...]:
    def make(handle: str, retries: int, ignored: int, queued: int) -> JobRecord:
        return JobRecord(handle, retries, bool(ignored), bool(queued))

    return _read_columns(lines, make, 3)


def _read_uniques(lines: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(map(to_text, lines))


def _read_workers(lines: Sequence[bytes]) -> tuple[WorkerStatus, ...]:
    entries: list[list[bytes]] = []
    for line in lines:
        if _ENTRY.match(line):
            entries.append([line])
        elif entries:
            entries[-1].append(line)
        else:
            _bad(line, "a number, an address, an id and functions")
    return tuple(_read_worker(b"\n".join(entry)) for entry in entries)


def _read_worker(entry: bytes) -> WorkerStatus:
    start = _ENTRY.match(entry)
    assert start is not None  # `_read_workers` splits the lines with this pattern.
    end = _END_OF_ID.search(entry, start.end())
    if end is None:
        _bad(entry, "a number, an address, an id and functions")
    number, ip = start.groups()
    client_id = entry[start.end() : end.start()]
    tasks = [word for word in entry[end.end() :].split(b" ") if word]
    return WorkerStatus(int(number), to_text(ip), to_text(client_id), tuple(map(to_text, tasks)))
