"""Tests of the admin client's engine, without sockets and with a manual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto import text
from gearman_proto.address import parse_host_list
from gearman_proto.engines.admin import AdminEngine
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    JobCreated,
    Noop,
    TextLine,
    WorkComplete,
)
from tests.profiles import examples

from .admin_harness import Peer, World
from .harness import raw, wakes

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STATUS = b"f\t1\t2\t3\n.\n"
F = text.FunctionStatus("f", 1, 2, 3)


@pytest.fixture
def world() -> World:
    return World()


def check_usable(world: World) -> None:
    """Check that another question receives its own answer, on the current or a new connection."""
    question = world.ask(text.getpid())
    server = world.serve()
    assert server.one() == b"getpid"
    server.send(b"OK 4711\n")
    assert question.value == 4711
    assert world.peer() is server
    world.release(question)
    world.check_rest()


# Construction.


@pytest.mark.parametrize(
    ("hosts", "count"), [([], 0), (["a", "b"], 2), (["a", "a:1", ("b", 2)], 3)]
)
def test_hosts_other_than_one_raise(hosts: list[Any], count: int) -> None:
    with pytest.raises(ValueError, match=f"one server, not {count}"):
        AdminEngine(parse_host_list(hosts))


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_connect_timeout_that_cannot_be(timeout: float) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        World(connect_timeout=timeout)


def test_engine_connects_at_the_first_question(world: World) -> None:
    world.act()
    assert world.peers == []
    assert not world.engine.server.connected
    world.check_rest()


# A question and its answer.


def test_a_question(world: World) -> None:
    question = world.ask()
    (peer,) = world.peers
    assert str(peer.link.address) == "s:1"
    assert peer.timeout == 10
    assert repr(peer.link) == "<AdminLink to s:1, connecting>"
    assert repr(question) == "<Question 'status'>"
    assert peer.take() == []
    assert not world.engine.server.connected
    peer.up()
    assert world.engine.server.connected
    assert list(world.engine.links_to_write()) == [peer.link]
    assert peer.take() == [TextLine(b"status")]
    assert peer.take() == []
    assert list(world.engine.links_to_write()) == []
    peer.send(STATUS)
    assert question.done
    assert not question.timed_out
    assert question.value == (F,)
    world.release(question)
    check_usable(world)
    assert world.peers == [peer]


def test_answer_in_pieces(world: World) -> None:
    question = world.ask()
    server = world.serve()
    server.take()
    for byte in STATUS[:-1]:
        server.send(bytes([byte]))
        assert not question.done
    server.send(STATUS[-1:])
    assert question.value == (F,)
    check_usable(world)


def test_refusal_keeps_the_connection(world: World) -> None:
    question = world.ask(text.drop_function("f"))
    server = world.serve()
    server.take()
    server.send(b"ERR function not found\r\n")
    with pytest.raises(ServerError) as caught:
        question.value  # noqa: B018 - reading it is what raises
    assert (caught.value.code, caught.value.text) == ("ERR", "function not found")
    check_usable(world)
    assert world.peers == [server]


def test_questions_are_sent_one_at_a_time(world: World) -> None:
    first, second, third = world.ask(), world.ask(text.getpid()), world.ping()
    assert repr(third) == "<Question ECHO_REQ>"
    server = world.serve()
    assert server.one() == b"status"
    server.send(STATUS)
    assert (first.done, second.done, third.done) == (True, False, False)
    assert server.one() == b"getpid"
    server.send(b"ERR NO\r\n")
    assert (second.done, third.done) == (True, False)
    (echo,) = server.take()
    assert isinstance(echo, EchoReq)
    server.send(raw(EchoRes(echo.data)))
    assert third.done
    assert first.value == (F,)
    with pytest.raises(ServerError, match=r"^NO$"):
        second.value  # noqa: B018
    check_usable(world)
    assert world.peers == [server]


def test_ping_measures_the_time_since_its_sending(world: World) -> None:
    first = world.ping()
    world.sleep(3)
    server = world.serve()
    (echo,) = server.take()
    assert isinstance(echo, EchoReq)
    second = world.ping()
    world.now += 0.25
    server.send(raw(EchoRes(echo.data)))
    assert first.value == 0.25
    server.take()
    world.now += 0.5
    server.send(raw(EchoRes(echo.data)))
    assert second.value == 0.5
    check_usable(world)


def test_error_for_a_ping_raises(world: World) -> None:
    question = world.ping()
    server = world.serve()
    server.take()
    server.send(raw(Error(b"server_error", b"no \xff")))
    with pytest.raises(ServerError) as caught:
        question.value  # noqa: B018
    assert (caught.value.code, caught.value.text) == ("server_error", "no \udcff")
    check_usable(world)
    assert world.peers == [server]


# Invalid answers.


@pytest.mark.parametrize(
    ("ask", "data"),
    [
        pytest.param(World.ask, raw(Noop()), id="packet for text"),
        pytest.param(World.ask, raw(Error(b"E", b"text")), id="ERROR for text"),
        pytest.param(World.ask, raw(WorkComplete(b"H:1", b"")), id="result for text"),
        pytest.param(World.ask, b"garbage\n.\n", id="no row"),
        pytest.param(World.ask, b"\0\0\0\0\0\0\0\0\0\0\0\0", id="no magic"),
        pytest.param(World.ask, b"\0RES\0\0\0\xff\0\0\0\0", id="no such packet"),
        pytest.param(World.ask, b"x" * 2_000_000, id="endless line"),
        pytest.param(World.ping, b"OK\n", id="text for ECHO_RES"),
        pytest.param(World.ping, raw(EchoRes(b"other")), id="other echo"),
        pytest.param(World.ping, raw(Noop()), id="packet for ECHO_RES"),
        pytest.param(World.ping, raw(JobCreated(b"H:1")), id="other answer for ECHO_RES"),
    ],
)
def test_invalid_answer_closes_the_connection(world: World, ask: Any, data: bytes) -> None:
    question, other = ask(world), world.ask(text.version())
    server = world.serve()
    server.take()
    server.send(data)
    with pytest.raises(RemoteProtocolError):
        question.value  # noqa: B018
    assert server.closed
    # The other question was not sent on that connection, so it does not fail.
    assert not other.done
    again = world.serve()
    assert again is not server
    assert again.one() == b"version"
    again.send(b"OK 1\n")
    assert other.value == "OK 1"
    check_usable(world)


def test_text_for_echo_res_after_a_text_command_raises(world: World) -> None:
    """The earlier text command has switched the connection to text replies."""
    check_usable(world)
    question = world.ping()
    server = world.serve()
    server.take()
    server.send(b"OK\n")
    with pytest.raises(RemoteProtocolError, match="s:1 answered ECHO_REQ with TextLine"):
        question.value  # noqa: B018
    assert server.closed
    check_usable(world)


def test_oversized_reply_raises() -> None:
    world = World(max_reply_size=1000)
    question = world.ask()
    server = world.serve()
    server.take()
    server.send(b"f\t1\t2\t3\n" * 20)
    assert not question.done
    server.send(b"f\t1\t2\t3\n" * 2)
    with pytest.raises(RemoteProtocolError, match="too long"):
        question.value  # noqa: B018
    assert server.closed
    check_usable(world)


def test_bytes_on_an_idle_connection_close_it(world: World) -> None:
    """The server sends a line although no question is pending."""
    check_usable(world)
    server = world.serve()
    server.send(b"hello\n")
    assert server.closed
    assert world.engine._link is None
    check_usable(world)
    assert len(world.peers) == 2


def test_bytes_before_the_first_question_fail_it(world: World) -> None:
    question = world.ask(timeout=10)
    server = world.serve()
    server.send(raw(Error(b"busy", b"come back later")))
    with pytest.raises(RemoteProtocolError, match="which nobody asked for"):
        question.value  # noqa: B018
    assert server.closed
    # The engine does not retry.
    assert len(world.peers) == 1
    check_usable(world)


def test_bytes_after_an_answer_do_not_affect_the_next_question(world: World) -> None:
    """For example, a dot line inside a name ends a list too early."""
    first, second = world.ask(), world.ask(text.version(), timeout=5)
    server = world.serve()
    server.take()
    server.send(STATUS + b"g\t1\t2\t3\n.\n")
    assert first.value == (F,)
    assert server.closed
    assert not second.done
    again = world.serve()
    assert again.one() == b"version"
    again.send(b"OK 1\n")
    assert second.value == "OK 1"
    check_usable(world)


@pytest.mark.parametrize("rest", [b"O", b"ERR", b"\0", b"\0RES\0"])
def test_partial_reply_after_an_answer_closes_the_connection(world: World, rest: bytes) -> None:
    """The next answer does not include the partial reply."""
    question = world.ask()
    server = world.serve()
    server.take()
    server.send(STATUS + rest)
    assert question.value == (F,)
    assert server.closed
    check_usable(world)


@pytest.mark.parametrize("rest", [b"O", b"\0RES"])
def test_partial_reply_on_an_idle_connection_closes_it(world: World, rest: bytes) -> None:
    check_usable(world)
    server = world.serve()
    server.send(rest)
    assert server.closed
    check_usable(world)


def test_reply_before_its_question_is_ignored(world: World) -> None:
    """A reply received before its question was sent is not an answer."""
    first, second = world.ask(), world.ask()
    server = world.serve()
    server.take()
    server.send(STATUS + b"g\t7\t7\t7\n.\n")
    assert first.value == (F,)
    again = world.serve()
    again.take()
    again.send(STATUS)
    assert second.value == (F,)
    check_usable(world)


def test_events_of_a_dead_link_are_ignored(world: World) -> None:
    old = world.ask(timeout=1)
    server = world.serve()
    server.take()
    world.sleep(1)
    assert old.done
    new = world.ask()
    server.send(STATUS)
    server.send(b"\0garbage that no peer sends")
    server.up()
    server.refuse()
    server.lose()
    assert server.take() == []
    assert not new.done
    again = world.serve()
    again.take()
    again.send(STATUS)
    assert new.value == (F,)
    check_usable(world)


# The connection ends.


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "s:1 did not answer: the server closed the connection(: the stream ended in .*)?"),
        (ConnectionResetError("reset"), "s:1 did not answer: reset"),
    ],
)
@pytest.mark.parametrize("received", [b"", b"f\t1\t2", b"f\t1\t2\t3\n"])
def test_the_connection_ends(
    world: World, error: Exception | None, message: str, received: bytes
) -> None:
    question, other = world.ask(), world.ask(text.version())
    server = world.serve()
    server.take()
    if received:
        server.send(received)
    server.lose(error)
    with pytest.raises(ServerUnavailable, match=f"^{message}$"):
        question.value  # noqa: B018
    # After an error the link is already closed.
    assert server.closed == (error is None)
    assert not other.done
    again = world.serve()
    assert again.one() == b"version"
    again.send(b"OK 1\n")
    assert other.value == "OK 1"
    check_usable(world)


def test_idle_connection_is_lost(world: World) -> None:
    check_usable(world)
    server = world.serve()
    server.lose()
    assert not world.engine.server.connected
    assert len(world.peers) == 1
    check_usable(world)
    assert len(world.peers) == 2


def test_connection_lost_before_the_question_is_sent_fails_it(world: World) -> None:
    question = world.ask()
    world.serve().lose()
    with pytest.raises(ServerUnavailable, match="s:1 did not answer"):
        question.value  # noqa: B018
    # The engine does not retry.
    assert len(world.peers) == 1
    check_usable(world)


def test_server_that_closes_after_each_answer_loses_no_question(world: World) -> None:
    """The waiting questions do not fail: each is sent on a new connection."""
    questions = [world.ask(timeout=10) for _ in range(3)]
    for question in questions:
        server = world.serve()
        assert server.one() == b"status"
        server.send(STATUS)
        server.lose()
        assert question.value == (F,)
    assert len(world.peers) == 3
    assert world.engine._link is None
    check_usable(world)


def test_released_question_causes_no_new_connection(world: World) -> None:
    first, second = world.ask(), world.ask(text.version(), timeout=5)
    server = world.serve()
    server.take()
    server.send(STATUS)
    assert first.done
    # The engine would send this question next.
    world.release(second)
    server.lose()
    assert len(world.peers) == 1
    check_usable(world)


# No connection can be made.


def test_connecting_fails(world: World) -> None:
    questions = [world.ask(), world.ask(timeout=3), world.ping()]
    given_up = world.ask(timeout=7)
    world.release(given_up)
    world.peer().refuse()
    for question in questions:
        with pytest.raises(
            ServerUnavailable, match=r"^no server could be reached: s:1 \(refused\)$"
        ):
            question.value  # noqa: B018
    assert not given_up.done
    assert len(world.peers) == 1
    check_usable(world)


def test_connecting_takes_too_long() -> None:
    world = World(connect_timeout=2.5)
    questions = [world.ask(timeout=60), world.ask()]
    (peer,) = world.peers
    assert peer.timeout == 2.5
    world.sleep(2.4)
    assert not peer.closed
    world.sleep(0.1)
    assert peer.closed
    for question in questions:
        with pytest.raises(ServerUnavailable, match=r"s:1 \(no connection within 2\.5 seconds\)$"):
            question.value  # noqa: B018
        assert not question.timed_out
    peer.up()
    assert not world.engine.server.connected
    check_usable(world)


def test_connect_timeout_ends_when_the_connection_is_open(world: World) -> None:
    question = world.ask()
    server = world.serve()
    assert world.engine.next_deadline() is None
    world.sleep(1000)
    server.take()
    server.send(STATUS)
    assert question.value == (F,)
    check_usable(world)


# Deadlines.


def test_no_answer_in_time(world: World) -> None:
    question = world.ask(timeout=5)
    server = world.serve()
    server.take()
    assert world.engine.next_deadline() == world.now + 5
    world.sleep(4.999)
    assert not question.done
    world.now = 105.0
    world.sleep(0)
    assert question.timed_out
    with pytest.raises(InvalidAdminClientState, match=r"^s:1 did not answer 'status' in time$"):
        question.value  # noqa: B018
    # A late reply could be mistaken for the answer to the next question.
    assert server.closed
    assert world.engine._link is None
    check_usable(world)
    assert len(world.peers) == 2


def test_no_echo_in_time(world: World) -> None:
    question = world.ping(timeout=5)
    world.serve().take()
    world.sleep(5)
    with pytest.raises(InvalidAdminClientState, match="s:1 did not answer ECHO_REQ in time"):
        question.value  # noqa: B018
    check_usable(world)


def test_no_connection_in_time(world: World) -> None:
    """The timeout ends the question only. The connection attempt continues for other questions."""
    question, patient = world.ask(timeout=5), world.ask(text.version(), timeout=20)
    world.sleep(5)
    assert question.timed_out
    with pytest.raises(ServerUnavailable, match=r"s:1 \(there was no connection in time\)$"):
        question.value  # noqa: B018
    assert not patient.done
    server = world.serve()
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert patient.value == "OK 1"
    check_usable(world)
    assert len(world.peers) == 1


def test_deadline_of_a_queued_question_keeps_the_connection(world: World) -> None:
    """The timeout does not affect the question in flight."""
    first, second, third = world.ask(), world.ask(text.version(), 5), world.ask(text.getpid())
    server = world.serve()
    server.take()
    world.sleep(5)
    with pytest.raises(InvalidAdminClientState, match="did not answer 'version' in time"):
        second.value  # noqa: B018
    assert (first.done, third.done, server.closed) == (False, False, False)
    server.send(STATUS)
    assert first.value == (F,)
    assert server.one() == b"getpid"
    server.send(b"OK 7\n")
    assert third.value == 7
    check_usable(world)


def test_next_question_is_sent_after_a_deadline(world: World) -> None:
    first, second = world.ask(timeout=5), world.ask(text.version(), timeout=6)
    world.serve().take()
    world.sleep(5)
    assert (first.done, second.done) == (True, False)
    server = world.serve()
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert second.value == "OK 1"
    check_usable(world)


def test_simultaneous_deadlines(world: World) -> None:
    questions = [world.ask(timeout=5) for _ in range(3)]
    world.serve().take()
    world.sleep(5)
    for question in questions:
        with pytest.raises(InvalidAdminClientState):
            question.value  # noqa: B018
    assert len([peer for peer in world.peers if peer.link.alive]) <= 1
    check_usable(world)


def test_no_time_at_all(world: World) -> None:
    question = world.ask(timeout=0)
    world.sleep(0)
    with pytest.raises(ServerUnavailable, match="no connection in time"):
        question.value  # noqa: B018
    check_usable(world)


def test_all_the_time_there_is(world: World) -> None:
    for question in (world.ask(timeout=None), world.ask(timeout=float("inf"))):
        assert question.deadline is None
    world.serve().take()
    assert world.engine.next_deadline() is None
    world.sleep(1e9)
    assert not any(question.done for question in world.questions)
    world.serve().send(STATUS)
    assert world.questions[0].value == (F,)


@pytest.mark.parametrize("timeout", ["5", True, [], float("nan")])
def test_time_that_is_no_time(world: World, timeout: Any) -> None:
    for ask in (world.ask, world.ping):
        with pytest.raises((TypeError, ValueError), match="poll_timeout is"):
            ask(timeout=timeout)
    assert world.peers == []
    world.check_rest()


# Released questions.


def test_released_in_the_queue(world: World) -> None:
    first, second, third = world.ask(), world.ask(text.version(), 5), world.ask(text.getpid())
    server = world.serve()
    server.take()
    world.release(second)
    assert world.engine.next_deadline() is None
    server.send(STATUS)
    assert server.one() == b"getpid"
    server.send(b"OK 7\n")
    assert (first.value, third.value) == ((F,), 7)
    assert not second.done
    check_usable(world)


def test_released_while_connecting(world: World) -> None:
    """The engine still connects, but sends nothing."""
    question = world.ask(timeout=5)
    world.release(question)
    server = world.serve()
    assert server.take() == []
    assert world.engine.next_deadline() is None
    check_usable(world)
    assert world.peers == [server]


@pytest.mark.parametrize("is_sent", [False, True])
def test_question_after_a_released_one_gets_a_new_connection(world: World, is_sent: bool) -> None:
    """A late reply on the old connection could be mistaken for the answer to the new question."""
    first = world.ask(timeout=5)
    old = world.serve()
    if is_sent:
        assert old.one() == b"status"
    world.release(first)
    assert not old.closed
    second = world.ask(text.version())
    assert old.closed
    old.send(STATUS)
    server = world.serve()
    assert server is not old
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert second.value == "OK 1"
    assert not first.done
    assert world.engine.next_deadline() is None
    check_usable(world)


@pytest.mark.parametrize("reply", [STATUS, b"ERR UNKNOWN_COMMAND x\r\n"])
def test_reply_to_a_released_question_keeps_the_connection(world: World, reply: bytes) -> None:
    """The reply completes the released question, and the connection stays open."""
    first = world.ask(timeout=5)
    server = world.serve()
    server.take()
    world.release(first)
    server.send(reply)
    assert world.engine.next_deadline() is None
    check_usable(world)
    assert world.peers == [server]


def test_deadline_of_a_released_question_closes_the_connection(world: World) -> None:
    first = world.ask(timeout=5)
    server = world.serve()
    server.take()
    world.release(first)
    world.sleep(5)
    assert server.closed
    # No waiting question needs a new connection.
    assert len(world.peers) == 1
    check_usable(world)


def test_loss_after_a_released_question_causes_no_reconnect(world: World) -> None:
    first = world.ask(timeout=5)
    server = world.serve()
    server.take()
    world.release(first)
    server.lose()
    assert world.engine.next_deadline() is None
    assert len(world.peers) == 1
    check_usable(world)


@pytest.mark.parametrize("timeout", [None, 5])
def test_queued_question_does_not_wait_for_a_released_one(
    world: World, timeout: float | None
) -> None:
    first, second = world.ask(timeout=timeout), world.ask(text.version())
    old = world.serve()
    old.take()
    world.release(first)
    world.wake_up()
    assert old.closed
    server = world.serve()
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert second.value == "OK 1"
    check_usable(world)


def test_releasing_all_questions_keeps_the_connection(world: World) -> None:
    """The engine keeps the connection because no other question waits for it."""
    questions = [world.ask(timeout=5) for _ in range(3)]
    server = world.serve()
    server.take()
    world.release(*questions[::-1])
    world.wake_up()
    assert not server.closed
    server.send(STATUS)
    check_usable(world)
    assert world.peers == [server]


def test_released_after_its_answer(world: World) -> None:
    first = world.ask(timeout=5)
    server = world.serve()
    server.take()
    server.send(STATUS)
    second = world.ask(text.version(), timeout=5)
    world.release(first)
    world.release(first)
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert second.value == "OK 1"
    check_usable(world)


# The end.


@pytest.mark.parametrize("stage", ["nothing", "connecting", "open", "asked", "given up"])
@pytest.mark.parametrize("how", ["close", "abandon"])
def test_close_and_abandon_end_all_questions(world: World, stage: str, how: str) -> None:
    questions = []
    if stage == "given up":
        world.engine.release(world.ask(timeout=50), world.now)
        world.serve().take()
        # The question was sent before its release, so it is still in flight.
    elif stage != "nothing":
        questions = [world.ask(timeout=5), world.ask(), world.ping(timeout=7)]
    if stage in ("open", "asked"):
        server = world.serve()
        if stage == "asked":
            server.take()
    error: Exception = InvalidAdminClientState("this admin client has been shut down")
    if how == "close":
        world.call(world.engine.close, world.now)
    else:
        error = ConnectionError("interrupted")
        world.abandoned = True
        assert set(world.engine.abandon(error)) == set(questions)
        assert not any(map(wakes, questions))
    for question in questions:
        with pytest.raises(type(error), match=str(error)):
            question.value  # noqa: B018
    assert world.engine.closed == (how == "close")
    assert world.engine.next_action() is None
    assert world.engine.next_deadline() is None
    assert not list(world.engine.links_to_write())
    if how == "abandon":
        return
    assert all(peer.closed for peer in world.peers)
    assert world.engine._link is None
    assert not world.engine.server.connected
    world.check_rest()
    for ask in (world.ask, world.ping):
        with pytest.raises(InvalidAdminClientState, match="has been shut down"):
            ask()
    assert world.engine.next_action() is None
    world.call(world.engine.close, world.now)
    world.check_rest()


def test_close_with_a_released_question_in_flight(world: World) -> None:
    question = world.ask(timeout=5)
    server = world.serve()
    server.take()
    world.release(question)
    world.call(world.engine.close, world.now)
    assert server.closed
    assert world.engine.next_deadline() is None
    world.check_rest()


def test_bug_is_reported_as_an_internal_error(world: World) -> None:
    question = world.ask()
    world.abandoned = True
    world.engine.abandon(KeyError("oops"))
    with pytest.raises(GearmanError, match=r"internal error: KeyError\('oops'\)"):
        question.value  # noqa: B018


def test_question_repr_replaces_undecodable_bytes(world: World) -> None:
    question = world.ask(text.create_function(b"\xff'"))
    assert repr(question) == '<Question "create function \ufffd\'">'


# Arbitrary replies.

COMMANDS = [
    text.status(),
    text.workers(),
    text.show_unique_jobs(),
    text.version(),
    text.getpid(),
    text.drop_function("f"),
    None,
]
PIECES = st.sampled_from(
    [
        *(b"\n", b"\r\n", b".\n", STATUS, b"OK\r\n", b"OK 7\n", b"ERR NO\r\n", b"ERR", b"\0"),
        *(b"4 ::1 - : f\n", b"f\t1\t2\t3\n", b"\0RES", raw(Noop()), raw(Error(b"E", b"text"))),
        *(raw(EchoRes(b"gearman-sansio ping")), raw(EchoRes(b"")), raw(JobCreated(b"H:1"))),
    ]
)
REPLY = st.lists(PIECES | st.binary(max_size=20), max_size=8)


@examples(5)
@given(
    command=st.sampled_from(COMMANDS),
    before=REPLY,
    reply=REPLY,
    ends=st.sampled_from([None, "lose", "release"]),
    waiting=st.booleans(),
)
def test_arbitrary_replies_do_not_raise(
    command: Any, before: list[bytes], reply: list[bytes], ends: str | None, waiting: bool
) -> None:
    """Check that each question ends, the next receives its own answer, and no call raises."""
    world = World(max_reply_size=1000)
    question = world.ask(command, 5) if command else world.ping(5)
    others = [world.ask(text.getpid(), 9)] if waiting else []
    server = world.serve()
    for chunk in before[:1]:
        server.send(chunk)
    if server.link.alive:
        world.call(world.engine.data_to_send, server.link, world.now)
    for chunk in reply:
        server.send(chunk)
    if ends == "lose":
        server.lose()
    elif ends == "release":
        world.release(question)
        world.wake_up()
    world.sleep(5)
    assert question.done or ends == "release"
    for other in others:
        assert not other.done
        again = world.serve()
        assert again.one() == b"getpid"
        again.send(b"OK 4711\n")
        assert other.value == 4711
    expected = (InvalidAdminClientState, RemoteProtocolError, ServerError, ServerUnavailable)
    assert question.error is None or isinstance(question.error, expected)
    if question.done and question.error is None:
        assert question.value is not None
    check_usable(world)


# Hostile servers.


@pytest.mark.parametrize(
    "behave",
    [
        lambda peer: peer.refuse(),
        lambda peer: peer.up().lose(),
        lambda peer: peer.up().send(b"HTTP/1.1 400 Bad Request\r\n"),
        lambda peer: peer.up().send(raw(Noop())),
        lambda peer: (peer.up().take(), peer.lose()),
        lambda peer: (peer.up().take(), peer.send(STATUS), peer.lose()),
    ],
    ids=["refuses", "closes at accept", "garbage", "NOOP", "closes", "answers once and closes"],
)
def test_number_of_connections_is_limited_by_questions(behave: Callable[[Peer], object]) -> None:
    """Each question causes at most one connection, so the engine needs no backoff."""
    world = World()
    questions = [world.ask() for _ in range(10)]
    while any(not question.done for question in questions):
        behave(world.peer())
    assert len(world.peers) <= len(questions)
    world.sleep(3600.0)
    assert len(world.peers) <= len(questions)
    world.check_rest()
