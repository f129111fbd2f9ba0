"""Plays the clients, workers and admins of a recording against a server.

Theory of operation
    The elements are played in their order, each connection with a socket of its own. What the
    server is to send is waited for, so that what comes behind it comes later here, too. Where
    nothing is sent, nothing shows when the server has taken what it got; so before another
    connection sends something, those that have sent are asked for an echo, which is the last that
    the server answers. These echoes are not part of the recording, and show whether the server has
    sent anything that is not. When a connection is closed, the server is asked for the list of its
    connections until there is one less.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.arguments import check_type
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.events import EchoReq, EchoRes
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE

from .recording import Cutter, Element, Recording, Replies, decode, is_whole_reply
from .sockets import check_timeout, host_and_port, linger_not
from .varying import Varying

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from gearman_proto.address import HostSpec

_QUESTION: Final = pack_event(EchoReq(b"settled?"), MAGIC_REQUEST)
_ANSWER: Final = pack_event(EchoRes(b"settled?"), MAGIC_RESPONSE)
# Seconds after which a server that does not say how many connections it has will not.
_COUNT: Final = 1.0
# Seconds in which a server that answers no echoes has taken what it got.
_WHILE: Final = 0.05


@dataclass(frozen=True)
class Difference:
    """Where an exchange was not as recorded.

    Attributes:
        at: The number of the element in the recording; one more than the last for what came in
            addition.
        conn: The name of the connection.
        expected: What was recorded, as text.
        got: What came, as text.
    """

    at: int
    conn: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"element {self.at}, {self.conn}: expected {self.expected}, and got {self.got}"


def replay(recording: Recording, address: HostSpec, *, timeout: float = 5.0) -> list[Difference]:
    """Play the clients, workers and admins of a recording against a server.

    Handles, file descriptors, the server's version and the order of lists are the server's own.
    Times of jobs for later are counted from now, if the recording has an `epoch_base`. The server
    is to be one of its own, with nothing in its queue.

    Args:
        recording: What is to happen.
        address: The address of the server, in any form that GearmanClient takes.
        timeout: Seconds that something is waited for.

    Returns:
        Where the server has not sent what is recorded. Of a connection on which something did not
        come in time, no more is expected.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.
        OSError: There is no connection to that address.
    """
    check_type("recording", recording, Recording, "a Recording")
    with _Replay(recording, host_and_port(address), check_timeout(timeout)) as play:
        play.run()
    return play.differences


class _Line:
    """One connection to the server."""

    def __init__(self, name: str, address: tuple[str, int], timeout: float) -> None:
        self.name = name
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: Packets and replies that have come.
        self.inbox: deque[bytes] = deque()
        self._cutter = Cutter()
        #: Cuts what was sent, to know where a packet ends.
        self.sent = Cutter()
        self._replies = Replies()
        #: Something was sent since the last echo.
        self.is_unsettled = False
        #: The server has closed it, or it was closed here.
        self.closed = False
        #: Something did not come, so that what comes means something else.
        self.lost = False

    def send(self, data: bytes) -> None:
        for unit in self.sent.cut(data):
            if unit[0]:
                self._replies.commands.append(unit)
        self.is_unsettled = True
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def next(self) -> bytes:
        """The next packet, or whole reply of text. Empty: the server has closed."""
        while not self.inbox and not self.closed:
            data = b""
            with contextlib.suppress(ConnectionError):
                data = self.sock.recv(1 << 18)
            self.closed = not data
            came = [self._replies.put(unit) for unit in self._cutter.take(data)]
            if self.closed:
                came.append(self._replies.end())
            self.inbox += filter(None, came)
        return self.inbox.popleft() if self.inbox else b""

    def settle(self) -> bool:
        """Wait until the server has taken what was sent. What it says meanwhile is kept.

        Returns whether it answers an echo, as far as one is needed.
        """
        if not self.is_unsettled or self.closed or self.lost or self.sent.rest:
            return True
        self.is_unsettled = False
        with contextlib.suppress(OSError):
            self.sock.sendall(_QUESTION)
        came = []
        answered = False
        with contextlib.suppress(TimeoutError):
            while (unit := self.next()) and unit != _ANSWER:
                came.append(unit)
            answered = True
        self.inbox.extendleft(reversed(came))
        return answered


class _Replay:
    def __init__(self, recording: Recording, address: tuple[str, int], timeout: float) -> None:
        self.differences: list[Difference] = []
        self._recording = recording
        self._address = address
        self._timeout = timeout
        self._varying = Varying(recording.epoch_base)
        self._lines: dict[str, _Line] = {}
        #: Whether the server answers echoes.
        self._echoes = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines.values():
            line.sock.close()

    def run(self) -> None:
        """Play it."""
        exchange = self._recording.exchange
        for at, element in enumerate(exchange):
            line = self._lines.get(element.conn)
            if line is None:
                line = _Line(element.conn, self._address, self._timeout)
                self._lines[element.conn] = line
            if element.pause:
                time.sleep(element.pause)
            if element.of_server:
                self._expect(at, line, element)
                continue
            self._settle([other for other in self._lines.values() if other is not line])
            if element.closes:
                self._close(line)
            else:
                self._send(line, element.data)
        self._settle(self._lines.values())
        for line in self._lines.values():
            while line.inbox and not line.lost:
                self._differ(len(exchange), line, "nothing more", decode(line.next()))

    def _settle(self, lines: Iterable[_Line]) -> None:
        """Wait until the server has taken what was sent over these connections."""
        if self._echoes:
            self._echoes = all(line.settle() for line in lines)
        else:
            time.sleep(_WHILE)

    def _send(self, line: _Line, data: bytes) -> None:
        cutter = Cutter()
        # The middle of a packet is sent as it is.
        units = [] if line.sent.rest else cutter.cut(data)
        rest = cutter.rest if units else data
        line.send(b"".join([self._varying.request(unit) for unit in units]) + rest)

    def _close(self, line: _Line) -> None:
        self._settle([line])
        before = self._count()
        line.sock.close()
        line.closed = True
        deadline = time.monotonic() + _COUNT
        while before and self._count() >= before and time.monotonic() < deadline:
            pass

    def _count(self) -> int:
        """How many connections the server has. 0: it does not say."""
        reply = b""
        with contextlib.suppress(OSError), socket.create_connection(self._address, _COUNT) as sock:
            sock.sendall(b"workers\r\n")
            while not is_whole_reply(b"workers", reply) and (data := sock.recv(1 << 16)):
                reply += data
            # It is to be gone at once.
            linger_not(sock)
        return reply.count(b"\n")

    def _expect(self, at: int, line: _Line, element: Element) -> None:
        if line.lost:
            return
        try:
            if element.closes:
                while unit := line.next():
                    self._differ(at, line, "the end of the connection", decode(unit))
                return
            for recorded in _answers(element.data):
                actual = line.next()
                expected = self._varying.reply(recorded, actual)
                if expected != actual:
                    came = decode(actual) if actual else "the end of the connection"
                    self._differ(at, line, decode(expected), came)
                    line.lost = line.lost or not actual
        except TimeoutError:
            what = "the end of the connection" if element.closes else element.decoded
            self._differ(at, line, what, f"nothing in {self._timeout:g} s")
            line.lost = True

    def _differ(self, at: int, line: _Line, expected: str, got: str) -> None:
        self.differences.append(Difference(at, line.name, expected, got))


def _answers(data: bytes) -> list[bytes]:
    """Packets, and replies of text that may have several lines."""
    cutter = Cutter()
    answers: list[bytes] = []
    for unit in cutter.cut(data):
        if answers and unit[0] and answers[-1][0] and data.endswith(b".\n"):
            answers[-1] += unit
        else:
            answers.append(unit)
    return [*answers, cutter.rest] if cutter.rest else answers
