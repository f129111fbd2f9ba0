"""How cases are judged, and what becomes of servers and programs that end."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_sync.testing.conformance.case import (
    INFO,
    MUST,
    Failed,
    Level,
    Suite,
    Unsupported,
    Verdict,
)
from gearman_sync.testing.conformance.exchange import Exchange
from gearman_sync.testing.conformance.program import Program, filled, launcher, wait_for
from gearman_sync.testing.conformance.programkit import ClientKit
from gearman_sync.testing.conformance.running import Gone, Judge, Outcome, Selection, is_there
from gearman_sync.testing.conformance.subjects import ProgramSubject, ServerSubject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_sync.testing.conformance.case import Case

#: A server that says its version, and ends when somebody says so.
MORTAL: Final = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    sock, _ = listener.accept()
    data = sock.recv(1000)
    if b"die" in data:
        raise SystemExit
    if b"version" in data:
        sock.sendall(b"OK 1\\n")
    else:
        sock.close()
"""
#: A client that submits nothing, prints what it was told, and how it was called.
ECHO: Final = "import sys; print(sys.argv[1:]); sys.stderr.write('why'); sys.exit(3)"


class Kit:
    """One that has nothing."""

    errors = b"the end of it"

    def __init__(self) -> None:
        self.exchange = Exchange()


@contextlib.contextmanager
def make_kit(_: Case) -> Iterator[Any]:
    yield Kit()


def case_of(check: Callable[[Any], str | None], level: Level = MUST, **options: Any) -> Case:
    """Return a case that calls `check`."""

    def function(it: Any) -> str | None:
        """Something is so."""
        return check(it)

    suite = Suite("server")
    suite.case("a/b/1", level, "nowhere", **options)(function)
    return suite.cases["a/b/1"]


def told(value: str | None) -> Callable[[Any], str | None]:
    return lambda _: value


def raises(error: Exception) -> Callable[[Any], str | None]:
    def check(_: Any) -> str | None:
        raise error

    return check


KNOWN: Final = {"other": ("perl",)}


@pytest.mark.parametrize(
    ("check", "level", "profile", "verdict", "got"),
    [
        (told(None), MUST, "document", Verdict.PASS, ""),
        (told("other"), MUST, "document", Verdict.ALLOWED, "other"),
        (told("other"), INFO, "document", Verdict.INFO, "other"),
        (told("other"), INFO, "perl", Verdict.PASS, "other"),
        (told(None), MUST, "perl", Verdict.FAIL, "what the document demands"),
        (told("strange"), INFO, "document", Verdict.ERROR, "does not say what 'strange' is"),
        (raises(Failed("a", "b")), MUST, "document", Verdict.FAIL, "b"),
        (raises(Failed("a", "b")), INFO, "document", Verdict.INFO, "something else: b"),
        (raises(Failed("a", "b")), INFO, "perl", Verdict.FAIL, "b"),
        (raises(Unsupported("it is not there")), MUST, "document", Verdict.UNSUPPORTED, "it is"),
        (raises(ZeroDivisionError("oh")), MUST, "document", Verdict.ERROR, "ZeroDivisionError: oh"),
    ],
)
def test_verdicts(
    check: Callable[[Any], str | None], level: Level, profile: str, verdict: Verdict, got: str
) -> None:
    case = case_of(check, level, known=KNOWN)
    outcome = Judge(make_kit, profile=profile).judge(case)
    assert outcome.verdict is verdict
    assert got in outcome.got
    assert outcome.errors == "the end of it"


def test_what_is_not_run() -> None:
    check = raises(AssertionError("it is run"))
    lacking = Judge(make_kit).judge(case_of(check, requires=("sense",)))
    assert (lacking.verdict, lacking.got) == (Verdict.UNSUPPORTED, "it lacks sense")
    slow = Judge(make_kit).judge(case_of(check, slow=True))
    assert (slow.verdict, slow.got) == (Verdict.SKIPPED, "it takes long")
    skipped = Judge(make_kit, selection=Selection(skip=["a/b"])).judge(case_of(check))
    assert skipped.verdict is Verdict.SKIPPED


def test_a_kit_that_can_not_be_made() -> None:
    @contextlib.contextmanager
    def no_kit(_: Case) -> Iterator[Any]:
        raise OSError("no sockets left")
        yield

    (outcome,) = Judge(no_kit).run([case_of(told(None))])
    assert outcome.verdict is Verdict.ERROR
    assert "no sockets left" in outcome.got


def test_selection() -> None:
    case = case_of(told(None))
    for words in (["a"], ["a/"], ["a/b"], ["a/b/1"]):
        assert Selection(only=words).of([case]) == [case]
    for words in (["a/b/11"], ["a/b/"], ["b"]):
        if words != ["a/b/"]:
            with pytest.raises(ValueError, match="there is no case"):
                Selection(only=words).of([case])


def test_cases_have_names_of_their_own() -> None:
    suite = Suite("server")

    def check(it: Any) -> None:
        """Something is so."""

    suite.case("a/b/1", MUST, "nowhere")(check)
    with pytest.raises(ValueError, match="there are two cases a/b/1"):
        suite.case("a/b/1", MUST, "nowhere")(check)
    with pytest.raises(ValueError, match="or it has no docstring"):
        suite.case("a/b/2", MUST, "nowhere")(told(None))


# Servers that end.


def test_a_server_that_dies_is_started_again() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    with ServerSubject(None, words, (), 20) as subject:
        assert subject.has == {"text", "restart"}
        outcome = Outcome(case_of(told(None)), Verdict.FAIL, "life", "death")
        subject.look_after(outcome)
        assert outcome.got == "death"
        with subject.kit(outcome.case) as kit:
            line = kit.client()
            line.send_raw(b"die")
            line.ends()
        while is_there(subject.address):
            pass
        subject.look_after(outcome)
        assert outcome.got == "death; and the server has died"
        assert is_there(subject.address)
    assert not is_there(subject.address)


@pytest.mark.slow
def test_a_server_that_dies_and_was_not_started_here() -> None:
    words = [sys.executable, "-c", MORTAL, "{port}"]
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(ServerSubject(None, words, (), 20))
        subject = stack.enter_context(ServerSubject(started.address, [], (), 20))
        assert subject.has == {"text"}
        with subject.kit(case_of(told(None))) as kit:
            with pytest.raises(Unsupported):
                kit.restart()
            kit.client().send_raw(b"die")
        while is_there(subject.address):
            pass
        with pytest.raises(Gone, match="has died in a/b/1"):
            subject.look_after(Outcome(case_of(told(None)), Verdict.FAIL))
        with (
            pytest.raises(Failed, match="expected a connection"),
            subject.kit(case_of(told(None))) as kit,
        ):
            kit.client()


def test_what_is_no_server() -> None:
    """Each case would wait for its answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        subject = ServerSubject(silent.getsockname(), [], (), 0.05)
        with pytest.raises(Gone, match="is no server"), subject:
            pass


# Programs.


def test_words() -> None:
    values = {"address": "h:1", "payload": "p"}
    assert filled(["a", "-s{address}", "{payload}", "{other}"], values, ["p"]) == [
        "a", "-sh:1", "p", "{other}",
    ]  # fmt: skip
    assert filled(["a", "{payloads}", "b"], values, ["p", "q"]) == ["a", "p", "q", "b"]


def test_a_program() -> None:
    program = Program([sys.executable, "-c", ECHO, "word"])
    try:
        assert wait_for(program, 20) == 3
        assert program.output == b"['word']\n"
        assert program.errors == b"why"
    finally:
        program.end()


def test_a_program_that_does_not_end() -> None:
    program = Program([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(99)"])
    try:
        with pytest.raises(Failed, match=r"the end of the program, and got nothing in 0\.1"):
            wait_for(program, 0.1)
        program.signal(signal.SIGKILL)
        assert wait_for(program, 20) == -signal.SIGKILL
    finally:
        program.end()


def test_a_client_that_does_not_connect() -> None:
    subject = ProgramSubject("client", [sys.executable, "-c", ECHO, "{payloads}"], (), 20)
    assert subject.has == {"several"}
    with subject as entered, entered.kit(case_of(told(None))) as kit:
        assert isinstance(kit, ClientKit)
        assert kit.errors == b""
        with pytest.raises(Failed, match="and got the end of the program, with status 3"):
            kit.submitted(b"one", b"two")
        assert kit.program.output == b"['one', 'two']\n"
        assert kit.errors == b"why"


def test_a_program_that_is_not_there() -> None:
    with ClientKit(launcher(["/no/such/program"]), "f", 1) as kit, pytest.raises(OSError):
        kit.start()
