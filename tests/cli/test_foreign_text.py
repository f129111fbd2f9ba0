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


def answering(*events: PacketEvent, to: type[PacketEvent] = SubmitJob) -> Callable[[Peer], None]:
    """Return a server's script that answers a submit with these packets."""

    def script(peer: Peer) -> None:
        peer.expect(to)
        peer.send_anyway(*events)
        peer.hold()

    return script


Case = tuple[str, "Callable[[Peer], None]", int, str, str]
JOB = JobCreated(b"H:1")
RAISES = (JOB, WorkException(b"H:1", EVIL))
WARNS = (JOB, WorkWarning(b"H:1", EVIL), WorkComplete(b"H:1", b"a\x1bb"))
ERR_LINE = b"ERR BAD_CODE " + EVIL.replace(b"\n", b"%0A") + b"\r\n"
#: A command, the server's script, the exit status, the output, and a part of the error.
CASES: list[Case] = [
    ("status", saying(EVIL + b"\t1\t2\t3\n.\n"), DONE, f"{SHOWN}\t1\t2\t3\n", ""),
    (
        "workers",
        saying(b"12 ::1\x1b[2J \x1b[31mid : f\x9b\x07\n.\n"),
        *(DONE, "12\t::1\\x1b[2J\t\\x1b[31mid\tf\\x9b\\x07\n", ""),
    ),
    ("version", saying(b"OK 1\x1b[2J\x07\n"), DONE, "1\\x1b[2J\\x07\n", ""),
    ("status", saying(ERR_LINE), FAILED, "", f"BAD_CODE: {SHOWN}"),
    ("version", saying(b"ERR \x1b[2J\x07\n"), FAILED, "", r"ERR: \x1b[2J\x07"),
    ("status", saying(b"\x1b[2J\n.\n"), NO_SERVER, "", r"not b'\x1b[2J'"),
    (
        "submit t x",
        answering(Error(b"CO\x1b[2JDE", EVIL)),
        *(FAILED, "", rf"refused the job: CO\x1b[2JDE: {SHOWN}"),
    ),
    ("submit t x", answering(*RAISES), FAILED, "", f"the job failed: {JOINED}"),
    ("submit t x", answering(*WARNS), DONE, "a\x1bb", JOINED),  # Results are unchanged.
    (
        "submit t x --lines",
        answering(*RAISES),
        *(FAILED, "\n", f"line 1: the job failed: {JOINED}"),
    ),
    ("submit t x --lines", answering(*WARNS), DONE, "a\x1bb\n", JOINED),
    (
        "submit t x -b",
        answering(JobCreated(b"H\x1b[2J\n\xff"), to=SubmitJobBg),
        *(DONE, "H\\x1b[2J\\n\\xff\n", ""),
    ),
    (
        "submit t x --timeout 2",
        answering(JobCreated(b"H\x1b[2J\n\xff")),
        *(TIMED_OUT, "", r"H\x1b[2J\n\xff has not ended in time"),
    ),
]
each_case = pytest.mark.parametrize(
    ("line", "script", "status", "output", "error"), CASES, ids=[case[0] for case in CASES]
)


@each_case
def test_text_of_a_server_is_escaped(
    start_server: Callable[..., ScriptedServer],
    line: str,
    script: Callable[[Peer], None],
    status: int,
    output: str,
    error: str,
) -> None:
    result = gearmanctl(*line.split(), at=start_server(script).address)
    assert (result.status, result.output.decode()) == (status, output)
    assert error in result.errors
    assert hostile.is_harmless(result.errors.removesuffix("\n"))


@pytest.mark.parametrize(
    ("line", "script", "shown"),
    [
        ("status", saying(EVIL + b"\t1\t2\t3\n.\n"), r"a\x1b[2J\n"),
        ("status", saying(ERR_LINE), "gearmanctl: "),
        ("submit t x", answering(*RAISES), f"gearmanctl: the job failed: {JOINED}"),
        ("submit t x", answering(JOB, WorkWarning(b"H:1", EVIL), WorkFail(b"H:1")), JOINED),
        ("submit t x --lines", answering(*RAISES), f"line 1: the job failed: {JOINED}"),
    ],
)
def test_text_of_a_server_on_a_terminal_is_escaped(
    start_server: Callable[..., ScriptedServer],
    line: str,
    script: Callable[[Peer], None],
    shown: str,
) -> None:
    command, *words = line.split()
    options = ("--server", address_of(start_server(script).address))
    with Terminal(*PROGRAM, command, *options, *words, columns=200) as terminal:
        terminal.wait_for_end()
        assert shown in terminal.text
        assert r"\x1b[2J" in terminal.text
        # The output has only gearmanctl's own sequences, of bars and styles.
        for evil in (b"\x1b[2J", b"\x07", b"\xc2\x9b", b"\x9bg", b"\x7f", b"\xe2\x80\xae", b"\xff"):
            assert evil not in terminal.raw, evil


def test_log_and_handle_of_a_worker_are_escaped(
    start_server: Callable[..., ScriptedServer], start: Callable[..., Running]
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(JobAssignUniq(b"H\x1b[2J\n\xff", b"t", b"u", b""))
        peer.expect(WorkException)
        peer.expect(GrabJobUniq)
        peer.send(Error(b"CODE", EVIL))
        peer.expect(GrabJob)
        # The second ERROR ends the connection, which is logged.
        peer.send(Error(b"CODE", EVIL))

    running = start("work", "t", "--", "false", at=start_server(script).address)
    assert running.error() == r"gearmanctl: H\x1b[2J\n\xff: exit status 1"
    line = running.error()
    assert line.startswith("gearmanctl: no connection to ")
    assert line.endswith(f"CODE: {SHOWN}")
