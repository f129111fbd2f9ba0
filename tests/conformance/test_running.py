"""Servers and programs that exit, and the judge's response."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.testing.conformance.case import MUST, Failed, Suite, Unsupported, Verdict
from gearman_proto.testing.conformance.judge import Outcome
from gearman_proto.testing.conformance.program_kit import ClientKit, wait_for
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance.places import SocketPlace, SocketProgramPlace
from gearman_sync.testing.conformance.program import Program, filled, launcher
from gearman_sync.testing.conformance.running import Gone, Judge, is_there
from gearman_sync.testing.conformance.subjects import ProgramSubject, ServerSubject
from gearman_sync.testing.recording import Recording
from tests.cli.support import is_alive
from tests.conformance.__main__ import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.testing.conformance.case import Case

#: A server that reports its version, and that dies or hangs on request.
MORTAL: Final = """
import os, signal, socket, sys, threading
def serve(sock):
    with sock:
        data = sock.recv(1000)
        if b"die" in data:
            os._exit(0)
        if b"hang" in data:
            os.kill(os.getpid(), signal.SIGSTOP)
        if b"version" in data:
            sock.sendall(b"OK 1\\n")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]]).start()
"""
#: A client that submits nothing, prints its arguments and an error, and fails.
ECHO: Final = "import sys; print(sys.argv[1:]); sys.stderr.write('why'); sys.exit(3)"


def case_of(check: Callable[[Any], str | None]) -> Case:
    """Return a case that calls `check`."""

    def function(it: Any) -> str | None:
        """Something is so."""
        return check(it)

    suite = Suite("server")
    suite.case("a/b/1", MUST, "nowhere")(function)
    return suite.cases["a/b/1"]


def told(value: str | None) -> Callable[[Any], str | None]:
    return lambda _: value


def killed(it: Any) -> None:
    line = it.client()
    line.send_raw(b"die")
    line.ends()


def killed_and_failed(it: Any) -> None:
    killed(it)
    raise Failed("an answer", "none")


def stopped(it: Any) -> None:
    it.client().send_raw(b"hang")
    raise Failed("a version", "nothing")


def test_judge_over_sockets_adds_the_recording_and_the_errors() -> None:
    class Kit:
        errors = b"the end of it"
        place = SocketPlace()

    (outcome,) = Judge(lambda _: contextlib.nullcontext(Kit())).run([case_of(told(None))])
    assert outcome.errors == "the end of it"
    assert outcome.recording.exchange == []
    assert outcome.seconds > 0


# Servers that end.


def test_interrupted_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kill, killed = os.killpg, []

    def read(*_: int) -> None:
        raise KeyboardInterrupt  # Popen reads from a pipe until the program has been started.

    def note(pid: int, number: int) -> None:
        killed.append(pid)
        kill(pid, number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        patch.setattr(os, "killpg", note)
        with pytest.raises(KeyboardInterrupt):
            Program([sys.executable, "-c", "import time; time.sleep(99)"])
    assert not is_alive(*killed)


def test_judge_with_a_server_that_dies_restarts_it() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    with ServerSubject(None, words, (), 20) as subject:
        assert subject.has == {"text", "restart"}
        lives, dies, fails, again = subject.run(
            [case_of(told(None)), case_of(killed), case_of(killed_and_failed), case_of(told(None))]
        )
        assert lives.verdict is again.verdict is Verdict.PASS
        assert lives.recording is None
        assert dies.recording is not None
        assert dies.verdict is Verdict.FAIL
        assert dies.message == "expected a running server, and got the server died"
        assert fails.message == "expected an answer, and got none; then the server died"
    assert not is_there(subject.address)


def test_judge_with_an_external_server_that_dies_stops() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(ServerSubject(None, words, (), 20))
        subject = stack.enter_context(ServerSubject(started.address, [], (), 20))
        assert subject.has == {"text"}
        with subject.kit(case_of(told(None))) as kit, pytest.raises(Unsupported):
            kit.restart()
        with pytest.raises(Gone, match="the server died in a/b/1"):
            list(subject.run([case_of(killed)]))
        with (
            pytest.raises(Failed, match="expected a connection"),
            subject.kit(case_of(told(None))) as kit,
        ):
            kit.client()


def test_judge_with_a_server_that_hangs_restarts_it() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    with ServerSubject(None, words, (), 1) as subject:
        hangs, again = subject.run([case_of(stopped), case_of(told(None))])
    assert hangs.message == "expected a version, and got nothing; then the server hangs"
    assert again.verdict is Verdict.PASS


def test_judge_waits_shorter_after_three_cases_that_waited_in_vain() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    case = case_of(told(None))
    with ServerSubject(None, words, (), 20) as subject:
        for waits in (20, 20, 20, 10):
            assert subject.timeout == waits
            with subject.kit(case) as kit:
                kit.place.exchange.longest_wait = 1.0
            subject.look_after(Outcome(case, Verdict.FAIL, seconds=20, recording=Recording([])))
        case = replace(case, slow=True)
        with subject.kit(case) as kit:
            assert kit.timeout == 20


def test_judge_of_a_peer_that_is_not_a_server_stops() -> None:
    """Skip the cases: each one would wait for its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        subject = ServerSubject(silent.getsockname(), [], (), 0.05)
        with pytest.raises(Gone, match="is not a Gearman server"), subject:
            pass


# Programs.


def test_words() -> None:
    values = {"address": "h:1", "payload": "p"}
    assert filled(["a", "-s{address}", "{payload}", "{other}"], values, ["p"]) == [
        "a", "-sh:1", "p", "{other}",
    ]  # fmt: skip
    assert filled(["a", "{payloads}", "b"], values, ["p", "q"]) == ["a", "p", "q", "b"]


def test_program_returns_its_output() -> None:
    program = Program([sys.executable, "-c", ECHO, "word"])
    try:
        assert wait_for(SocketPlace(), program, 20) == 3
        assert program.output == b"['word']\n"
        assert program.errors == b"why"
    finally:
        program.end()


def test_program_that_does_not_exit_fails() -> None:
    program = Program([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(99)"])
    try:
        with pytest.raises(Failed, match=r"the program's exit, and got nothing in 0\.1"):
            wait_for(SocketPlace(), program, 0.1)
        program.signal(signal.SIGKILL)
        assert wait_for(SocketPlace(), program, 20) == -signal.SIGKILL
    finally:
        program.end()


def test_client_that_does_not_connect_fails() -> None:
    subject = ProgramSubject("client", [sys.executable, "-c", ECHO, "{payloads}"], (), 20)
    assert subject.has == {"several"}
    with subject as entered, entered.kit(case_of(told(None))) as kit:
        assert isinstance(kit, ClientKit)
        assert kit.errors == b""
        with pytest.raises(Failed, match="and got the program's exit with status 3"):
            kit.submitted(b"one", b"two")
        assert kit.program.output == b"['one', 'two']\n"
        assert kit.errors == b"why"


def test_missing_program_fails() -> None:
    place = SocketProgramPlace(launcher(["/no/such/program"]))
    with ClientKit(place, "f", 1) as kit, pytest.raises(OSError):
        kit.start()


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("worker", "payload/split/1"),
        ("worker", "life/back/3"),
        ("worker", "life/term/2"),
        ("client", "life/refused/1"),
        ("client", "order/backwards/1"),
    ],
)
def test_our_program_passes_the_case(side: str, name: str) -> None:
    """All other cases judge our engines in memory."""
    argv = PEERS[side]["gearman_sync"].argv
    with ProgramSubject(side, argv, (), 20) as subject:
        outcome = Judge(subject.kit, subject.has).judge(SUITES[side].cases[name])
    assert outcome.verdict is Verdict.PASS, outcome
