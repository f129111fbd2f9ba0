"""Tests of the admin client's engine, without sockets and with a manual clock."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto import text
from gearman_proto.address import parse_host_list
from gearman_proto.engines.admin import AdminEngine, Question
from gearman_proto.errors import (
    ConnectionError,
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

from .admin_harness import Peer, World
from .harness import raw, wakes

STATUS = b"f\t1\t2\t3\n.\n"
F = text.FunctionStatus("f", 1, 2, 3)


@pytest.fixture
def world() -> World:
    return World()


def asked(world: World, timeout: float | None = None) -> tuple[Question[Any], Peer]:
    """Ask for the status, and let the server receive the command."""
    question = world.ask(timeout=timeout)
    server = world.serve()
    assert server.one() == b"status"
    return question, server


def version(world: World, timeout: float | None = None) -> Question[Any]:
    """Ask for the version."""
    return world.ask(text.version(), timeout)


def fails(question: Question[Any], error: type[Exception], match: str | None = None) -> None:
    with pytest.raises(error, match=match):
        question.value  # noqa: B018 - reading it is what raises


def check_answered(world: World, question: Question[Any]) -> None:
    """Check that `question`, for the version, is asked next and receives its own answer."""
    server = world.serve()
    assert server.one() == b"version"
    server.send(b"OK 1\n")
    assert question.value == "OK 1"


def check_usable(world: World, *waiting: Question[Any], on: Peer | None = None) -> None:
    """Check that the waiting questions and a new one are answered, `on` this connection if any."""
    for question in waiting:
        check_answered(world, question)
    new = version(world)
    check_answered(world, new)
    world.release(new)
    assert on in (None, world.peer())
    world.check_rest()


@pytest.mark.parametrize("hosts", [[], ["a", "b"]])
def test_hosts_other_than_one_raise(hosts: list[Any]) -> None:
    with pytest.raises(ValueError, match=f"one server, not {len(hosts)}"):
        AdminEngine(parse_host_list(hosts))


# A question and its answer.


def test_first_question_opens_the_connection(world: World) -> None:
    assert (world.act(), world.engine.server.connected) == ([], False)
    world.check_rest()
    question = world.ask()
    (peer,) = world.peers
    assert (str(peer.link.address), peer.timeout) == ("s:1", 10)
    assert repr(peer.link) == "<AdminLink to s:1, connecting>"
    assert repr(question) == "<Question 'status'>"
    odd = world.ask(text.create_function(b"\xff'"))
    assert repr(odd) == '<Question "create function \ufffd\'">'
    world.release(odd)
    assert peer.take() == []
    assert not world.engine.server.connected
    peer.up()
    assert world.engine.server.connected
    assert list(world.engine.links_to_write()) == [peer.link]
    assert peer.take() == [TextLine(b"status")]
    assert peer.take() == []
    assert list(world.engine.links_to_write()) == []
    for byte in STATUS[:-1]:
        peer.send(bytes([byte]))
        assert not question.done
    peer.send(STATUS[-1:])
    assert (question.done, question.timed_out, question.value) == (True, False, (F,))
    check_usable(world, on=peer)


@pytest.mark.parametrize(
    ("ask", "reply", "code", "reason"),
    [
        (World.ask, b"ERR function not found\r\n", "ERR", "function not found"),
        (World.ping, raw(Error(b"server_error", b"no \xff")), "server_error", "no \udcff"),
    ],
)
def test_refusal_keeps_the_connection(
    world: World, ask: Any, reply: bytes, code: str, reason: str
) -> None:
    question = ask(world)
    server = world.serve()
    server.take()
    server.send(reply)
    fails(question, ServerError)
    assert isinstance(question.error, ServerError)
    assert (question.error.code, question.error.text) == (code, reason)
    check_usable(world, on=server)


def test_questions_are_sent_one_at_a_time(world: World) -> None:
    """A ping measures the time since its sending, and not the wait for its turn."""
    (first, server), second, third = asked(world), world.ask(text.getpid()), world.ping()
    assert repr(third) == "<Question ECHO_REQ>"
    world.sleep(3)
    server.send(STATUS)
    assert [each.done for each in (first, second, third)] == [True, False, False]
    assert server.one() == b"getpid"
    server.send(b"ERR NO\r\n")
    fails(second, ServerError, "^NO$")
    assert not third.done
    (echo,) = server.take()
    assert isinstance(echo, EchoReq)
    world.sleep(0.25)
    server.send(raw(EchoRes(echo.data)))
    assert (first.value, third.value) == ((F,), 0.25)
    check_usable(world, on=server)


# Invalid answers.


@pytest.mark.parametrize(
    ("ask", "data"),
    [
        pytest.param(World.ask, raw(Noop()), id="packet for text"),
        pytest.param(World.ask, raw(Error(b"E", b"text")), id="ERROR for text"),
        pytest.param(World.ask, raw(WorkComplete(b"H:1", b"")), id="result for text"),
        pytest.param(World.ask, b"garbage\n.\n", id="no row"),
        pytest.param(World.ask, b"\0\0\0\0\0\0\0\0\0\0\0\0", id="no magic"),
        pytest.param(World.ask, b"x" * 2_000_000, id="endless line"),
        pytest.param(World.ping, b"OK\n", id="text for ECHO_RES"),
        pytest.param(World.ping, raw(EchoRes(b"other")), id="other echo"),
        pytest.param(World.ping, raw(JobCreated(b"H:1")), id="other answer for ECHO_RES"),
    ],
)
def test_invalid_answer_closes_the_connection(world: World, ask: Any, data: bytes) -> None:
    question, other = ask(world), version(world)
    server = world.serve()
    server.take()
    server.send(data)
    fails(question, RemoteProtocolError)
    assert server.closed
    # The other question was not sent on that connection, so it does not fail.
    assert not other.done
    check_usable(world, other)


def test_oversized_reply_raises() -> None:
    world = World(max_reply_size=1000)
    question, server = asked(world)
    server.send(b"f\t1\t2\t3\n" * 20)
    assert not question.done
    server.send(b"f\t1\t2\t3\n" * 2)
    fails(question, RemoteProtocolError, "too long")
    assert server.closed
    check_usable(world)


def test_bytes_before_the_first_question_fail_it(world: World) -> None:
    """The engine does not retry, also if the connection ends before the question is sent."""
    question = world.ask(timeout=10)
    server = world.serve()
    server.send(raw(Error(b"busy", b"come back later")))
    fails(question, RemoteProtocolError, "without a request")
    assert server.closed
    lost = world.ask()
    world.serve().lose()
    fails(lost, ServerUnavailable, "s:1 did not answer")
    assert len(world.peers) == 2
    check_usable(world)


@pytest.mark.parametrize("rest", [b"g\t1\t2\t3\n.\n", b"OK 7\n", b"O", b"ERR", b"\0", b"\0RES\0"])
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_after_an_answer_do_not_affect_the_next_question(
    world: World, rest: bytes, at_once: bool
) -> None:
    """For example, a dot line inside a name ends a list too early."""
    question, server = asked(world)
    waiting = [version(world, timeout=5)] if at_once else []
    server.send(STATUS + rest) if at_once else server.send(STATUS, rest)
    assert question.value == (F,)
    assert server.closed
    assert not any(each.done for each in waiting)
    check_usable(world, *waiting)


# The connection ends.


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "s:1 did not answer: the server closed the connection(: the stream ended in .*)?"),
        (ConnectionResetError("reset"), "s:1 did not answer: reset"),
    ],
)
def test_lost_connection_fails_the_question_in_flight(
    world: World, error: Exception | None, message: str
) -> None:
    (question, server), other = asked(world), version(world)
    server.send(b"f\t1\t2\t3\n")
    server.lose(error)
    fails(question, ServerUnavailable, f"^{message}$")
    # After an error the link is already closed.
    assert server.closed == (error is None)
    assert not other.done
    check_usable(world, other)


def test_server_that_closes_after_each_answer_loses_no_question(world: World) -> None:
    """The waiting questions do not fail: each is sent on a new connection."""
    questions = [version(world, timeout=10) for _ in range(3)]
    for question in questions:
        check_answered(world, question)
        world.peer().lose()
    assert len(world.peers) == 3
    assert world.engine._link is None
    check_usable(world)


# No connection can be made.


def test_connection_that_does_not_open_in_time_fails_all_questions() -> None:
    world = World(connect_timeout=2.5)
    questions = [world.ask(timeout=60), world.ask()]
    (peer,) = world.peers
    assert peer.timeout == 2.5
    world.sleep(2.4)
    assert not peer.closed
    world.sleep(0.1)
    assert peer.closed
    for question in questions:
        fails(question, ServerUnavailable, r"s:1 \(no connection within 2\.5 seconds\)$")
        assert not question.timed_out
    peer.up()
    assert not world.engine.server.connected
    refused, given_up = world.ask(), world.ask()
    world.release(given_up)
    world.peer().refuse()
    fails(refused, ServerUnavailable, r"^no server could be reached: s:1 \(refused\)$")
    assert not given_up.done
    check_usable(world)


# Deadlines.


@pytest.mark.parametrize(("ask", "name"), [(World.ask, "'status'"), (World.ping, "ECHO_REQ")])
def test_deadline_closes_the_connection(world: World, ask: Any, name: str) -> None:
    question = ask(world, timeout=5)
    other = version(world, timeout=6)
    server = world.serve()
    server.take()
    assert world.engine.next_deadline() == world.now + 5
    world.sleep(4.999)
    assert not question.done
    world.now = 105.0
    world.sleep(0)
    assert question.timed_out
    fails(question, InvalidAdminClientState, rf"^s:1 did not answer {name} in time$")
    # A late reply could be mistaken for the answer to the next question.
    assert server.closed
    assert not other.done
    check_usable(world, other)
    assert len(world.peers) == 2


@pytest.mark.parametrize("timeout", [0, 5])
def test_deadline_before_the_connection_opens_ends_the_question_only(
    world: World, timeout: float
) -> None:
    """The connection attempt continues for other questions."""
    question, patient = world.ask(timeout=timeout), version(world, timeout=20)
    world.sleep(timeout)
    assert question.timed_out
    fails(question, ServerUnavailable, r"s:1 \(there was no connection in time\)$")
    assert not patient.done
    check_usable(world, patient)
    assert len(world.peers) == 1


# Released questions.


@pytest.mark.parametrize("how", ["release", "deadline"])
def test_end_of_a_question_in_the_queue_keeps_the_connection(world: World, how: str) -> None:
    """The end does not affect the question in flight."""
    (first, server), second, third = asked(world), world.ask(text.getpid(), 5), version(world)
    if how == "release":
        world.release(second)
        assert world.engine.next_deadline() is None
    else:
        world.sleep(5)
        fails(second, InvalidAdminClientState, "did not answer 'getpid' in time")
    assert not any([first.done, third.done, server.closed])
    server.send(STATUS)
    assert first.value == (F,)
    check_usable(world, third, on=server)


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize("is_waiting", [False, True])
def test_question_after_a_released_one_gets_a_new_connection(
    world: World, is_sent: bool, is_waiting: bool
) -> None:
    """A late reply on the old connection could be mistaken for the answer to the new question."""
    first = world.ask(timeout=5)
    old = world.serve()
    if is_sent:
        assert old.one() == b"status"
    waiting = [version(world)] if is_waiting else []
    world.release(first)
    assert old.closed == is_waiting
    second = version(world)
    assert old.closed
    old.send(STATUS)
    check_usable(world, *waiting, second)
    assert not first.done


# The end.


@pytest.mark.parametrize("stage", ["nothing", "connecting", "asked", "given up"])
@pytest.mark.parametrize("how", ["close", "abandon"])
def test_close_and_abandon_end_all_questions(world: World, stage: str, how: str) -> None:
    if stage != "nothing":
        world.ask(timeout=5)
        world.ping(timeout=7)
    if stage in ("asked", "given up"):
        world.serve().take()
    if stage == "given up":  # The first question is still in flight.
        world.release(*world.questions)
        world.questions.clear()
    questions = world.questions
    error: Exception = InvalidAdminClientState("this admin client has been shut down")
    if how == "close":
        world.call(world.engine.close, world.now)
    else:
        error = ConnectionError("interrupted")
        world.abandoned = True
        assert set(world.engine.abandon(error)) == set(questions)
        assert not any(map(wakes, questions))
    for question in questions:
        fails(question, type(error), str(error))
    assert world.engine.closed == (how == "close")
    assert world.engine.next_action() is None
    assert world.engine.next_deadline() is None
    assert not list(world.engine.links_to_write())
    if how == "close":
        assert all(peer.closed for peer in world.peers)
        assert world.engine._link is None
        for ask in (world.ask, world.ping):
            with pytest.raises(InvalidAdminClientState, match="has been shut down"):
                ask()
        world.call(world.engine.close, world.now)
        world.check_rest()
