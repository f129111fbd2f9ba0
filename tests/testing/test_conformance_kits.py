"""The judge, and the doubles of connections that the cases use."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.testing.conformance.capabilities import CAPABILITIES, probe
from gearman_proto.testing.conformance.case import (
    INFO,
    MUST,
    Closed,
    Failed,
    Level,
    Suite,
    Unsupported,
    Verdict,
)
from gearman_proto.testing.conformance.judge import Judge, Outcome, Selection
from gearman_proto.testing.conformance.program_kit import ClientKit, WorkerKit, check_result
from gearman_proto.testing.conformance.server_kit import ServerKit
from gearman_proto.testing.conformance.session import Session
from gearman_proto.testing.conformance.talk import Talk
from gearman_proto.testing.matching import matcher
from gearman_proto.testing.memory import World
from gearman_proto.testing.packing import pack_event
from gearman_proto.testing.peer import Disconnected, Peer
from gearman_proto.testing.units import Cutter
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    CanDo,
    CantDo,
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    GrabJob,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    PreSleep,
    ResetAbilities,
    Role,
    SetClientId,
    SubmitJob,
    WorkComplete,
    WorkException,
    WorkFail,
)
from tests.conformance.lying import Lie, drop, twice
from tests.conformance.memory import LyingWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.testing.conformance.case import Case

#: The time limit of a case, in seconds of virtual time.
PATIENCE: Final = 20.0
ALL: Final = frozenset(CAPABILITIES)


def no_kit(_: Case) -> Any:
    return contextlib.nullcontext()


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
        (told(None), MUST, "perl", Verdict.FAIL, "the documented behaviour"),
        (told("strange"), INFO, "document", Verdict.ERROR, "does not list 'strange' as known"),
        (raises(Failed("a", "b")), MUST, "document", Verdict.FAIL, "b"),
        (raises(Failed("a", "b")), INFO, "document", Verdict.INFO, "something else: b"),
        (raises(Failed("a", "b")), INFO, "perl", Verdict.FAIL, "b"),
        (raises(Unsupported("it is not there")), MUST, "document", Verdict.UNSUPPORTED, "it is"),
        (raises(ZeroDivisionError("oh")), MUST, "document", Verdict.ERROR, "ZeroDivisionError: oh"),
    ],
)
def test_judge_of_a_case_returns_its_verdict(
    check: Callable[[Any], str | None], level: Level, profile: str, verdict: Verdict, got: str
) -> None:
    case = case_of(check, level, known=KNOWN)
    outcome = Judge(no_kit, profile=profile).judge(case)
    assert outcome.verdict is verdict
    assert got in outcome.got


def test_message_of_an_outcome_is_the_mismatch_or_the_error() -> None:
    judge = Judge(no_kit)
    assert judge.judge(case_of(raises(Failed("a", "b")))).message == "expected a, and got b"
    assert "oh" in judge.judge(case_of(raises(ZeroDivisionError("oh")))).message


def test_outcome_that_fails_also_has_both_reasons() -> None:
    outcome = Outcome(case_of(told(None)), Verdict.INFO, got="silence")
    outcome.fails_also("a running server", "a dead one")
    assert outcome.verdict is Verdict.FAIL
    assert outcome.message == "expected a running server, and got a dead one"
    outcome.fails_also("a running server", "a silent one")
    assert outcome.message.endswith("got a dead one; then a silent one")


def test_judge_that_skips_returns_the_reason() -> None:
    check = raises(AssertionError("it is run"))
    lacking = Judge(no_kit).judge(case_of(check, requires=("sense",)))
    assert (lacking.verdict, lacking.got) == (Verdict.UNSUPPORTED, "requires sense")
    slow = Judge(no_kit).judge(case_of(check, slow=True))
    assert (slow.verdict, slow.got) == (Verdict.SKIPPED, "slow")
    skipped = Judge(no_kit, selection=Selection(skip=["a/b"])).judge(case_of(check))
    assert skipped.verdict is Verdict.SKIPPED


def test_judge_without_a_kit_returns_an_error() -> None:
    @contextlib.contextmanager
    def broken(_: Case) -> Iterator[Any]:
        raise OSError("no sockets left")
        yield

    (outcome,) = Judge(broken).run([case_of(told(None))])
    assert outcome.verdict is Verdict.ERROR
    assert outcome.is_bad
    assert "no sockets left" in outcome.got


def test_selection_by_prefix_returns_matching_cases() -> None:
    case = case_of(told(None))
    for words in (["a"], ["a/"], ["a/b"], ["a/b/1"]):
        assert Selection(only=words).of([case]) == [case]
    for words in (["a/b/11"], ["b"]):
        with pytest.raises(ValueError, match="there is no case"):
            Selection(only=words).of([case])


def test_suite_with_a_second_case_of_the_same_name_raises() -> None:
    suite = Suite("server")

    def check(it: Any) -> None:
        """Something is so."""

    suite.case("a/b/1", MUST, "nowhere")(check)
    with pytest.raises(ValueError, match="there are two cases a/b/1"):
        suite.case("a/b/1", MUST, "nowhere")(check)
    with pytest.raises(ValueError, match="the check of case a/b/2 has no docstring"):
        suite.case("a/b/2", MUST, "nowhere")(told(None))


class Script:
    """A stream that returns the items of a script, one per call."""

    def __init__(self, *items: bytes | Event | Exception, magic: bytes = MAGIC_RESPONSE) -> None:
        self.items = list(items)
        self.magic = magic
        self.sent = b""

    def recv(self, _: int) -> bytes:
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        return pack_event(item, self.magic) if isinstance(item, Event) else item

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, seconds: float | None) -> None:
        pass

    def gettimeout(self) -> float:
        return PATIENCE

    def close(self) -> None:
        pass


def talk(*items: bytes | Event | Exception) -> Talk:
    stream: Any = Script(*items)
    return Talk(stream, Role.CLIENT | Role.WORKER)


GARBAGE: Final = b"\0XYZ" + bytes(8)


@pytest.mark.parametrize(
    ("item", "next_fails", "got", "ends", "is_silent"),
    [
        (b"", Closed, "the end of the connection", True, False),
        (ConnectionResetError("reset"), Closed, "reset", True, False),
        (TimeoutError(), Failed, "nothing in 20 s", False, True),
        (GARBAGE, Failed, "a protocol error", False, False),
    ],
)
def test_talk_without_an_event_fails_ends_or_is_silent(
    item: bytes | Exception, next_fails: type[Failed], got: str, ends: bool, is_silent: bool
) -> None:
    with pytest.raises(Failed, match=got) as caught:
        talk(item).next()
    assert type(caught.value) is next_fails
    is_wrong = pytest.raises(Failed, match="expected the end of the connection")
    with contextlib.nullcontext() if ends else is_wrong:
        talk(item).ends()
    assert talk(item).is_silent(1.0) == is_silent


def test_peer_receives_only_the_expected_event() -> None:
    stream: Any = Script(EchoRes(b"1"), EchoRes(b"2"), b"")
    peer = Peer(stream, Role.CLIENT)
    peer.send(EchoReq(b"1"), EchoReq(b"2"))
    assert peer.expect(EchoRes, data=b"1") == EchoRes(b"1")
    with pytest.raises(AssertionError, match="expected EchoRes"):
        peer.expect(EchoRes, data=b"3")
    with pytest.raises(Disconnected):
        peer.receive()


def test_peer_of_a_server_sends_packets_anyway() -> None:
    stream: Any = Script()
    Peer(stream, Role.SERVER).send_anyway(NoJob())
    assert stream.sent == pack_event(NoJob(), MAGIC_RESPONSE)
    with pytest.raises(TypeError, match="can't be sent"):
        Peer(stream, Role.SERVER).send_anyway(Event())


def test_matcher_of_an_event_or_a_function_matches_those_events() -> None:
    matches, name = matcher(EchoReq(b"1"), {})
    assert matches(EchoReq(b"1"))
    assert not matches(EchoReq(b"2"))
    assert name == "EchoReq(data=b'1')"
    matches, name = matcher(lambda event: event.data == b"2", {})
    assert matches(EchoReq(b"2"))
    assert name == "what <lambda> is true for"


def test_matcher_with_wrong_fields_raises() -> None:
    matches_nothing: Any = 5
    with pytest.raises(TypeError, match="EchoReq has no handle"):
        matcher(EchoReq, {"handle": b""})
    with pytest.raises(TypeError, match="fields are for a class"):
        matcher(EchoReq(b""), {"data": b""})
    with pytest.raises(TypeError, match="says nothing about events"):
        matcher(matches_nothing, {})


def test_cutter_at_the_end_returns_an_incomplete_packet() -> None:
    cutter = Cutter()
    assert cutter.take(b"line\n\0RES") == [b"line\n"]
    assert cutter.take(b"") == [b"\0RES"]
    assert cutter.take(b"\0XYZ and more") == [b"\0XYZ and more"]
    assert cutter.take(b"") == []


def make_engine(wall_clock: Callable[[], float]) -> ServerEngine:
    return ServerEngine(rng=random.Random(1), wall_clock=wall_clock)


def server_kit(*lies: Lie, has: frozenset[str] = ALL) -> ServerKit:
    return ServerKit(LyingWorld(make_engine, lies), "f", 2.0, has)


def test_probe_of_server_engine_finds_all_capabilities() -> None:
    found = probe(lambda has: server_kit(has=has), lambda _: None)
    assert found == ALL - {"restart"}


def test_probe_of_a_silent_server_finds_nothing() -> None:
    lies = [drop(f"<{name}") for name in ("JOB_CREATED", "ECHO_RES", "OPTION_RES", "STATUS_RES")]
    lies += [drop("<STATUS_RES_UNIQUE"), drop("<TEXT")]
    died: list[str] = []
    assert probe(lambda has: server_kit(*lies, has=has), died.append) == frozenset()
    assert sorted(died) == sorted(ALL - {"restart"})


def test_probe_of_a_server_that_assigns_no_jobs_lacks_the_grabs() -> None:
    lies = [Lie("<JOB_ASSIGN", lambda _: pack_event(NoJob(), MAGIC_RESPONSE))]
    found = probe(lambda has: server_kit(*lies, has=has), lambda _: None)
    assert ALL - found == {"grab", "restart"}


@pytest.mark.parametrize("name", [">GRAB_JOB_ALL", ">GRAB_JOB", ">WORK_COMPLETE", "<NO_JOB"])
def test_probe_of_a_server_that_answers_and_then_fails_finds_all_capabilities(name: str) -> None:
    found = probe(lambda has: server_kit(twice(name), has=has), lambda _: None)
    assert found == ALL - {"restart"}


def test_line_without_grab_uniq_grabs_jobs_without_uniques() -> None:
    with server_kit(has=frozenset({"echo"})) as it:
        client, worker = it.client(), it.worker()
        handles = [client.submit(b"1", unique=b"u"), client.submit(b"2", unique=b"v")]
        assert worker.grab().unique == b""
        assert worker.soon().data == b"2"
        worker.complete_all(handles)
        with pytest.raises(Failed, match="and got only NO_JOB"):
            worker.soon()
        assert not worker.runs()
        worker.send_anyway(Noop())
        assert worker.behaviour() == "refused with ERROR"


def test_line_without_a_reply_to_its_echo_fails() -> None:
    with server_kit(drop("<ECHO_RES")) as it, pytest.raises(Failed, match="an ECHO_REQ or GET"):
        it.client().heard()


@pytest.mark.parametrize(
    ("error", "got"),
    [(TimeoutError(), "4 bytes unread in 5 s"), (ConnectionResetError("reset"), "reset")],
)
def test_line_to_a_server_that_does_not_read_fails(
    error: Exception, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> None:
        raise error

    with server_kit() as kit:
        line = kit.client()
        line.sock.settimeout(5)
        monkeypatch.setattr(line.sock, "sendall", fail)
        with pytest.raises(Failed, match=f"expected a server that reads, and got {got}"):
            line.send_raw(b"data")


def test_kit_that_cannot_connect_fails() -> None:
    class Nowhere(World):
        def connect(self, _side: str = "", /) -> Any:
            raise ConnectionRefusedError("refused")

    with (
        ServerKit(Nowhere(make_engine), "f", PATIENCE, ALL) as it,
        pytest.raises(Failed, match="expected a connection, and got refused"),
    ):
        it.client()
    assert it.errors == b""


def test_kit_of_an_external_server_cannot_restart_it() -> None:
    with server_kit(has=frozenset()) as it, pytest.raises(Unsupported, match="not started"):
        it.restart()


def test_memory_stream_whose_engine_has_closed_ends() -> None:
    world = World(make_engine)
    stream = world.connect()
    stream.sendall(b"version\r\n")
    world.close()
    assert stream.recv(3) == b"OK "
    stream.sendall(b"dropped")
    with Peer(stream, Role.CLIENT) as peer:
        assert peer.rest().endswith(b"\n")


def test_memory_stream_of_a_client_that_left_unread_data_is_reset() -> None:
    world = World(make_engine)
    one, other = (Peer(world.connect(), Role.CLIENT) for _ in "12")
    one.send(SubmitJob(b"f", b"u", b""))
    other.send(SubmitJob(b"f", b"u", b""))
    assert isinstance(other.receive(), JobCreated)
    one.close()
    one.close()
    other.close()
    assert not world.engine.links


def test_memory_stream_of_a_server_that_does_not_read_blocks() -> None:
    stream = World(make_engine).connect()
    stream.sendall(pack_event(EchoReq(b""), MAGIC_REQUEST) * 1000)
    assert stream.send(b"buffered") == 8
    with pytest.raises(BlockingIOError):
        stream.send(b"refused")


def test_line_after_the_end_of_its_connection_reacts_with_closed() -> None:
    with server_kit() as it:
        line = it.client()
        line.half_close()
        assert line.reaction() == "closed"
        line = it.client()
        line.sock.settimeout(1.0)
        assert line.reaction() == "silence"
        worker = it.worker()
        assert not worker.runs()
        line.submit()
        assert worker.runs()


def session(*items: bytes | Event | Exception) -> tuple[Session, Script]:
    """Return the server's end of a connection whose other end follows a script."""
    stream: Any = Script(*items, magic=MAGIC_REQUEST)
    return Session(stream, World(make_engine)), stream


def test_session_tracks_the_functions_of_a_worker() -> None:
    it, _ = session(CanDo(b"f"), CanDo(b"g"), CantDo(b"g"), PreSleep(), ResetAbilities(), b"")
    for names in ([b"f"], [b"f", b"g"], [b"f"], [b"f"], []):
        it.receive()
        assert list(it.functions) == names
    assert it.asleep


def test_session_wakes_a_sleeping_worker_until_it_grabs() -> None:
    it, stream = session(PreSleep(), PreSleep(), GrabJob())
    it.receive()
    assert it.grabs() == GrabJob()
    assert stream.sent == pack_event(Noop(), MAGIC_RESPONSE) * 2


def test_session_without_replies_ignores_echoes_and_options() -> None:
    it, stream = session(EchoReq(b"1"), OptionReq(b"o"), PreSleep())
    it.answers_echoes = it.grants_options = False
    assert it.receive() == PreSleep()
    assert stream.sent == b""


def test_session_skips_the_failure_after_an_exception() -> None:
    it, _ = session(WorkException(b"h", b""), WorkFail(b"h"), PreSleep())
    assert it.receive() == WorkException(b"h", b"")
    assert it.receive() == PreSleep()
    assert it.fails_twice


@pytest.mark.parametrize(
    ("items", "call", "kind", "got"),
    [
        ([GetStatus(b"h")], Session.grabs, Failed, "GetStatus"),
        ([GetStatus(b"h")], Session.submitted, Failed, "GetStatus"),
        ([GetStatus(b"h")], lambda it: it.end_of(b"h"), Failed, "GetStatus"),
        ([PreSleep()] * 20, Session.wakes, Failed, "PRE_SLEEP 20 times"),
        ([b""], lambda it: it.grabs_within(1.0), Closed, "a waiting worker"),
        ([GARBAGE], lambda it: it.grabs_within(1.0), Failed, "a waiting worker"),
        ([PreSleep(), TimeoutError()], Session.rest_of, Failed, "none in 20 s"),
        ([PreSleep(), GARBAGE], Session.rest_of, Failed, "expected the end"),
    ],
)
def test_session_with_other_data_fails(
    items: list[Any], call: Callable[[Session], object], kind: type[Failed], got: str
) -> None:
    with pytest.raises(Failed, match=got) as caught:
        call(session(*items)[0])
    assert type(caught.value) is kind


def test_session_of_a_closed_connection_fails_to_send() -> None:
    it, stream = session()

    def refuse(_: bytes) -> None:
        raise BrokenPipeError("broken")

    stream.sendall = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(Closed, match="an open connection"):
        it.send_raw(b"data")


def test_session_skips_the_client_id_before_a_submit() -> None:
    it, _ = session(SetClientId(b"me"), SubmitJob(b"f", b"", b""))
    assert it.submitted().function == b"f"


def test_session_counts_grabs_until_the_time_limit() -> None:
    it, stream = session(GrabJob(), PreSleep(), GrabJob(), TimeoutError())
    assert it.grabs_within(1.0) == 2
    assert stream.sent == pack_event(NoJob(), MAGIC_RESPONSE) * 2
    it, stream = session(GrabJob(), TimeoutError())
    assert it.grabs_within(1.0, answer=False) == 1
    assert stream.sent == b""
    assert session()[0].grabs_within(0.0) == 0


def test_session_answers_grabs_until_the_connection_ends() -> None:
    it, stream = session(GrabJob(), GrabJob(), b"")
    it.rest_of()
    assert stream.sent == pack_event(NoJob(), MAGIC_RESPONSE) * 2


def test_session_after_its_time_limit_fails() -> None:
    it, _ = session(PreSleep(), PreSleep())
    place: Any = it._place

    def take(_: Event) -> None:
        place.now += PATIENCE

    with pytest.raises(Failed, match="none in 20 s"):
        it.rest_of(take)


class Scripts:
    """A place whose program opens one scripted stream after another."""

    def __init__(self, *scripts: Script, status: int | None = None, output: bytes = b"") -> None:
        self.now = 0.0
        self.scripts = list(scripts)
        self.last_status = status
        self.output = output
        self.errors = b""

    @property
    def status(self) -> int | None:
        return None if self.scripts else self.last_status

    def start(self, *_: object) -> Scripts:
        return self

    def accept(self, seconds: float, _: str) -> Script:
        self.now += seconds
        if not self.scripts:
            raise TimeoutError
        return self.scripts.pop(0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def close(self) -> None:
        pass

    end = close


def script(*items: bytes | Event | Exception) -> Script:
    return Script(*items, magic=MAGIC_REQUEST)


def worker_kit(*scripts: Script, timeout: float = 1.0, status: int | None = None) -> WorkerKit:
    place: Any = Scripts(script(CanDo(b"f"), PreSleep()), *scripts, status=status)
    return WorkerKit(place, "f", timeout)


def test_worker_kit_skips_connections_of_other_functions() -> None:
    others = [script(b""), script(CanDo(b"g"), PreSleep()), script(CanDo(b"f"), PreSleep())]
    with worker_kit(*others) as it:
        it.ready()
        assert list(it.again().functions) == [b"f"]


def test_worker_kit_whose_worker_ends_is_unsupported() -> None:
    with worker_kit(status=1) as it:
        it.ready()
        with pytest.raises(Unsupported, match="exits when its connection is lost"):
            it.again(may_end=True)
    with worker_kit(status=1) as it:
        it.ready()
        with pytest.raises(Failed, match="the program's exit with status 1"):
            it.again()


def test_worker_kit_with_unknown_results_checks_only_the_ends() -> None:
    ends = [WorkComplete(b"H:conformance:1", b"?"), WorkFail(b"H:conformance:2")]
    ends += [WorkFail(b"H:conformance:3"), WorkFail(b"H:conformance:4")]
    items = [item for end in ends for item in (GrabJob(), end)]
    place: Any = Scripts(script(CanDo(b"f"), PreSleep(), *items), status=None)
    with WorkerKit(place, "f", 1.0) as it:
        worker = it.ready()
        it.run_all(worker, [b"data"])
        with pytest.raises(Unsupported, match="neither its payload nor the reversed payload"):
            it.learned(worker)
        with pytest.raises(Failed, match="the result b'data', and got WorkFail"):
            check_result(worker.serve(), b"data")


@pytest.mark.parametrize(
    ("items", "got"), [([b""], "the end of the connection"), ([CanDo(b"g"), PreSleep()], "b'g'")]
)
def test_worker_kit_whose_worker_reconnects_late_fails(items: Any, got: str) -> None:
    with worker_kit(*[script(*items) for _ in range(300)]) as it:
        it.ready()
        with pytest.raises(Failed, match=got):
            it.again()


def client_kit(*scripts: Script, status: int, output: bytes = b"") -> ClientKit:
    place: Any = Scripts(*scripts, status=status, output=output)
    return ClientKit(place, "f", 1.0)


@pytest.mark.parametrize(("also", "output"), [(False, b"result\n"), (True, b"part\nresult\n")])
def test_client_kit_whose_client_resubmits_reports_it(also: bool, output: bytes) -> None:
    again = [script(b""), script(SubmitJob(b"f", b"", b""), b"")]
    with client_kit(*again, status=0, output=output) as it:
        it.start()
        assert it.gives_up(also=also) == "tries again"


def test_client_kit_whose_client_never_resubmits_fails() -> None:
    with client_kit(*[script(b"") for _ in range(300)], status=0) as it:
        it.start()
        with pytest.raises(Failed, match="the client's exit or another submit"):
            it.gives_up()


def test_memory_stream_that_is_closed_drops_late_data() -> None:
    world = World(make_engine)
    stream = world.connect()
    stream.sendall(pack_event(CanDo(b"f"), MAGIC_REQUEST) * 300)
    stream.sendall(pack_event(EchoReq(b"late"), MAGIC_REQUEST))
    stream.close()
    world.sleep(1.0)
    assert not world.engine.links
