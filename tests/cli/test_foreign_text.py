"""Text from servers and jobs must not control the terminal or forge lines and fields."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.wire.packets import (
    CanDo,
    Error,
    GrabJob,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    PacketEvent,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkComplete,
    WorkException,
    WorkFail,
    WorkWarning,
)
from gearman_sync.cli.bars import Bars
from gearman_sync.cli.output import complain, show
from tests.ground.test_foreign import was
from tests.support import hostile

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    PROGRAM,
    TIMED_OUT,
    Result,
    Running,
    address_of,
    gearmanctl,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_sync.testing import Peer, ScriptedServer

EVIL: Final = b"a\x1b[2J\n\xc2\x9bgearmanctl: forged\r\xe2\x80\xae\xe2\x80\xa8\x7f\xff"
SHOWN: Final = r"a\x1b[2J\n\u009bgearmanctl: forged\r\u202e\u2028\x7f\xff"
#: The same text where white space is reduced to one blank.
JOINED: Final = r"a\x1b[2J \u009bgearmanctl: forged \u202e \x7f\xff"


# The parts, with any text.


class Stream(io.TextIOWrapper):
    """A standard stream that records its output and can pretend to be a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed together with this object
        super().__init__(file, encoding="utf-8", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        """Return the recorded output as text."""
        self.flush()
        return os.pread(self.fileno(), 1 << 20, 0).decode()


@contextlib.contextmanager
def streams(*, is_terminal: bool) -> Iterator[tuple[Stream, Stream]]:
    """Replace standard output and standard error. Disable colours."""
    with (
        Stream(is_terminal=is_terminal) as output,
        Stream(is_terminal=is_terminal) as errors,
        mock.patch.object(sys, "stdout", output),
        mock.patch.object(sys, "stderr", errors),
        mock.patch.dict(os.environ, TERM="dumb", COLUMNS="100000"),
    ):
        yield output, errors


VALUES: Final = hostile.BYTES.map(lambda data: data.decode("utf-8", "surrogateescape"))


@given(VALUES, st.lists(VALUES).map(tuple), st.booleans())
def test_fields_are_escaped(name: str, names: tuple[str, ...], is_terminal: bool) -> None:
    rows: list[dict[str, Any]] = [{"task": name, "tasks": names, "workers": 1}]
    with streams(is_terminal=is_terminal) as (output, _):
        show(rows, ["task", "tasks", "workers"], as_json=False)
        lines = output.text().removesuffix("\n").split("\n")
    if is_terminal:
        assert [line for line in lines if not hostile.is_harmless(line)] == []
    else:
        (line,) = lines
        fields = line.split("\t")
        assert all(map(hostile.is_harmless, fields))
        assert [*map(was, fields)] == [name, " ".join(names), "1"]


@given(VALUES)
def test_fields_in_json_are_unchanged(name: str) -> None:
    with streams(is_terminal=False) as (output, _):
        show([{"task": name}], ["task"], as_json=True)
        assert all(map(hostile.is_harmless, output.text().removesuffix("\n").split("\n")))


@given(VALUES, hostile.BYTES, st.booleans())
def test_complaints_are_escaped(message: str, warning: bytes, is_terminal: bool) -> None:
    with streams(is_terminal=is_terminal) as (_, errors):
        complain(message)
        with Bars() as bars:
            bars.complain(message)
            bars.warn(warning)
        lines = errors.text().removesuffix("\n").split("\n")
    assert len(lines) == 3
    assert [line for line in lines if not hostile.is_harmless(line)] == []


# The program, with a malicious server.


def saying(data: bytes) -> Callable[[Peer], None]:
    """Return a server's script that answers a text command with `data`."""

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send_raw(data)
        peer.hold()

    return script


def answering(*events: PacketEvent) -> Callable[[Peer], None]:
    """Return a server's script that answers a submit with these packets."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send_anyway(*events)
        peer.hold()

    return script


REPLIES: dict[str, tuple[tuple[str, ...], bytes, str]] = {
    "status": (("status",), EVIL + b"\t1\t2\t3\n.\n", f"{SHOWN}\t1\t2\t3\n"),
    "status --priority": (
        *(("status", "--priority"), EVIL + b"\t1\t2\t3\t4\n.\n"),
        f"{SHOWN}\t1\t2\t3\t4\n",
    ),
    "workers": (
        *(("workers",), b"12 ::1\x1b[2J \x1b[31mid : f\x9b\x07\n.\n"),
        "12\t::1\\x1b[2J\t\\x1b[31mid\tf\\x9b\\x07\n",
    ),
    "jobs": (("jobs",), EVIL + b"\t1\t0\t1\n.\n", f"{SHOWN}\t1\t0\t1\n"),
    "jobs --unique": (("jobs", "--unique"), b"\x1b[2Ju\xff\n.\n", "\\x1b[2Ju\\xff\n"),
    "version": (("version",), b"OK 1\x1b[2J\x07\n", "1\\x1b[2J\\x07\n"),
}


@pytest.mark.parametrize("what", REPLIES)
def test_lists_are_escaped(start_server: Callable[..., ScriptedServer], what: str) -> None:
    words, reply, expected = REPLIES[what]
    server = start_server(saying(reply))
    assert gearmanctl(*words, at=server.address) == Result(DONE, expected.encode(), "")


@pytest.mark.parametrize("what", REPLIES)
def test_lists_on_a_terminal_are_harmless(
    start_server: Callable[..., ScriptedServer], what: str
) -> None:
    words, reply, _ = REPLIES[what]
    server = start_server(saying(reply))
    with on_terminal(server, *words) as terminal:
        assert terminal.wait_for_end() == DONE
        assert r"\x1b[2J" in terminal.text
        assert_harmless(terminal)


Case = tuple[tuple[str, ...], "Callable[[Peer], None]", int, str]
ERRORS: dict[str, Case] = {
    "an ERR line": (
        *(("status",), saying(b"ERR BAD_CODE " + EVIL.replace(b"\n", b"%0A") + b"\r\n")),
        *(FAILED, f"BAD_CODE: {SHOWN}"),
    ),
    "an ERR line without a code": (
        *(("version",), saying(b"ERR \x1b[2J\x07\n")),
        *(FAILED, r"ERR: \x1b[2J\x07"),
    ),
    "another reply": (
        *(("status",), saying(b"\x1b[2J\n.\n")),
        *(NO_SERVER, r"not b'\x1b[2J'"),
    ),
    "an ERROR": (
        *(("submit", "t", ""), answering(Error(b"CO\x1b[2JDE", EVIL))),
        *(FAILED, rf"refused the job: CO\x1b[2JDE: {SHOWN}"),
    ),
    "an exception": (
        *(("submit", "t", ""), answering(JobCreated(b"H:1"), WorkException(b"H:1", EVIL))),
        *(FAILED, f"the job failed: {JOINED}"),
    ),
    "an ERROR to a line": (
        *(("submit", "t", "x", "--lines"), answering(Error(b"CODE", EVIL))),
        *(FAILED, f"refused the job: CODE: {SHOWN}"),
    ),
    "an exception of a line": (
        *(("submit", "t", "x", "--lines"),),
        *(answering(JobCreated(b"H:1"), WorkException(b"H:1", EVIL)),),
        *(FAILED, f"line 1: the job failed: {JOINED}"),
    ),
    "a handle": (
        *(("submit", "t", "", "--timeout", "2"), answering(JobCreated(b"H\x1b[2J\n\xff"))),
        *(TIMED_OUT, r"H\x1b[2J\n\xff has not ended in time"),
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_are_escaped(start_server: Callable[..., ScriptedServer], what: str) -> None:
    words, script, status, expected = ERRORS[what]
    server = start_server(script)
    result = gearmanctl(*words, at=server.address)
    assert (result.status, expected in result.error) == (status, True), result
    assert hostile.is_harmless(result.error)


@pytest.mark.parametrize("what", ["an ERR line", "an ERROR", "an exception of a line"])
def test_errors_on_a_terminal_are_harmless(
    start_server: Callable[..., ScriptedServer], what: str
) -> None:
    words, script, status, _ = ERRORS[what]
    server = start_server(script)
    with on_terminal(server, *words) as terminal:
        assert terminal.wait_for_end() == status
        assert r"\x1b[2J" in terminal.text
        assert "gearmanctl: " in terminal.lines[0]
        assert_harmless(terminal)


def test_warnings_are_escaped(start_server: Callable[..., ScriptedServer]) -> None:
    server = start_server(
        answering(JobCreated(b"H:1"), WorkWarning(b"H:1", EVIL), WorkComplete(b"H:1", b"a\x1bb"))
    )
    # Results are written unchanged.
    for options in ([], ["--lines"]):
        result = gearmanctl("submit", "t", "x", *options, at=server.address)
        assert (result.status, result.errors) == (DONE, f"{JOINED}\n")
        assert result.output.removesuffix(b"\n") == b"a\x1bb"


def test_warnings_on_a_terminal_are_harmless(start_server: Callable[..., ScriptedServer]) -> None:
    events = (JobCreated(b"H:1"), WorkWarning(b"H:1", EVIL), WorkFail(b"H:1"))
    server = start_server(answering(*events))
    with on_terminal(server, "submit", "t", "x") as terminal:
        assert terminal.wait_for_end() == FAILED
        assert terminal.lines[:2] == [JOINED, "gearmanctl: the job failed"]
        assert_harmless(terminal)


def test_handle_of_a_background_job_is_escaped(start_server: Callable[..., ScriptedServer]) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        peer.send_anyway(JobCreated(b"H\x1b[2J\n\xff"))
        peer.hold()

    server = start_server(script)
    for options in ([], ["--lines"]):
        result = gearmanctl("submit", "t", "x", "-b", *options, at=server.address)
        assert result == Result(DONE, b"H\\x1b[2J\\n\\xff\n", "")


def test_log_of_a_worker_is_escaped(
    start_server: Callable[..., ScriptedServer], start: Callable[..., Running]
) -> None:
    """The ERROR packet ends the connection, which is logged."""

    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(Error(b"CODE", EVIL))
        peer.expect(GrabJob)
        peer.send(Error(b"CODE", EVIL))

    server = start_server(script)
    running = start("work", "t", "--", "cat", at=server.address)
    line = running.error()
    assert line.startswith("gearmanctl: no connection to ")
    assert line.endswith(f"CODE: {SHOWN}")


def test_handle_of_a_failed_job_is_escaped(
    start_server: Callable[..., ScriptedServer], start: Callable[..., Running]
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(JobAssignUniq(b"H\x1b[2J\n\xff", b"t", b"u", b""))
        peer.expect(WorkException)

    server = start_server(script)
    running = start("work", "t", "--", "false", at=server.address)
    assert running.error() == r"gearmanctl: H\x1b[2J\n\xff: exit status 1"


def on_terminal(server: ScriptedServer, command: str, *words: str) -> Terminal:
    """Run gearmanctl on a terminal."""
    address = address_of(server.address)
    return Terminal(*PROGRAM, command, "--server", address, *words, columns=200)


def assert_harmless(terminal: Terminal) -> None:
    """Check that the output has no terminal sequences except gearmanctl's own (bars and styles)."""
    for evil in (b"\x1b[2J", b"\x07", b"\xc2\x9b", b"\x9bg", b"\x7f", b"\xe2\x80\xae", b"\xff"):
        assert evil not in terminal.raw, evil
