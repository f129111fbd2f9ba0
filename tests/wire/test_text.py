"""Tests of the text commands and their replies."""

from __future__ import annotations

import copy
import pickle
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto import constants, text
from gearman_proto.errors import RemoteProtocolError, ServerError
from gearman_proto.testing import Outcome, check_chunking, check_exceptions, parse
from gearman_proto.testing.strategies import admin_commands, admin_replies, chunked, hostile_replies
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import Event, Role, TextLine
from gearman_proto.wire.text import (
    Command,
    FunctionStatus,
    JobRecord,
    PriorityStatus,
    Reply,
    WorkerStatus,
    server_error,
)
from tests.profiles import examples
from tests.recordings import VECTORS

from .replies import Replies

T = TypeVar("T")


def read(command: Command[T], *chunks: bytes, max_size: int = 10**6) -> T:
    """Return the value of a reply in `chunks`. Check that only the last chunk completes it."""
    connection = Connection(Role.CLIENT)
    connection.send(command.event)
    reply = Reply(command, max_size)
    done = False
    for chunk in chunks:
        assert not done, "the reply was complete before"
        connection.receive_data(chunk)
        while not done and (event := connection.next_event()) is not NEED_DATA:
            assert isinstance(event, TextLine)
            done = reply.receive_line(event)
    assert done, "the reply is not complete"
    assert connection.next_event() is NEED_DATA, "there is something behind the reply"
    return reply.value()


# Commands.


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (text.getpid(), b"getpid"),
        (text.maxqueue("f", 10), b"maxqueue f 10"),
        (text.maxqueue(b"f", (1, 2, 3)), b"maxqueue f 1 2 3"),
        (text.maxqueue("f", [1, None, 0]), b"maxqueue f 1 0 0"),
        (text.maxqueue("f", iter([1, 2, 3])), b"maxqueue f 1 2 3"),
        (text.maxqueue("f", None), b"maxqueue f 0"),
        (text.maxqueue("f", 2**31 - 1), b"maxqueue f 2147483647"),
        (text.cancel_job("H:h:1"), b"cancel job H:h:1"),
        (text.create_function("naïve"), b"create function na\xc3\xafve"),
        (text.create_function(b"\xff\t"), b"create function \xff\t"),
        (text.create_function("a\rb"), b"create function a\rb"),
        (text.drop_function("f"), b"drop function f"),
        (text.shutdown(graceful=False), b"shutdown"),
        (text.shutdown(graceful=True), b"shutdown graceful"),
    ],
    ids=lambda value: value.decode("latin-1") if isinstance(value, bytes) else "",
)
def test_command_line_is_sent_with_crlf(command: Command[Any], line: bytes) -> None:
    """`test_recorded_replies_are_read` has the other commands."""
    # In `create function`, gearmand cuts off the end of the name unless the line ends in CRLF.
    assert Connection(Role.CLIENT).send(command.event) == line + b"\r\n"


NAMED = {
    "maxqueue": lambda name: text.maxqueue(name, 1),
    "cancel_job": text.cancel_job,
    "create_function": text.create_function,
    "drop_function": text.drop_function,
}
each_named = pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)


@each_named
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "can't be given in a command"),
        (b"", "can't be given in a command"),
        ("two words", "separated by blanks"),
        (" ", "separated by blanks"),
        ("two\nlines", "can't be given in a command"),
        ("end\r", "can't be given in a command"),
        ("a\0b", "has a NUL in it"),
        ("\ud800", "can't be sent as UTF-8"),
        ("x" * 7987, "7987 bytes"),
    ],
)
def test_command_bad_name_is_refused(named: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(name)


@each_named
@pytest.mark.parametrize("name", [None, 1, ["f"]])
def test_command_name_of_other_type_is_refused(named: Any, name: Any) -> None:
    with pytest.raises(TypeError, match="is a str or bytes"):
        named(name)


@pytest.mark.parametrize(
    ("named", "limit"), [(NAMED[name], 63 if name == "cancel_job" else 7986) for name in NAMED]
)
def test_command_longest_name_fits(named: Any, limit: int) -> None:
    sent = Connection(Role.CLIENT).send(named("x" * limit).event)
    assert len(sent) <= constants.MAX_COMMAND_SIZE
    with pytest.raises(ValueError, match=f"{limit + 1} bytes"):
        named("x" * (limit + 1))


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (-1, ValueError, "a number from 0 to 2147483647"),
        ([0, 0, 2**31], ValueError, "a number from 0 to 2147483647"),
        # gearmand would take two sizes for high and normal priority, and not limit low priority.
        ([1, 2], ValueError, "one number or three"),
        ((), ValueError, "one number or three"),
        *(
            (size, TypeError, "a number of jobs or None, not")
            for size in (True, 1.0, "123", b"123", [1, True, 3], [1, "2", 3])
        ),
    ],
)
def test_maxqueue_bad_size_is_refused(size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        text.maxqueue("f", size)


def test_command_repr_is_short() -> None:
    assert repr(text.status()) == "<Command 'status'>"
    assert len(repr(text.create_function("x" * 7000))) < 100


# Recorded replies.


def test_recorded_replies_are_read() -> None:
    steps = [step.data for step in VECTORS["40_admin_tour"].exchange if step.conn == "admin"]
    answers = {line.rstrip(): reply for line, reply in zip(steps[::2], steps[1::2])}
    functions = (FunctionStatus("alpha", 1, 1, 1), FunctionStatus("beta", 1, 0, 0))
    expected: dict[Any, Any] = {
        text.version(): "OK 1.1.21+ds",
        text.verbose(): "ERROR",
        text.status(): functions,
        text.prioritystatus(): (
            PriorityStatus("alpha", 0, 0, 0, 1),
            PriorityStatus("beta", 0, 1, 0, 0),
        ),
        text.workers(): (
            WorkerStatus(38, "127.0.0.1", "-", ()),
            WorkerStatus(39, "127.0.0.1", "worker-7", ("alpha",)),
            WorkerStatus(37, "127.0.0.1", "-", ()),
        ),
        text.show_jobs(): (JobRecord("H:h:2", 0, False, True), JobRecord("H:h:1", 0, False, False)),
        text.show_unique_jobs(): ("", "ua"),
    }
    for command, value in expected.items():
        assert read(command, answers.pop(command.line)) == value
    assert answers.keys() == {b"STATUS"}


# Replies of one line.


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_reply_of_one_line_is_read(ending: bytes) -> None:
    assert read(text.version(), b"OK 1.1.21" + ending) == "OK 1.1.21"
    assert read(text.version(), b"v1.130.1" + ending) == "v1.130.1"  # Perl's.
    assert read(text.version(), ending) == ""
    assert read(text.version(), b"OK \xff" + ending) == "OK \udcff"
    assert read(text.getpid(), b"OK 4711" + ending) == 4711
    assert read(text.verbose(), b"OK DEBUG" + ending) == "DEBUG"
    for command in (
        text.maxqueue("f", 1),
        text.cancel_job("H:h:1"),
        text.create_function("f"),
        text.drop_function("f"),
        text.shutdown(graceful=True),
    ):
        assert read(command, b"OK" + ending) == "OK"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (text.cancel_job("H:h:1"), b"OK then"),
        (text.cancel_job("H:h:1"), b"ok"),
        (text.cancel_job("H:h:1"), b""),
        (text.cancel_job("H:h:1"), b"ERROR"),
        (text.cancel_job("H:h:1"), b"OK\r"),
        (text.getpid(), b"OK"),
        (text.getpid(), b"4711"),
        (text.getpid(), b"OK -1"),
        (text.getpid(), b"OK 4711 "),
        (text.getpid(), b"OK \xd9\xa1"),
        (text.getpid(), b"OK " + b"1" * 21),
        (text.verbose(), b"OK"),
        (text.verbose(), b"DEBUG"),
        (text.verbose(), b"."),
    ],
)
def test_reply_of_wrong_line_is_refused(command: Command[Any], line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="expected, not b"):
        read(command, line + b"\r\n")


# Refusals.


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (b"ERR UNKNOWN_JOB", "UNKNOWN_JOB", ""),
        (b"ERR CREATE_FUNCTION a name", "CREATE_FUNCTION", "a name"),
        (b"ERR unknown_command ", "unknown_command", ""),  # Perl's.
        (b"ERR unknown_args No+such%21", "unknown_args", "No such!"),
        (b"ERR function not found", "ERR", "function not found"),
        (b"ERR there are still workers", "ERR", "there are still workers"),
        (b"ERR 12 monkeys", "ERR", "12 monkeys"),
        (b"ERR OOPS", "OOPS", ""),
        (b"ERR \xff\xff %zz", "ERR", "\udcff\udcff %zz"),
        (b"ERR ", "ERR", ""),
        (b"ERR", "ERR", ""),
    ],
)
def test_refusal_has_code_and_reason(line: bytes, code: str, reason: str) -> None:
    error = server_error(line)
    assert (error.code, error.text) == (code, reason)
    commands: list[Command[Any]] = [text.version(), text.getpid(), text.status()]
    for command in commands:
        with pytest.raises(ServerError) as caught:
            read(command, line + b"\r\n")
        assert (caught.value.code, caught.value.text) == (code, reason)


def test_function_like_refusal_is_a_row() -> None:
    reply = b"ERR\t1\t0\t0\nERR UNKNOWN_COMMAND x\t2\t0\t0\n.\n"
    assert [record.task for record in read(text.status(), reply)] == [
        "ERR",
        "ERR UNKNOWN_COMMAND x",
    ]
    assert read(text.show_unique_jobs(), b"ERR\nERR 1\n.\n") == ("ERR", "ERR 1")
    # Only the first line can be a refusal.
    assert read(text.show_unique_jobs(), b"a\nERR 1\r\n.\n") == ("a", "ERR 1\r")


def test_shutdown_unknown_to_server_has_hint() -> None:
    with pytest.raises(ServerError, match=r"gearmand has no such command.*SIGTERM") as caught:
        read(text.shutdown(graceful=True), b"ERR UNKNOWN_COMMAND Unknown+command\r\n")
    assert caught.value.code == "UNKNOWN_COMMAND"
    assert caught.value.text.startswith("Unknown command (")
    with pytest.raises(ServerError) as caught:
        read(text.shutdown(graceful=True), b"ERR NOT_ALLOWED for+you\r\n")
    assert str(caught.value) == "NOT_ALLOWED: for you"


# Lists.


# gearmand prints names without escaping them.
ODD_NAMES = ["", ".", "\ttabs\t", "a\t1", "a\t1\t2\t3", "\n", "ends in\r", "a\nb\nc\r", "\udcff"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_table_keeps_odd_names(name: str) -> None:
    wire = name.encode("utf-8", "surrogateescape")
    before, behind = b"a\t1\t2\t3\n", b"z\t4\t5\t4294967295\n.\n"
    a, z = FunctionStatus("a", 1, 2, 3), FunctionStatus("z", 4, 5, 4294967295)
    mine = FunctionStatus(name, 7, 8, 9)
    assert read(text.status(), before + wire + b"\t7\t8\t9\n" + behind) == (a, mine, z)
    assert read(text.status(), wire + b"\t7\t8\t9\n.\n") == (mine,)
    assert read(text.prioritystatus(), wire + b"\t6\t7\t8\t9\n.\n") == (
        PriorityStatus(name, 6, 7, 8, 9),
    )


@pytest.mark.parametrize("ending", [b".\n", b".\r\n"])
def test_list_ends_at_dot_with_either_line_ending(ending: bytes) -> None:
    assert read(text.show_unique_jobs(), ending) == ()
    assert read(text.show_unique_jobs(), b"u\n" + ending) == ("u",)


def test_table_ambiguous_name_becomes_two_rows() -> None:
    # A name with a line feed, whose first line looks like a row.
    assert read(text.status(), b"a\t1\t2\t3\nb\t7\t8\t9\n.\n") == (
        FunctionStatus("a", 1, 2, 3),
        FunctionStatus("b", 7, 8, 9),
    )


@pytest.mark.parametrize(
    "row",
    [
        b"f",
        b"f\t1\t2",
        b"f\t1\t2\t",
        b"f\t1\t2\tx",
        b"f\t1\t2\t-3",
        b"f\t1\t2\t 3",
        b"f\t1\t2\t" + b"3" * 21,
        b"f 1 2 3",
        b"\t1\t2",
        b"",
    ],
)
def test_table_bad_row_is_refused(row: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="a name and 3 numbers was expected"):
        read(text.status(), b"a\t1\t2\t3\n" + row + b"\n.\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"37 127.0.0.1 - :", WorkerStatus(37, "127.0.0.1", "-", ())),
        (b"37 127.0.0.1 - : ", WorkerStatus(37, "127.0.0.1", "-", ())),  # Perl's.
        (b"37 127.0.0.1 - : a : b", WorkerStatus(37, "127.0.0.1", "-", ("a", ":", "b"))),
        (b"37 127.0.0.1 - : a\t\r b", WorkerStatus(37, "127.0.0.1", "-", ("a\t\r", "b"))),
        (b"37 127.0.0.1 my id : f", WorkerStatus(37, "127.0.0.1", "my id", ("f",))),
        (b"37 127.0.0.1 : : f", WorkerStatus(37, "127.0.0.1", ":", ("f",))),
        (b"37 127.0.0.1 a: : f", WorkerStatus(37, "127.0.0.1", "a:", ("f",))),
        (b"37 fe80::1%eth0 id : f", WorkerStatus(37, "fe80::1%eth0", "id", ("f",))),
        (
            b"38 ::3539:3436:3600:0%2078575408 - : f",  # gearmand.
            WorkerStatus(38, "::3539:3436:3600:0%2078575408", "-", ("f",)),
        ),
        (b"-1 memory - : f", WorkerStatus(-1, "memory", "-", ("f",))),
        (b"4  - :", WorkerStatus(4, "", "-", ())),
        # Names with line feeds.
        (b"4 ::1 a\r\n\nb : f\ng h", WorkerStatus(4, "::1", "a\r\n\nb", ("f\ng", "h"))),
        (b"4 ::1 - : f\r", WorkerStatus(4, "::1", "-", ("f\r",))),
    ],
)
def test_workers_are_read(line: bytes, expected: WorkerStatus) -> None:
    other, other_line = WorkerStatus(9, "192.0.2.1", "o", ("p",)), b"9 192.0.2.1 o : p\n"
    assert read(text.workers(), line + b"\n.\n") == (expected,)
    assert read(text.workers(), other_line + line + b"\n" + other_line + b".\n") == (
        other,
        expected,
        other,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"37",
        b"37 127.0.0.1",
        b"37 127.0.0.1 -",
        b"37 127.0.0.1 -:",
        b"37 127.0.0.1 - :f",
        b"x 127.0.0.1 - : f",
        b" 37 127.0.0.1 - : f",
        b"1" * 21 + b" 127.0.0.1 - :",
    ],
)
def test_workers_bad_line_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="an id and functions was expected"):
        read(text.workers(), line + b"\n.\n")


# The size of replies.


def test_reply_larger_than_limit_is_refused() -> None:
    reply = b"\t1\t2\t3\n" * 10 + b".\n"
    size = 10 * (6 + 40)
    assert len(read(text.status(), reply, max_size=size)) == 10
    with pytest.raises(RemoteProtocolError, match=r"reply to <Command 'status'> is too long"):
        read(text.status(), reply, max_size=size - 1)
    with pytest.raises(RemoteProtocolError, match="too long"):
        read(text.version(), b"OK 1\n", max_size=43)
    assert read(text.version(), b"OK 1\n", max_size=44) == "OK 1"


# Records.

RECORDS: list[tuple[Any, dict[str, Any]]] = [
    (FunctionStatus("f", 1, 2, 3), {"task": "f", "queued": 1, "running": 2, "workers": 3}),
    (
        PriorityStatus("f", 1, 2, 3, 4),
        {"task": "f", "high": 1, "normal": 2, "low": 3, "workers": 4},
    ),
    (
        WorkerStatus(5, "::1", "id", ("f", "g")),
        {"file_descriptor": 5, "ip": "::1", "client_id": "id", "tasks": ("f", "g")},
    ),
    (
        JobRecord("H:h:1", 0, False, True),
        {"handle": "H:h:1", "retries": 0, "ignored": False, "queued": True},
    ),
]
each_record = pytest.mark.parametrize(
    ("record", "as_dict"), RECORDS, ids=lambda value: type(value).__name__
)


@each_record
def test_record_equals_dict_of_python_gearman(record: Any, as_dict: dict[str, Any]) -> None:
    assert record == as_dict
    assert as_dict == record
    assert dict(record) == {**record} == as_dict
    assert list(record.items()) == list(as_dict.items())
    assert len(record) == len(as_dict)
    for key, value in as_dict.items():
        assert key in record
        assert record[key] is record.get(key) is getattr(record, key)
        assert record[key] == value
        assert record != {**as_dict, key: "other"}
        with pytest.raises(AttributeError):
            setattr(record, key, 1)
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert type(other) is type(record)
        assert other == record


@each_record
@pytest.mark.parametrize("key", ["", "other", "keys", "__slots__", "__class__", 0, None])
def test_record_unknown_key_is_refused(record: Any, as_dict: Any, key: Any) -> None:
    with pytest.raises(KeyError) as caught:
        record[key]
    assert caught.value.args == (key,)
    assert key not in record
    assert record.get(key) is None
    assert record.get(key, 7) == 7


# Any replies.


@examples(10)
@given(admin_commands(), hostile_replies(), st.data())
def test_hostile_reply_does_not_depend_on_chunks(
    command: Command[Any], reply: bytes, data: st.DataObject
) -> None:
    """The reply yields a value of the command's type or one of the two errors."""

    def make() -> Replies:
        return Replies(command, 500)

    check_chunking(make, reply, data.draw(chunked(reply)))
    check_exceptions(make, reply, (RemoteProtocolError, ServerError))
    for value in parse(make, [reply] if reply else []).events:
        assert isinstance(value, (Event, tuple if command.is_list else (str, int)))


@examples(1)
@given(admin_commands(), st.data())
def test_any_valid_reply_is_read(command: Command[Any], data: st.DataObject) -> None:
    reply = data.draw(admin_replies(command))
    outcome = parse(lambda: Replies(command), data.draw(chunked(reply.data)))
    if isinstance(reply.value, ServerError):
        assert isinstance(outcome.error, ServerError)
        assert outcome.error.code == reply.value.code
    else:
        assert outcome == Outcome((reply.value,))
