"""A scripted server follows the test and reports what differs from it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkData,
)
from gearman_sync.testing import Disconnected, Peer, ScriptedClient, ScriptedServer
from tests.support import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.wire.packets import Event

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")

SUBMIT = SubmitJob(b"f", b"u", b"data")


def said(server: ScriptedServer) -> str:
    """Return the message of the server's check."""
    with pytest.raises(AssertionError) as caught:
        server.check()
    return str(caught.value)


def submit_to(
    server: ScriptedServer, data: bytes = b"", then: Callable[[], object] = lambda: None
) -> None:
    """Send a submit or other bytes to a server, and receive its close."""
    with server, ScriptedClient(server.address) as client:
        client.send_raw(data or client.connection.send(SUBMIT))
        assert client.rest() == b""
        then()


def test_reply_may_be_a_function_of_the_event() -> None:
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        server.expect(SubmitJob).times(2).answer(
            lambda event: JobCreated(b"H:" + event.unique),
            lambda event: [WorkData(b"H:" + event.unique, data) for data in (b"1", b"2")],
        )
        server.expect(SubmitJobBg).send_raw(lambda event: event.data)
        for unique in (b"a", b"b"):
            client.send(SubmitJob(b"f", unique, b""))
            assert client.expect(JobCreated).handle == b"H:" + unique
            client.expect(WorkData, data=b"1")
            client.expect(WorkData, data=b"2")
        client.send(SubmitJobBg(b"f", b"", b"raw"))
        assert client.sock.recv(3) == b"raw"


def test_silence_and_slow_functions_send_no_reply() -> None:
    gate = threading.Event()
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        server.expect(SUBMIT).silence()
        server.expect(SUBMIT).then(lambda peer, event: gate.wait(5)).answer(JobCreated(b"H:1"))
        client.send(SUBMIT, SUBMIT)
        client.sock.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.receive()
        gate.set()
        client.sock.settimeout(5)
        client.expect(JobCreated)


@pytest.mark.parametrize(
    ("method", "error"), [("close", Disconnected), ("reset", ConnectionResetError)]
)
def test_close_and_reset_end_the_connection(method: str, error: type[Exception]) -> None:
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        getattr(server.expect(GrabJob, connection=0), method)()
        client.send(GrabJob())
        with pytest.raises(error):
            client.receive()


def test_answer_anyway_sends_packets_out_of_order() -> None:
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        server.expect(SUBMIT).answer_anyway(Noop(), JobCreated(b"H:1"), JobCreated(b"H:2"))
        with pytest.raises(TypeError, match=r"ConnectionClosed\(\) can't be sent"):
            client.send_anyway(ConnectionClosed())
        client.send(SUBMIT)
        client.expect(Noop)
        client.expect(JobCreated, handle=b"H:1")
        with pytest.raises(Exception, match="JOB_CREATED answers nothing"):
            client.receive()


@pytest.mark.parametrize("connections", [(0, 1), (1, 0)])
def test_connections_match_in_any_order(connections: tuple[int, int]) -> None:
    """Match connections in any order, unless the test gives their numbers."""
    with ScriptedServer() as server:
        for number in range(2):
            server.expect(CanDo(b"f%d" % number), connection=number)
            server.expect(GrabJob, connection=number).answer(NoJob())
        server.expect(PreSleep, connection=0)
        with ScriptedClient(server.address) as first, ScriptedClient(server.address) as second:
            first.echo()
            second.echo()
            for number in connections:
                client = (first, second)[number]
                client.send(CanDo(b"f%d" % number), GrabJob())
                client.expect(NoJob)
            first.send(PreSleep())


def test_options_and_echoes_are_answered() -> None:
    """Answer options and echoes, unless the test overrides that."""
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        client.send(OptionReq(b"exceptions"), EchoReq(b"e"))
        client.expect(OptionRes, option=b"exceptions")
        client.expect(EchoRes, data=b"e")
        server.whenever(OptionReq).answer(Error(b"UNKNOWN_OPTION", b"no"))
        client.send(OptionReq(b"exceptions"))
        client.expect(Error)
        server.expect(OptionReq(b"exceptions")).answer(OptionRes(b"exceptions"))
        client.send(OptionReq(b"exceptions"))
        client.expect(OptionRes)
        assert server.events == [EchoReq(b"e")]


def test_check_waits_for_a_running_function() -> None:
    begun, gate = threading.Event(), threading.Event()
    done = []

    def act(peer: Peer, event: Event) -> None:
        begun.set()
        gate.wait(5)
        done.append(event)

    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        server.expect(SUBMIT).then(act)
        client.send(SUBMIT)
        wait_for(begun)
        threading.Timer(0.05, gate.set).start()
        server.check()
        assert done == [SUBMIT]


def test_peer_may_send_unsolicited_packets_and_lines() -> None:
    with ScriptedServer() as server, ScriptedClient(server.address) as client:
        client.echo()
        server.peers[0].send(Noop())
        client.expect(Noop)
        server.expect(GrabJob).answer_anyway(TextLine(b"hello", b"\n"))
        server.expect(TextLine)
        client.send_anyway(GrabJob(), TextLine(b"version"))
        assert client.sock.recv(10) == b"hello\n"


def test_close_of_a_connection_may_be_expected() -> None:
    with ScriptedServer() as server:
        server.expect(GrabJob).answer(NoJob())
        server.expect(ConnectionClosed)
        with ScriptedClient(server.address) as client:
            client.send(GrabJob())
            client.expect(NoJob)


def test_check_with_missing_events_raises() -> None:
    with ScriptedServer(timeout=1.0) as server, ScriptedClient(server.address) as client:
        server.expect(SubmitJob, function=b"f").answer(JobCreated(b"H:1"))
        server.expect(PreSleep).times(2)
        client.send(SUBMIT)
        client.expect(JobCreated)
        client.echo()
        assert said(server) == (
            "the exchange is not what was expected. What came:\n"
            f"  connection 0: {SUBMIT!r}\n"
            "  connection 0: EchoReq(data=b'ping')\n"
            "What was expected and did not come:\n"
            "  PreSleep\n"
            "  PreSleep"
        )
        client.send(PreSleep(), PreSleep())
        client.echo()


def test_check_with_another_event_raises() -> None:
    """Close all connections after a wrong packet, so that no client waits forever."""
    server = ScriptedServer()
    server.start()
    try:
        server.expect(SubmitJob, function=b"g")
        with ScriptedClient(server.address) as other, ScriptedClient(server.address) as client:
            client.echo()
            other.echo()
            client.send(SUBMIT)
            for each in (client, other):
                with pytest.raises(ConnectionError):
                    each.receive()
        report = said(server)
        assert f"{SUBMIT!r} - where SubmitJob(function=b'g') was expected" in report
        assert report.endswith("did not come:\n  SubmitJob(function=b'g')")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "where nothing was expected"),
        (b"\0BAD" + bytes(8), "connection 0: a packet begins with"),
    ],
)
def test_check_with_an_unexpected_event_or_garbage_raises(data: bytes, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        submit_to(ScriptedServer(), data)


def test_failing_test_reports_the_received_events() -> None:
    """Keep the test's own failure, which the wrong packets may have caused."""

    def broken(peer: Peer, event: Event) -> None:
        raise RuntimeError("broken")

    server = ScriptedServer()
    server.expect(SUBMIT).then(broken)
    server.expect(PreSleep)
    with pytest.raises(ZeroDivisionError) as caught:
        submit_to(server, then=lambda: 1 / 0)
    notes = "\n".join(caught.value.__notes__)
    assert "did not come:\n  PreSleep" in notes
    assert "a script has raised RuntimeError('broken')" in notes


def test_reply_function_that_raises_fails_the_test() -> None:
    def broken(event: Event) -> Event:
        raise RuntimeError("broken")

    server = ScriptedServer()
    server.expect(SUBMIT).answer(broken)
    with pytest.raises(RuntimeError, match="broken"):
        submit_to(server)


def test_script_runs_for_each_connection() -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob, data=b"data")
        peer.send(JobCreated(b"H:%d" % peer.number))
        peer.hold()

    with ScriptedServer(script) as server:
        for number in range(2):
            with ScriptedClient(server.address) as client:
                client.send(OptionReq(b"exceptions"), SUBMIT)
                client.expect(OptionRes)
                client.expect(JobCreated, handle=b"H:%d" % number)
        assert server.events == [SUBMIT, SUBMIT]
        with pytest.raises(TypeError, match="a server with a script expects nothing"):
            server.expect(SubmitJob)
        with pytest.raises(TypeError, match="a server with a script expects nothing"):
            server.whenever(EchoReq)


def test_script_that_fails_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="expected GrabJob, and not SubmitJob"):
        submit_to(ScriptedServer(lambda peer: peer.expect(GrabJob)))


def test_script_that_does_not_end_fails_the_test() -> None:
    begun, forever = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.close()
        begun.set()
        forever.wait()

    with pytest.raises(AssertionError, match="script does not end"):
        submit_to(ScriptedServer(script, timeout=0.05), then=begun.wait)
    forever.set()
