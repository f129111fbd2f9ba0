"""Text from servers and jobs must not control the terminal or forge lines and fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
    WorkFail,
    WorkWarning,
)
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
    # Backslashes are doubled, so that escapes are reversible.
    ("jobs --unique", saying(b" a\\b\tc\rd\xff\n.\n"), DONE, " a\\\\b\\tc\\rd\\xff\n", ""),
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
