"""The admin protocol: its commands, and the servers' replies to them."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hypothesis import strategies as st

from gearman_proto import constants
from gearman_proto.checks import check_type
from gearman_proto.names import to_text
from gearman_proto.records import record
from gearman_proto.wire import text
from gearman_proto.wire.packets import TextLine
from gearman_proto.wire.text import (
    Command,
    FunctionStatus,
    JobRecord,
    PriorityStatus,
    WorkerStatus,
    server_error,
)

from .values import function_names, handles, names, uniques, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from gearman_proto.errors import ServerError

T = TypeVar("T")
_Made = tuple[bytes, Any]

_ENDINGS: Final = (b"\r\n", b"\n")
_REFUSALS: Final = (
    *(b"ERR UNKNOWN_COMMAND Unknown+server+command", b"ERR UNKNOWN_JOB", b"ERR"),
    *(b"ERR function not found", b"ERR unknown_args No+such%21", b"ERR \xff"),
)


@record(frozen=True)
class AdminReply(Generic[T]):
    """A reply to a command.

    Attributes:
        data: Its bytes, up to and including the last line end.
        value: The parsed reply: the return value of the command's `read`, or a ServerError.
    """

    data: bytes
    value: T | ServerError


@functools.cache
def admin_commands() -> SearchStrategy[Command[Any]]:
    """Commands of the admin protocol, all but ``shutdown``. The simplest is ``status``."""
    function = function_names().map(_word)
    sizes = st.integers(0, 2**31 - 1)
    return st.one_of(
        st.sampled_from(
            [
                *(text.status(), text.prioritystatus(), text.workers(), text.show_jobs()),
                *(text.show_unique_jobs(), text.version(), text.getpid(), text.verbose()),
            ]
        ),
        st.builds(text.maxqueue, function, sizes | st.tuples(sizes, sizes, sizes)),
        st.builds(text.cancel_job, handles().map(_word)),
        st.builds(text.create_function, function),
        st.builds(text.drop_function, function),
    )


def admin_lines() -> SearchStrategy[TextLine]:
    """Lines that a server parses as commands, known and unknown ones, but never ``shutdown``.

    They have at most five words. The simplest is ``status``.
    """
    words = st.one_of(
        st.sampled_from([b"STATUS", b"show", b"maxqueue", b"-1", b"\xff", b""]),
        names((b"w",), 63).map(lambda name: without(name, b"\0\n\r ")),
    )
    odd = st.lists(words, max_size=5).map(b" ".join)
    return st.one_of(
        admin_commands().map(lambda command: command.event),
        st.builds(
            TextLine,
            odd.filter(lambda line: not line.lower().startswith(b"shutdown")),
            st.sampled_from(_ENDINGS),
        ),
    )


def admin_replies(command: Command[T]) -> SearchStrategy[AdminReply[T]]:
    """Legal replies of a server to `command`, with their parsed values.

    Names in lists are restricted to those that can be told apart there; see `gearman_proto.text`.
    The replies include errors. The simplest one is an empty list, or the shortest line.

    Args:
        command: The command, such as ``gearman_proto.text.status()``.

    Raises:
        TypeError: `command` is not a Command.
    """
    check_type("command", command, Command, "one of those in gearman_proto.text")
    return _admin_replies(command.line if command.line in _ROWS or command.line in _LINES else b"")


@functools.cache
def _admin_replies(line: bytes) -> SearchStrategy[AdminReply[Any]]:
    rows = _ROWS.get(line)
    if rows is None:
        says = _LINES.get(line, lambda: st.just((b"OK", "OK")))
        return st.tuples(says() | _refusals(), st.sampled_from(_ENDINGS)).map(_line)
    return st.one_of(
        st.just(_list(([], b".\n"))),
        st.tuples(st.lists(rows(), max_size=5), st.sampled_from([b".\n", b".\r\n"])).map(_list),
        # An error that ends in a bare line feed could be a row.
        st.tuples(_refusals(), st.just(b"\r\n")).map(_line),
    )


def _refusals() -> SearchStrategy[_Made]:
    return st.sampled_from([(line, server_error(line)) for line in _REFUSALS])


def _word(name: bytes) -> bytes:
    """Return a name that can be a word of a command."""
    return without(name, b" \n\r") or b"f"


def _list(made: tuple[list[_Made], bytes]) -> AdminReply[Any]:
    rows, end = made
    return AdminReply(
        b"".join(line + b"\n" for line, _ in rows) + end, tuple(value for _, value in rows)
    )


def _line(made: tuple[_Made, bytes]) -> AdminReply[Any]:
    (line, value), ending = made
    return AdminReply(line + ending, value)


# When Hypothesis shrinks, it can remove up to five choices at once. The numbers of a row are drawn
# as one, so that it can remove whole rows.
def _columns(
    name: SearchStrategy[bytes], make: Callable[..., Any], *sizes: int
) -> SearchStrategy[_Made]:
    """Rows of a table: a name, and numbers from 0 up to `sizes`, exclusive."""

    def row(drawn: tuple[bytes, int]) -> _Made:
        name, rest = drawn
        values = []
        for size in sizes:
            rest, value = divmod(rest, size)
            values.append(value)
        line = b"\t".join((name, *(b"%d" % value for value in values)))
        return line, make(to_text(name), *values)

    return st.tuples(_printed(name), st.integers(0, math.prod(sizes) - 1)).map(row)


def _printed(name: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Names without line ends, other than the ``.`` that ends a list."""
    return name.map(lambda name: without(name, b"\n\r")).filter(lambda name: name != b".")


def _job(handle: str, retries: int, ignored: int, queued: int) -> JobRecord:
    return JobRecord(handle, retries, bool(ignored), bool(queued))


def _said(line: bytes) -> _Made:
    return line, to_text(line)


# The last one is gearmand's text for ::1.
_ADDRESSES: Final = (b"127.0.0.1", b"::1", b"::3539:3436:3600:0%2078575408")


def _workers() -> SearchStrategy[_Made]:
    def row(drawn: tuple[int, bytes, list[bytes]]) -> _Made:
        number, client_id, tasks = drawn
        ip = _ADDRESSES[number % len(_ADDRESSES)]
        line = b" ".join((b"%d" % number, ip, client_id, b":", *tasks))
        return line, WorkerStatus(
            number, to_text(ip), to_text(client_id), tuple(map(to_text, tasks))
        )

    ids = _printed(names((b"-", b"worker 7"), constants.MAX_CLIENT_ID_SIZE))
    return st.tuples(
        st.integers(3, 2**16),
        # A colon between blanks ends an id.
        ids.filter(lambda client_id: not re.search(rb"(^| ):( |$)", client_id)),
        st.lists(function_names().map(_word), max_size=3),
    ).map(row)


_ROWS: Final[dict[bytes, Callable[[], SearchStrategy[_Made]]]] = {
    b"status": lambda: _columns(function_names(), FunctionStatus, *[2**32] * 3),
    b"prioritystatus": lambda: _columns(function_names(), PriorityStatus, *[2**32] * 4),
    b"workers": _workers,
    b"show jobs": lambda: _columns(handles(), _job, 10, 2, 2),
    b"show unique jobs": lambda: _printed(uniques()).map(_said),
}
_LINES: Final[dict[bytes, Callable[[], SearchStrategy[_Made]]]] = {
    b"version": lambda: st.sampled_from([b"OK 1.1.21", b"OK 2.0.0", b"v1.130.1"]).map(_said),
    b"getpid": lambda: st.integers(1, 2**22).map(lambda number: (b"OK %d" % number, number)),
    b"verbose": lambda: st.sampled_from(["ERROR", "FATAL", "DEBUG"]).map(
        lambda level: (b"OK " + level.encode(), level)
    ),
}
