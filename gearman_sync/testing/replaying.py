"""The replay of a recording's clients, workers and admins against a server.

Theory of operation
    The elements are played in order, with a socket for each connection. The replay waits for each
    recorded answer of the server, so that later elements follow it here as well. The replay can't
    see when the server has processed a packet that has no answer. So before another connection
    sends anything, the replay sends ECHO_REQ on each connection that has sent data since its last
    echo, and waits for the answer. These echoes are not part of the recording. They also reveal
    packets of the server that were not recorded. After closing a connection, the replay polls the
    server's list of connections until the list becomes shorter.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.checks import check_type
from gearman_proto.testing.packing import pack_event
from gearman_proto.testing.units import Cutter, decode
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE, EchoReq, EchoRes

from .recording import Element, Recording, Replies
from .sockets import check_timeout, host_and_port, linger_not
from .varying import Varying

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.address import HostSpec

_QUESTION: Final = pack_event(EchoReq(b"settled?"), MAGIC_REQUEST)
_ANSWER: Final = pack_event(EchoRes(b"settled?"), MAGIC_RESPONSE)
# Seconds to wait for a server to report the number of its connections.
_COUNT: Final = 1.0
# Seconds to wait for a server that answers no echoes to process the sent packets.
_PROCESSING_TIME: Final = 0.05
#: The text for the end of a connection.
END: Final = "the end of the connection"


@dataclass(frozen=True)
class Difference:
    """A difference between an exchange and its recording.

    Attributes:
        at: The index of the element in the recording. An additional event has the index after that
            of the last element.
        conn: The name of the connection.
        expected: The recorded event, as text.
        got: The received event, as text.
    """

    at: int
    conn: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"element {self.at}, {self.conn}: expected {self.expected}, and got {self.got}"


def replay(recording: Recording, address: HostSpec, *, timeout: float = 5.0) -> list[Difference]:
    """Play the clients, workers and admins of a recording against a server.

    Handles, file descriptors, the server's version and the order of lists can differ from the
    recording. If the recording has an `epoch_base`, the times of scheduled jobs are relative to
    now. Use a dedicated server with an empty queue.

    Args:
        recording: The recording to play.
        address: The address of the server, in any form that GearmanClient takes.
        timeout: Seconds to wait for each answer.

    Returns:
        The differences between the server's packets and the recording. After an answer that does
        not arrive in time, the rest of the connection is not compared.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        OSError: The replay can't connect to the address.
    """
    check_type("recording", recording, Recording, "a Recording")
    play = _Replay(recording, host_and_port(address), check_timeout(timeout))
    with contextlib.ExitStack() as sockets:
        play.run(sockets)
    return play.differences


class _Line:
    """One connection to the server."""

    def __init__(self, name: str, address: tuple[str, int], timeout: float) -> None:
        self.name = name
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: The received packets and replies.
        self.inbox: deque[bytes] = deque()
        self._cutter = Cutter()
        #: Splits the sent bytes into packets, to find their ends.
        self.sent = Cutter()
        self._replies = Replies()
        self._recorded_replies = Replies()
        #: True if data was sent since the last echo.
        self.needs_echo = False
        #: True once either side has closed the connection.
        self.closed = False
        #: True after an answer was missing, because later answers can't be assigned.
        self.lost = False

    def send(self, data: bytes) -> None:
        for unit in self.sent.cut(data):
            if unit[0]:
                self._replies.commands.append(unit)
                self._recorded_replies.commands.append(unit)
        self.needs_echo = True
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def next(self) -> bytes:
        """Return the next packet or complete text reply, or b"" at the end of the stream."""
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

    def recorded(self, element: Element) -> list[bytes]:
        """Return the packets and text replies that a server's element completes."""
        cutter = Cutter()
        units = [*cutter.cut(element.data), cutter.rest]
        replies = [self._recorded_replies.put(unit) for unit in units if unit]
        if element.closes:
            replies.append(self._recorded_replies.end())
        return [reply for reply in replies if reply]

    def synchronize(self) -> bool:
        """Wait until the server has processed the sent data. Keep its packets in the inbox.

        Return False if the server does not answer the echo.
        """
        if not self.needs_echo or self.closed or self.lost or self.sent.rest:
            return True
        self.needs_echo = False
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
        self._varying = Varying("handle", recording.epoch_base)
        self._lines: dict[str, _Line] = {}
        #: True while the server answers echoes.
        self._echoes = True

    def run(self, sockets: contextlib.ExitStack) -> None:
        """Play the recording. Leave the sockets to `sockets`."""
        exchange = self._recording.exchange
        for at, element in enumerate(exchange):
            line = self._lines.get(element.conn)
            if line is None:
                line = _Line(element.conn, self._address, self._timeout)
                self._lines[element.conn] = line
                sockets.enter_context(line.sock)
            if element.pause:
                time.sleep(element.pause)
            if element.of_server:
                self._expect(at, line, element)
                continue
            self._synchronize([other for other in self._lines.values() if other is not line])
            if element.closes:
                self._close(line)
            else:
                self._send(line, element.data)
        self._synchronize(self._lines.values())
        for line in self._lines.values():
            while line.inbox and not line.lost:
                self._differ(len(exchange), line, "nothing more", line.next())

    def _synchronize(self, lines: Iterable[_Line]) -> None:
        """Wait until the server has processed the data sent on these connections."""
        if self._echoes:
            self._echoes = all(line.synchronize() for line in lines)
        else:
            time.sleep(_PROCESSING_TIME)

    def _send(self, line: _Line, data: bytes) -> None:
        # Send the rest of a packet unchanged.
        line.send(data if line.sent.rest else self._varying.to_send(data))

    def _close(self, line: _Line) -> None:
        self._synchronize([line])
        before = self._count()
        line.sock.close()
        line.closed = True
        deadline = time.monotonic() + _COUNT
        while before and self._count() >= before and time.monotonic() < deadline:
            pass

    def _count(self) -> int:
        """Return the number of the server's connections, or 0 if the server does not answer."""
        with contextlib.suppress(OSError):
            line = _Line("", self._address, _COUNT)
            with line.sock:
                line.send(b"workers\r\n")
                reply = line.next()
                # Close the connection with a reset, so that the server stops counting it at once.
                linger_not(line.sock)
                return reply.count(b"\n")
        return 0

    def _expect(self, at: int, line: _Line, element: Element) -> None:
        if line.lost:
            return
        try:
            for recorded in line.recorded(element):
                actual = line.next()
                expected = self._varying.expected(recorded, actual)
                if expected != actual:
                    self._differ(at, line, decode(expected), actual)
                    line.lost = line.lost or not actual
            while element.closes and (unit := line.next()):
                self._differ(at, line, END, unit)
        except TimeoutError:
            what = END if element.closes else element.decoded
            got = f"nothing in {self._timeout:g} s"
            self.differences.append(Difference(at, line.name, what, got))
            line.lost = True

    def _differ(self, at: int, line: _Line, expected: str, unit: bytes) -> None:
        self.differences.append(Difference(at, line.name, expected, decode(unit) or END))
