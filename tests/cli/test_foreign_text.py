"""Text from servers and jobs must not control the terminal or forge lines and fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

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
    WorkWarning,
)
from tests.support import hostile

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Running,
    command_line,
    gearmanctl,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import Peer, ScriptedServer

EVIL: Final = b"a\x1b[2J\n\xc2\x9bgearmanctl: forged\r\xe2\x80\xae\xe2\x80\xa8\x7f\xff"
SHOWN: Final = r"a\x1b[2J\n\u009bgearmanctl: forged\r\u202e\u2028\x7f\xff"
#: The same text where white space is reduced to one blank.
JOINED: Final = r"a\x1b[2J \u009bgearmanctl: forged \u202e \x7f\xff"


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


def accepting(handle: PacketEvent) -> Callable[[Peer], None]:
    """Return a server's script that accepts a job, and ignores the questions about its function."""

    def script(peer: Peer) -> None:
        if isinstance(peer.receive(), SubmitJob):
            peer.send_anyway(handle)
        peer.hold()

    return script


class Case(NamedTuple):
    """A command, the server's script, and the exit status, output and a part of the errors."""

    command: str
    script: Callable[[Peer], None]
    status: int = DONE
    output: str = ""
    error: str = ""


JOB = JobCreated(b"H:1")
RAISES = answering(JOB, WorkException(b"H:1", EVIL))
WARNS = answering(JOB, WorkWarning(b"H:1", EVIL), WorkComplete(b"H:1", b"a\x1bb"))
ERR_LINE = b"ERR BAD_CODE " + EVIL.replace(b"\n", b"%0A") + b"\r\n"
BAD_WORKER = b"12 ::1\x1b[2J \x1b[31mid : f\x9b\x07\n.\n"
BAD_HANDLE = JobCreated(b"H\x1b[2J\n\xff")
CASES = {
    "a function": Case("status", saying(EVIL + b"\t1\t2\t3\n.\n"), output=f"{SHOWN}\t1\t2\t3\n"),
    "a worker": Case(
        "workers", saying(BAD_WORKER), output="12\t::1\\x1b[2J\t\\x1b[31mid\tf\\x9b\\x07\n"
    ),
    # Backslashes are doubled, so that escapes are reversible.
    "a unique": Case(
        "jobs --unique", saying(b" a\\b\tc\rd\xff\n.\n"), output=" a\\\\b\\tc\\rd\\xff\n"
    ),
    "a version": Case("version", saying(b"OK 1\x1b[2J\x07\n"), output="1\\x1b[2J\\x07\n"),
    "an error": Case("status", saying(ERR_LINE), FAILED, error=f"BAD_CODE: {SHOWN}"),
    "a code": Case("version", saying(b"ERR \x1b[2J\x07\n"), FAILED, error=r"ERR: \x1b[2J\x07"),
    "no reply": Case("status", saying(b"\x1b[2J\n.\n"), NO_SERVER, error=r"not b'\x1b[2J'"),
    "a refusal": Case(
        "submit t x",
        answering(Error(b"CO\x1b[2JDE", EVIL)),
        FAILED,
        error=rf"refused the job: CO\x1b[2JDE: {SHOWN}",
    ),
    "an exception": Case("submit t x", RAISES, FAILED, error=f"the job failed: {JOINED}"),
    # Results are unchanged.
    "a warning": Case("submit t x", WARNS, output="a\x1bb", error=JOINED),
    "an exception of a line": Case(
        "submit t x --lines", RAISES, FAILED, "\n", f"line 1: the job failed: {JOINED}"
    ),
    "a warning of a line": Case("submit t x --lines", WARNS, output="a\x1bb\n", error=JOINED),
    "a handle": Case(
        "submit t x -b", answering(BAD_HANDLE, to=SubmitJobBg), output="H\\x1b[2J\\n\\xff\n"
    ),
    "a handle of a line": Case(
        "submit t x --lines -b",
        answering(BAD_HANDLE, to=SubmitJobBg),
        output="H\\x1b[2J\\n\\xff\n",
    ),
    "a handle of a slow job": Case(
        "submit t x --timeout 2",
        accepting(BAD_HANDLE),
        TIMED_OUT,
        error=r"H\x1b[2J\n\xff has not ended in time",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_text_of_a_server_is_escaped(
    start_server: Callable[..., ScriptedServer], name: str
) -> None:
    case = CASES[name]
    result = gearmanctl(*case.command.split(), at=start_server(case.script).address)
    assert (result.status, result.output.decode()) == (case.status, case.output)
    assert case.error in result.errors
    assert hostile.is_harmless(result.errors.removesuffix("\n"))


@pytest.mark.parametrize(
    "name", ["a function", "an error", "an exception", "a warning", "an exception of a line"]
)
def test_text_of_a_server_on_a_terminal_is_escaped(
    start_server: Callable[..., ScriptedServer], name: str
) -> None:
    case = CASES[name]
    command = command_line(*case.command.split(), at=start_server(case.script).address)
    with Terminal(*command, columns=200) as terminal:
        terminal.wait_for_end()
        assert (case.error or r"a\x1b[2J\n") in terminal.text
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
