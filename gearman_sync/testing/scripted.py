"""A scripted job server for tests, with one thread and another for each connection.

A test can define the server's reactions in two ways. One is a list of expectations, which the end
of the ``with`` block checks::

    with ScriptedServer() as server:
        submit = server.expect(SubmitJob, function=b"f")
        submit.answer(JobCreated(b"H:1"), WorkComplete(b"H:1", b"x"))
        client = GearmanClient([server.address])
        ...

The other is a script, a function that is called with the `Peer` of each connection and describes
the exchange as a program. When the script returns, the server closes the connection::

    def script(peer):
        for number in range(3):
            peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:%d" % number))
        peer.reset()

    with ScriptedServer(script) as server:
        ...

Theory of operation
    One lock guards the expectations. An event on a connection is compared with the first remaining
    expectation that is for this connection or for any. If the event does not match, the last
    matching ``whenever`` applies. So the order of expectations matters within each connection and,
    if they name no connection, across connections. An event that matches nothing is a failure. It
    ends all connections, so that the test does not wait for events that will never arrive. The
    actions of expectations run without the lock, because they can wait.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.checks import check_callable, check_count, check_type
from gearman_proto.errors import RemoteProtocolError
from gearman_proto.testing.matching import Wanted, matcher, shortened
from gearman_proto.wire.packets import (
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Event,
    OptionReq,
    OptionRes,
)

from .conversation import Disconnected, Peer
from .sockets import check_buffer, check_timeout, listening_socket

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


#: An answer: an event, or a function that takes the received event and returns one or several.
Answer: TypeAlias = "Event | Callable[[Any], Event | Iterable[Event]]"


class Expectation:
    """An expected event, and the server's reaction to it.

    `ScriptedServer.expect` and `ScriptedServer.whenever` create expectations. Each method adds an
    action to the reaction and returns the expectation, so that calls can be chained. The actions
    run in the order of the calls. Without any, the server sends nothing.

    Attributes:
        wanted: The expected event, as text.
        connection: The number of the event's connection, from 0, or None for any connection.
        left: The number of times that the event is still expected.
    """

    def __init__(self, what: Wanted, fields: dict[str, object], connection: int | None) -> None:
        self._matches, wanted = matcher(what, fields)
        self.wanted: str = wanted
        if connection is not None:
            check_count("connection", connection, 0)
        self.connection: int | None = connection
        self.left: int = 1
        self._actions: list[Callable[[Peer, Any], object]] = []

    def matches(self, event: Event) -> bool:
        """Return True if `event` is the expected one."""
        return self._matches(event)

    def act(self, peer: Peer, event: Event) -> None:
        """Run the actions for the received `event`."""
        for action in self._actions:
            action(peer, event)

    def times(self, count: int) -> Self:
        """Expect the event `count` times, each time with the same reaction.

        Raises:
            TypeError, ValueError: `count` is not an integer, or is negative.
        """
        self.left = check_count("count", count, 0)
        return self

    def answer(self, *answers: Answer) -> Self:
        """Send answers.

        Args:
            answers: Events, or functions that take the received event and return one or several.

        Raises:
            TypeError: An answer is neither.
        """
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send(*_made(answers, event)))

    def answer_anyway(self, *answers: Answer) -> Self:
        """Send answers as `answer` does, but allow those that a server must not send now."""
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send_anyway(*_made(answers, event)))

    def send_raw(self, data: bytes | Callable[[Any], bytes]) -> Self:
        """Send any bytes, or the bytes that a function of the received event returns.

        Raises:
            TypeError: `data` is neither.
        """
        check_type("data", data, (bytes, Callable), "bytes, or a function of an event")
        return self.then(lambda peer, event: peer.send_raw(data(event) if callable(data) else data))

    def silence(self) -> Self:
        """Send nothing. The call documents that the silence is intended."""
        return self

    def close(self) -> Self:
        """Close the connection."""
        return self.then(lambda peer, _event: peer.close())

    def reset(self) -> Self:
        """Close the connection with a RST, as if the process had crashed."""
        return self.then(lambda peer, _event: peer.reset())

    def then(self, action: Callable[[Peer, Any], object]) -> Self:
        """Call `action` with the `Peer` and the received event, in the server's thread.

        The function can wait, for example for a `threading.Event` of the test. It delays later
        events of this connection.

        Raises:
            TypeError: `action` can't be called.
        """
        self._actions.append(check_callable("action", action, "of a Peer and an event"))
        return self


def _check_answers(answers: tuple[Any, ...]) -> None:
    for answer in answers:
        check_type("an answer", answer, (Event, Callable), "an event, or a function of one")


def _made(answers: tuple[Answer, ...], event: Event) -> list[Event]:
    made: list[Event] = []
    for answer in answers:
        result = answer if isinstance(answer, Event) else answer(event)
        made += [result] if isinstance(result, Event) else result
    return made


class ScriptedServer:
    """A job server that a test scripts.

    The server listens from `start` to `stop`, or inside a ``with`` block, which calls `check` at
    its end. Without a script, the server grants OPTION_REQ and answers ECHO_REQ, unless the test
    changes that with `expect` or `whenever`.

    Args:
        script: Called with the `Peer` of each connection, in a separate thread. The connection is
            closed when the script returns. `stop` raises the script's exception, unless the peer
            has disconnected. If `script` is None, the server follows `expect` and `whenever`.
        host: The address to listen on. The system chooses a free port.
        timeout: Seconds that `check` waits for expected events, and `stop` for scripts.
        receive_buffer: Size of the kernel's receive buffers in bytes; 0 leaves it to the system.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        OSError: The server can't listen on this address.

    Attributes:
        address: The host and port of the server.
        peers: The `Peer` of each connection, oldest first. To send an unsolicited packet, use one
            of them: ``server.peers[0].send(Noop())``.
    """

    def __init__(
        self,
        script: Callable[[Peer], object] | None = None,
        *,
        host: str = "127.0.0.1",
        timeout: float = 5.0,
        receive_buffer: int = 0,
    ) -> None:
        self.peers: list[Peer] = []
        self._script = None if script is None else check_callable("script", script, "of a Peer")
        self._timeout = check_timeout(timeout)
        check_buffer("receive_buffer", receive_buffer)
        self._expected: list[Expectation] = []
        self._rules: list[Expectation] = []
        self._acting = 0
        #: The received events and the failures, as text.
        self._received: list[str] = []
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._failed = False
        self._listener = listening_socket(host)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((host, 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        if script is None:
            self.whenever(OptionReq).answer(lambda event: OptionRes(event.option))
            self.whenever(EchoReq).answer(lambda event: EchoRes(event.data))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                self.check()
        except BaseException:
            self.stop(raising=False)
            raise
        self.stop(raising=error is None)
        if error is not None:
            # The test's exception might be a consequence of these.
            for note in (self._report(), *[f"a script has raised {e!r}" for e in self._errors]):
                if note:
                    error.add_note(note)

    @property
    def events(self) -> list[Event]:
        """The events that were received over all connections, except OPTION_REQ."""
        return [e for peer in self.peers for e in peer.events if not isinstance(e, OptionReq)]

    # Expectations.

    def expect(
        self, what: Wanted, *, connection: int | None = None, **fields: object
    ) -> Expectation:
        """Expect an event, after all events that were expected before.

        Args:
            what: A class of events, an equal event, or a function that returns true for the event.
                `gearman_proto.events.ConnectionClosed` is the end of a connection. A connection can
                also end without being expected to.
            connection: The number of the event's connection, from 0, in the order of connecting.
                None means any connection.
            fields: Values of some fields of the event, if `what` is a class.

        Returns:
            The expectation. Its methods define the server's reaction.

        Raises:
            TypeError: `what` is not a pattern for events, the events have no such field, or the
                server has a script.
            RuntimeError: The server was stopped.
        """
        return self._add(self._expected, Expectation(what, fields, connection))

    def whenever(
        self, what: Wanted, *, connection: int | None = None, **fields: object
    ) -> Expectation:
        """Define the reaction to events that can arrive at any time and any number of times.

        Arguments, result and exceptions are those of `expect`. If several reactions match, the last
        one applies.
        """
        return self._add(self._rules, Expectation(what, fields, connection))

    def _add(self, where: list[Expectation], expectation: Expectation) -> Expectation:
        if self._script is not None:
            raise TypeError("a server with a script expects nothing else")
        if self._stopped:
            raise RuntimeError("this server was stopped: nothing comes any more")
        with self._changed:
            where.append(expectation)
        return expectation

    def check(self) -> None:
        """Wait until all expected events have been received and answered.

        Later events are not checked.

        Raises:
            AssertionError: An unexpected event was received, or an expected one was not received
                in time. The message lists the received and the missing events.
            Exception: Any exception that a script or a function of an expectation has raised.
            RuntimeError: A script, or a function of an expectation, has called this method.
        """
        self._check_outside("check")
        with self._changed:
            self._changed.wait_for(
                lambda: self._failed or self._errors or not (self._missing() or self._acting),
                self._timeout,
            )
        if self._errors:
            raise self._errors[0]
        if report := self._report():
            raise AssertionError(report)

    # Starting and stopping.

    def start(self) -> None:
        """Start listening.

        Raises:
            RuntimeError: The server was started or stopped before.
        """
        if self._threads or self._stopped:
            raise RuntimeError("this server was started or stopped before: make a new one")
        self._listener.listen(16)
        self._run(self._accept)

    def stop(self, *, raising: bool = True) -> None:
        """Close all connections, and end all threads.

        Args:
            raising: True to raise the exceptions of scripts.

        Raises:
            AssertionError: A script does not end although its connection is closed.
            Exception: Any exception that a script has raised.
            RuntimeError: A script, or a function of an expectation, has called this method.
        """
        self._check_outside("stop")
        self._stopped = True
        # Closing the listening socket does not interrupt a blocked accept. Connecting does.
        with contextlib.suppress(OSError), socket.create_connection(self.address, self._timeout):
            pass
        for thread in self._threads[:1]:
            thread.join(self._timeout)
        self._shut()
        for thread in self._threads:
            thread.join(self._timeout)
        self._listener.close()
        if not raising:
            return
        if any(thread.is_alive() for thread in self._threads):
            raise AssertionError("a server's script does not end")
        if self._errors:
            raise self._errors[0]

    def _check_outside(self, method: str) -> None:
        if threading.current_thread() in self._threads:
            raise RuntimeError(
                f"{method}() was called in a thread of this server, by a script or an expectation, "
                f"for whose end it waits: call it in the test"
            )

    def _shut(self) -> None:
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)

    # Methods that run in the server's threads.

    def _run(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="scripted server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stopped:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock, len(self.peers))
            self.peers.append(peer)
            self._run(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        with peer:
            try:
                (self._script or self._follow)(peer)
            except OSError:
                pass  # The peer has disconnected, or the server was stopped.
            except Exception as error:  # noqa: BLE001 - raised by check and stop
                with self._changed:
                    self._errors.append(error)
                    self._changed.notify_all()

    def _follow(self, peer: Peer) -> None:
        """Serve a connection according to the expectations."""
        while peer.sock.fileno() >= 0 and not self._failed:
            try:
                event = peer.take()
            except RemoteProtocolError as error:
                self._fail(f"connection {peer.number}: {error}")
                return
            except (Disconnected, OSError):
                event = ConnectionClosed()
            expectation = self._expectation_for(peer, event)
            if expectation is None:
                return
            try:
                expectation.act(peer, event)
            finally:
                with self._changed:
                    self._acting -= 1
                    self._changed.notify_all()
            if isinstance(event, ConnectionClosed):
                return

    def _expectation_for(self, peer: Peer, event: Event) -> Expectation | None:
        """Return the expectation that matches `event`, or None to end the connection."""
        with self._changed:
            here = (None, peer.number)
            left = (e for e in self._expected if e.left and e.connection in here)
            rules = (e for e in reversed(self._rules) if e.connection in here and e.matches(event))
            first = next(left, None)
            if first is not None and first.matches(event):
                first.left -= 1
                met: Expectation | None = first
            else:
                met = next(rules, None)
            if met is not None:
                self._acting += 1
            came = f"connection {peer.number}: {shortened(event)}"
            if met is None and not isinstance(event, ConnectionClosed) and not self._stopped:
                wanted = "nothing" if first is None else first.wanted
                self._fail(f"{came} - where {wanted} was expected")
            else:
                self._received.append(came)
            return met

    def _fail(self, complaint: str) -> None:
        with self._changed:
            self._received.append(complaint)
            self._failed = True
            self._changed.notify_all()
        self._shut()

    def _missing(self) -> list[str]:
        """Return descriptions of the events that are still expected."""
        return [expected.wanted for expected in self._expected for _ in range(expected.left)]

    def _report(self) -> str:
        """Return the received and the missing events, or "" if all expectations were met."""
        with self._changed:
            left = self._missing()
            if not left and not self._failed:
                return ""
            lines = ["the exchange is not what was expected. What came:"]
            lines += [f"  {line}" for line in self._received or ["nothing"]]
            if left:
                lines += ["What was expected and did not come:", *[f"  {line}" for line in left]]
            return "\n".join(lines)
