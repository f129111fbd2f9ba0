"""The text commands of a job server and their replies: a line out, typed records in, no I/O.

A `Command` is what to send and how its reply is read. A reply is one line, or a list of lines that
ends with a line of a single dot; either may be an ``ERR`` line instead. `Reply` collects the lines
until they are complete, and reads them then.

What can't be told apart
    Servers print names as they are, and a name may hold whatever separates names. The lists are
    read so that only these go wrong:

    * ``workers``: functions are separated by blanks, so one with a blank in its name counts as two.
      A client's id ends at the first blank and colon that a blank or the line's end follows. A line
      that does not begin like an entry belongs to the entry before, as part of a name that has line
      feeds; one that does begin like an entry is one.
    * ``status``, ``prioritystatus``, ``show jobs``: the numbers are the last columns, so blanks,
      tabs and line feeds stay in the name, except where a line of a name ends in numbers itself.
    * ``show unique jobs``: a unique with a line feed counts as several, and one that is a dot as
      the end of the list.

    gearmand prints the addresses of IPv6 peers wrong (``::3539:3436:3600:0%2078575408``): `ip` is
    what it prints.
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

#: Bytes that one reply may take unless told otherwise: ``show jobs`` of two million jobs.
DEFAULT_MAX_REPLY_SIZE: Final = 128 * 1024 * 1024
# Bytes that a line takes beside its own: many short ones must not take many times as much.
_LINE_OVERHEAD: Final = 40

# The largest number that gearmand's lists hold has ten digits.
_MAX_DIGITS: Final = 20
# How an entry of ``workers`` begins: the number of its socket, and an address.
# (What is connected within the process has no socket.)
_ENTRY: Final = re.compile(rb"(-?\d{1,20}) ([^ ]*) ")
# What ends a client's id: a blank and a colon, and then a blank or nothing more.
_END_OF_ID: Final = re.compile(rb" :(?= |\Z)")
# gearmand refuses some commands with a code, and some with a sentence.
_CODE: Final = re.compile(r"[A-Z]{2,}|[A-Za-z]+(_[A-Za-z]+)+")


class Record(Mapping[str, Any]):
    """A line of a list: its fields are attributes, and keys as in python-gearman's dicts.

    It is equal to a dict with the same keys and values.
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
    """A function at a server (``status``).

    Attributes:
        task: Its name.
        queued: How many jobs of it there are, those that run included.
        running: How many of them run.
        workers: How many connections can do it.
    """

    task: str
    queued: int
    running: int
    workers: int


@record(frozen=True, eq=False)
class PriorityStatus(Record):
    """The queue of a function (``prioritystatus``).

    Attributes:
        task: Its name.
        high: How many jobs of high priority wait.
        normal: The same for those without a priority.
        low: The same for low priority.
        workers: How many connections can do it.
    """

    task: str
    high: int
    normal: int
    low: int
    workers: int


@record(frozen=True, eq=False)
class WorkerStatus(Record):
    """A connection at a server (``workers``); those of clients are in the list, too.

    Attributes:
        file_descriptor: The number of its socket in the server.
        ip: The address of its other end, as the server prints it.
        client_id: What it is called (SET_CLIENT_ID); ``-`` if nothing was said.
        tasks: The functions that it can do.
    """

    file_descriptor: int
    ip: str
    client_id: str
    tasks: tuple[str, ...]


@record(frozen=True, eq=False)
class JobRecord(Record):
    """A job at a server (``show jobs``).

    Attributes:
        handle: Its handle.
        retries: How often it was given out and came back.
        ignored: Whether nobody wants it any more: it was cancelled, or its clients have left.
        queued: Whether it is a background job, which the server keeps in its queue's store.
    """

    handle: str
    retries: int
    ignored: bool
    queued: bool


@record(frozen=True)
class Command(Generic[T]):
    """A command, and how its reply becomes a `T`.

    Attributes:
        line: The command, without its line end.
        read: Gets the lines of the reply, without their line feeds.
        is_list: Whether the reply is a list, which ends with a line of a single dot.
        hint: What to add to the server's words if it does not know the command.
    """

    line: bytes
    read: Callable[[Sequence[bytes]], T]
    is_list: bool = False
    hint: str = ""

    def __repr__(self) -> str:
        return f"<Command {to_text(self.line[:80])!r}>"

    @property
    def event(self) -> TextLine:
        """What to send. It ends in CRLF; see TextLine."""
        return TextLine(self.line)


class Reply(Generic[T]):
    """The lines that have come in answer to a command.

    Args:
        command: The command.
        max_size: Bytes, 40 for each line beside its own. A larger reply is an error.
    """

    def __init__(self, command: Command[T], max_size: int = DEFAULT_MAX_REPLY_SIZE) -> None:
        self._command = command
        self._room = max_size
        self._lines: list[bytes] = []

    def receive_line(self, event: TextLine) -> bool:
        """Take `event`, a line of the reply. Returns whether it was the last one.

        Raises:
            ServerError: It refuses the command. It was the last one.
            RemoteProtocolError: The reply is too long.
        """
        line = event.line
        is_list = self._command.is_list
        if not self._lines and line[:4] in (b"ERR", b"ERR ") and (not is_list or _ends_crlf(event)):
            raise self._refused(line)
        if is_list and line == b".":
            return True
        if is_list and _ends_crlf(event):
            line += b"\r"  # The lines of lists end in LF, so it belongs to a name.
        self._room -= len(line) + _LINE_OVERHEAD
        if self._room < 0:
            raise RemoteProtocolError(f"the reply to {self._command!r} is too long")
        self._lines.append(line)
        return not is_list

    def value(self) -> T:
        """What the complete reply says.

        Raises:
            RemoteProtocolError: It is not what a server answers to this command.
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
    """The error that an ``ERR`` line is.

    Its `code` is the word behind ERR, or ERR itself where there is only a sentence.
    """
    # It takes as long to import as this module.
    from urllib.parse import unquote_plus  # noqa: PLC0415

    code, _, text = to_text(line[4:]).partition(" ")
    if not _CODE.fullmatch(code):
        code, text = "ERR", f"{code} {text}"
    return ServerError(code, unquote_plus(text).strip())


# Commands.


def status() -> Command[tuple[FunctionStatus, ...]]:
    """All functions, and how many jobs and workers each has (``status``)."""
    return Command(b"status", _read_status, is_list=True)


def prioritystatus() -> Command[tuple[PriorityStatus, ...]]:
    """All functions, and what waits for them by priority (``prioritystatus``)."""
    return Command(b"prioritystatus", _read_prioritystatus, is_list=True)


def workers() -> Command[tuple[WorkerStatus, ...]]:
    """All connections, those of clients too (``workers``)."""
    return Command(b"workers", _read_workers, is_list=True)


def show_jobs() -> Command[tuple[JobRecord, ...]]:
    """All jobs (``show jobs``)."""
    return Command(b"show jobs", _read_jobs, is_list=True)


def show_unique_jobs() -> Command[tuple[str, ...]]:
    """The uniques of all jobs (``show unique jobs``)."""
    return Command(b"show unique jobs", _read_uniques, is_list=True)


def version() -> Command[str]:
    """The server's version, as the line that it sends (``version``)."""
    return Command(b"version", _read_line)


def getpid() -> Command[int]:
    """The number of the server's process (``getpid``)."""
    return Command(b"getpid", _read_number)


def verbose() -> Command[str]:
    """How much the server logs, as a word such as ``ERROR`` (``verbose``)."""
    return Command(b"verbose", _read_word)


def maxqueue(task: str | bytes, max_size: int | Iterable[int | None] | None) -> Command[str]:
    """Limit the queue of a function (``maxqueue``).

    Args:
        task: Its name.
        max_size: How many jobs it may have; or a sequence of three such numbers, for those of high,
            normal and low priority. 0 and None are no limit.

    Raises:
        TypeError: `max_size` is something else.
        ValueError: Servers do not take this, or the name can't be a word of a command.
    """
    # Bytes are a sequence of numbers, too.
    is_sequence = isinstance(max_size, Iterable) and not isinstance(max_size, (str, bytes))
    given: Iterable[object] = max_size if is_sequence else (max_size,)  # type: ignore[assignment]
    sizes = [_check_size(size) for size in given]
    if len(sizes) not in (1, 3):
        raise ValueError(f"a maxqueue is one number or three (high, normal, low), not {max_size!r}")
    words = [b"maxqueue", _word("task", task), *(b"%d" % size for size in sizes)]
    return _ok(*words)


def cancel_job(handle: str | bytes) -> Command[str]:
    """Take the job of `handle` out of the queue (``cancel job``).

    Raises:
        TypeError: `handle` is no name.
        ValueError: It can't be a handle.
    """
    return _ok(b"cancel job", _word("handle", handle, constants.MAX_HANDLE_SIZE))


def create_function(task: str | bytes) -> Command[str]:
    """Have the function `task` in the lists (``create function``).

    Raises:
        TypeError: `task` is no name.
        ValueError: It can't be a word of a command: it has a blank, say.
    """
    return _ok(b"create function", _word("task", task))


def drop_function(task: str | bytes) -> Command[str]:
    """Take the function `task` out of the lists (``drop function``).

    Raises:
        TypeError, ValueError: As in `create_function`.
    """
    return _ok(b"drop function", _word("task", task))


def shutdown(*, graceful: bool) -> Command[str]:
    """End the server (``shutdown``); `graceful`: when its jobs are done."""
    return Command(
        b"shutdown graceful" if graceful else b"shutdown",
        _read_ok,
        hint="gearmand 1.1 has no such command; its process ends with SIGTERM, "
        "and with SIGUSR1 when its jobs are done",
    )


def _ok(*words: bytes) -> Command[str]:
    return Command(b" ".join(words), _read_ok)


def _word(what: str, name: str | bytes, limit: int = constants.MAX_FUNCTION_SIZE) -> bytes:
    """A name as a word of a command."""
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
    """Read a table: a name and `count` numbers. What is no row begins a name with line feeds."""
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
    assert start is not None  # It is what entries are told apart by.
    end = _END_OF_ID.search(entry, start.end())
    if end is None:
        _bad(entry, "a number, an address, an id and functions")
    number, ip = start.groups()
    client_id = entry[start.end() : end.start()]
    tasks = [word for word in entry[end.end() :].split(b" ") if word]
    return WorkerStatus(int(number), to_text(ip), to_text(client_id), tuple(map(to_text, tasks)))
