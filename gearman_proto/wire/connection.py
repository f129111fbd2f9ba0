"""Tier 1: the bytes of one connection to events, and back.

A `Connection` knows the packets that its role can send and receive, their format, and the request
that each reply answers. It has no clock, no policy and no jobs.

`Connection` has the code that both ends share: the buffer, the format of packets and lines, and the
errors. It delegates the rest to a `ClientEnd` or a `ServerEnd`: the pairing of requests and
answers, and the rules that differ.

Errors
    `next_event` raises the errors of received bytes, after it has returned all earlier events, and
    every later call raises them again. `next_event` also reports a lack of memory for received
    bytes this way, so it ends only this connection. `send` raises the errors of the caller, and
    changes nothing in that case. Most of its checks exist because some server would ignore the
    packet, close the connection, or end its process.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError

from . import batches
from .buffer import ReceiveBuffer
from .client import ClientEnd
from .packets import (
    BY_NUMBER,
    HEADER,
    HEADER_SIZE,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    NUMBER,
    ConnectionClosed,
    Event,
    PacketEvent,
    PlainSubmit,
    Role,
    TextLine,
    parse,
)
from .rows import MAX_PLAIN_SIZE, QUICK_SIZE, Row, prepared, size_limit
from .server import ServerEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class _NeedData(enum.Enum):
    """The type of NEED_DATA. With an enum, type checkers can distinguish it from events."""

    NEED_DATA = enum.auto()

    def __repr__(self) -> str:
        return "NEED_DATA"


#: The result of `next_event` if it needs more bytes.
NEED_DATA: Final = _NeedData.NEED_DATA

_MAX_BODY_SIZE: Final = constants.MAX_BODY_SIZE
# Larger payloads (in bytes) are not copied, neither from the application's object nor after
# receiving them.
_LARGE: Final = MAX_PLAIN_SIZE
# The plain arguments of a large packet must be within this many bytes after the header.
_FRONT: Final = 4096


class Connection:
    """The protocol state of one connection, for one end.

    Args:
        role: The role of this end. ``Role.CLIENT | Role.WORKER`` is both at once.
        max_packet_size: Maximum body size of a received packet in bytes. A larger packet is an
            error.

    Raises:
        TypeError: `role` is not a role.
        ValueError: `role` combines the server's with another.
    """

    def __init__(
        self, role: Role, *, max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE
    ) -> None:
        if not isinstance(role, Role) or not role:
            raise TypeError(f"role must be a Role, not {role!r}")
        if Role.SERVER in role and role is not Role.SERVER:
            raise ValueError("a server's end can't be anything else at the same time")
        self.role: Role = role
        self.max_packet_size: int = max_packet_size
        self._to_send, self._to_receive, requests = prepared(role, max_packet_size)
        is_server = role is Role.SERVER
        self._end: ClientEnd | ServerEnd = ServerEnd(requests) if is_server else ClientEnd(role)
        # The packets that `send_args` makes without an event. Empty for clients, and after an
        # error.
        self._replies = self._to_send if is_server else {}
        self._magic, self._peer_magic = self._end.magic, self._end.peer_magic
        self._buffer = ReceiveBuffer()
        # The packet whose payload the buffer collects, and its other arguments.
        self._large: tuple[Row, list[bytes]] | None = None
        self._takes_text = self._end.takes_text
        self._eof = False
        self._error: RemoteProtocolError | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.role!r}, {self.unanswered} unanswered>"

    @property
    def unanswered(self) -> int:
        """The number of requests without an answer."""
        return self._end.unanswered

    @property
    def buffered(self) -> int:
        """The number of received bytes in the buffer, waiting for the rest of their packet."""
        return len(self._buffer)

    def is_drained(self) -> bool:
        """Return True if the buffer is empty and the stream has neither ended nor failed.

        In this case `next_event` would return NEED_DATA. Like `next_event`, this releases the
        memory of parsed packets.
        """
        return not self._eof and self._error is None and self._buffer.is_spent()

    def unanswered_tokens(self) -> Iterator[Any]:
        """Yield the tokens of the unanswered requests, oldest first."""
        return self._end.unanswered_tokens()

    def replace_token(self, token: object, others: Iterator[Any]) -> None:
        """Replace each occurrence of the token `token` by the next of `others`.

        For a client. `others` must have as many.
        """
        end = self._end
        assert isinstance(end, ClientEnd)
        end.tokens = deque(next(others) if each is token else each for each in end.tokens)

    # Sending.

    def send(self, event: Event, token: Any = None) -> bytes:
        """Return the bytes to write for `event`.

        Args:
            event: A packet that this role can send, or a TextLine.
            token: Any object, by default `event` itself. The answer to this request will have it
                as its `answers`.

        Raises:
            LocalProtocolError: This role can't send the event, or can't send it now; or a server
                would ignore it, close the connection, or end its process.
        """
        row = self._to_send.get(type(event))
        if row is None or self._error is not None:
            return self._send_other(event)
        args: tuple[bytes, ...] = row.get_args(event)
        payload = len(args[-1]) if row.opaque else 0
        if payload > _LARGE and len(args) > 1 and type(args[-1]) is bytes:
            return b"".join(self._send_large(row, event, args, token))
        body = b"\0".join(args)
        size = len(body)
        # Checks all plain arguments at once, which is enough for nearly every packet.
        plain = size - payload
        if plain > row.enough or body.count(b"\0", 0, plain) != row.nuls:
            row.check_args(args)
        if size > _MAX_BODY_SIZE:
            raise row.too_large(size)
        if row.pairs_sent:
            self._end.pair_sent(row, event, args, token)
        return HEADER.pack(self._magic, row.number, size) + body

    def send_with_data_passthrough(self, event: Event, token: Any = None) -> list[bytes]:
        """Return the bytes to write for `event` in pieces, without copying a large payload.

        The arguments and the exceptions are those of `send`. If the payload is `bytes` and larger
        than 64 KiB, the result has two pieces, and the second is the event's own object. Other
        events, and ECHO_REQ and ECHO_RES, are one piece.
        """
        data = getattr(event, "data", b"")
        if type(data) is bytes and len(data) > _LARGE:
            row = self._to_send.get(type(event))
            if row is not None and row.nuls:
                return self._send_large(row, event, row.get_args(event), token)
        return [self.send(event, token)]

    def _send_large(
        self, row: Row, event: Event, args: tuple[bytes, ...], token: Any
    ) -> list[bytes]:
        """Send `event` without its payload, and correct the size in the header."""
        *names, payload = args
        size = sum(map(len, names)) + len(names) + len(payload)
        if size > _MAX_BODY_SIZE:
            raise row.too_large(size)
        packet = self.send(row.event_class(*names, b""), event if token is None else token)
        return [row.head + NUMBER.pack(size) + packet[HEADER_SIZE:], payload]

    def send_submits(
        self,
        kind: type[PlainSubmit],
        function: bytes,
        uniques: Sequence[bytes],
        payloads: Sequence[bytes],
        tokens: Iterable[Any],
    ) -> bytes:
        """Return the bytes to write for many submits of one function.

        The result is the same as from a `send` for each job. It costs much less, as it makes no
        events.

        Args:
            kind: SubmitJob, or another subclass of PlainSubmit.
            function: The function of all jobs.
            uniques: The unique of each job.
            payloads: The data of each job.
            tokens: The token of each job.

        Raises:
            LocalProtocolError: As in `send`. In this case no job was sent.
        """
        return self.send_mixed_submits([(kind, function)], uniques, payloads, tokens)

    def send_mixed_submits(
        self,
        kinds: Sequence[tuple[type[PlainSubmit], bytes]],
        uniques: Sequence[bytes],
        payloads: Sequence[bytes],
        tokens: Iterable[Any],
    ) -> bytes:
        """Return the bytes to write for many submits, like `send_submits`.

        Args:
            kinds: The class and the function of each submit, or one pair for all.
            uniques: As in `send_submits`.
            payloads: As in `send_submits`.
            tokens: As in `send_submits`.

        Raises:
            LocalProtocolError: As in `send`. In this case no job was sent.
        """
        end, to_send = self._end, self._to_send
        if self._error is not None or not isinstance(end, ClientEnd) or kinds[0][0] not in to_send:
            kind, function = kinds[0]
            return self._send_other(kind(function, b"", b""))
        rows = [(to_send[kind], function) for kind, function in kinds]
        return batches.send_submits(end, rows, uniques, payloads, tokens)

    def send_args(self, kind: type[PacketEvent], args: Sequence[bytes]) -> bytes:
        """Return the bytes to write for a packet.

        The result is the same as from `send` with an event. It costs a server much less, as it
        makes no event.

        Args:
            kind: The class of the packet.
            args: The arguments of the packet.

        Raises:
            LocalProtocolError: As in `send`.
        """
        row = self._replies.get(kind)
        body = b"\0".join(args)
        size = len(body)
        if (
            row is None
            or size > QUICK_SIZE
            or len(args) != row.count
            or (body.count(b"\0") != row.nuls and not row.is_sound(args))
        ):
            return self.send(kind(*args))
        if row.pairs_sent:
            self._end.pair_sent(row, None, args, None)
        return row.head + NUMBER.pack(size) + body

    def _send_other(self, event: Event) -> bytes:
        if self._error is not None:
            raise LocalProtocolError(f"the connection has failed: {self._error}")
        if isinstance(event, TextLine):
            return self._send_line(event)
        if isinstance(event, PacketEvent):
            raise LocalProtocolError(f"{event.packet.name} is not for {self.role!r} to send")
        raise LocalProtocolError(f"{event!r} can't be sent")

    def _send_line(self, event: TextLine) -> bytes:
        line, ending = event.line, event.ending
        if ending not in (b"\r\n", b"\n") or b"\n" in line:
            raise LocalProtocolError(f"{event!r} is not one line")
        if line.startswith(b"\0"):
            raise LocalProtocolError("a text line can't begin with a NUL, as packets do")
        self._end.check_sent_line(line, len(line) + len(ending))
        self._takes_text = True
        return line + ending

    # Receiving.

    def receive_data(self, data: bytes) -> None:
        """Buffer bytes from the peer. `next_event` returns their events.

        After an error in earlier bytes, this drops `data`.

        Raises:
            LocalProtocolError: `receive_eof` was called before.
        """
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        if self._error is None:
            try:
                self._buffer.feed(data)
            except MemoryError as error:
                self._fail(error)

    def receive_eof(self) -> None:
        """Record that the peer has closed its side of the stream."""
        self._eof = True

    def next_event(self) -> Event | _NeedData:
        """Return the next event, or NEED_DATA.

        After the end of the peer's stream, and after all earlier events, return ConnectionClosed.

        Raises:
            RemoteProtocolError: The peer violated the protocol, or its stream ended in the middle
                of a packet. Every later call raises the same error.
        """
        if self._error is not None:
            raise self._error
        try:
            buffer = self._buffer
            start = buffer.start + HEADER_SIZE
            if start > len(buffer.data):
                if not buffer.has(HEADER_SIZE):
                    return self._next_short()
                start = HEADER_SIZE  # `has` has joined the pieces.
            magic, number, size = HEADER.unpack_from(buffer.data, buffer.start)
            row = self._to_receive.get(number)
            if row is None or magic != self._peer_magic or size > row.max_size:
                odd = self._next_odd(magic, number, size)
                if odd is not None:
                    return odd
                assert row is not None
            end = start + size
            if end > len(buffer.data):
                if not buffer.has(HEADER_SIZE + size):
                    if size > _LARGE and row.opaque:
                        self._begin_large(row, size)
                    return self._need_data()
                start, end = HEADER_SIZE, HEADER_SIZE + size
            if row.single and 0 not in (only := buffer.data[start:end]):
                args = [only]
            else:
                args = parse(row.packet, buffer.data, start, end)
            if row.pairs_received:
                unanswered = self._end.pair_received(row, args)
                if unanswered is not None:
                    return unanswered  # The packet stays in the buffer for the next call.
            buffer.start = end
            return row.event_class(*args)  # type: ignore[no-any-return]
        except (RemoteProtocolError, MemoryError) as error:
            raise self._fail(error) from error.__cause__

    def _fail(self, error: RemoteProtocolError | MemoryError) -> RemoteProtocolError:
        if isinstance(error, MemoryError):  # Bytes might be lost, so the stream can't be parsed.
            error = RemoteProtocolError("there was no memory for what was received")
        self._error = error
        self._replies = {}
        self._buffer.clear()
        return error

    def next_created(self) -> tuple[list[bytes], list[Any]]:
        """Remove the next JOB_CREATED packets of equal size, and return their contents.

        This is equivalent to `next_event`, but much faster. More such packets can follow, and
        `next_event` can process any of them instead.

        Returns:
            The handles, and for each handle the token of the submit that it answers. Both lists are
            empty unless at least two complete JOB_CREATED packets are next.
        """
        end = self._end
        if self._error is not None or not isinstance(end, ClientEnd):
            return [], []
        return batches.next_created(end, self._buffer)

    def requests(self) -> Iterator[tuple[type[PacketEvent], list[bytes]]]:
        """Yield the classes and the arguments of the next requests.

        For a server. This is equivalent to `next_event`, but much faster. Each request leaves the
        buffer when it is yielded, and can be answered then. The iterator can be abandoned at any
        time. It becomes invalid when more data is received, or another method parses data.

        The iterator ends at a large packet, an invalid one, an incomplete one, or a line of text.
        `next_event` handles these.
        """
        end = self._end
        return end.requests(self._buffer) if isinstance(end, ServerEnd) else iter(())

    def _next_short(self) -> Event | _NeedData:
        """Return the next event if the buffer has no complete header, or collects a payload."""
        if self._large is not None:
            return self._next_large(*self._large)
        buffer = self._buffer
        if buffer.shrink():
            return ConnectionClosed() if self._eof else NEED_DATA
        buffer.has(len(buffer))
        if buffer.data[buffer.start]:
            return self._next_line()
        self._check_magic(buffer.data[buffer.start : buffer.start + 4])
        return self._need_data()

    def _begin_large(self, row: Row, size: int) -> None:
        """Collect the payload of an incomplete packet, if its plain arguments are complete."""
        buffer = self._buffer
        if not buffer.has(HEADER_SIZE + _FRONT):
            return
        start = buffer.start + HEADER_SIZE
        args = buffer.data[start : start + _FRONT].split(b"\0", row.nuls)
        if len(args) <= row.nuls:
            return  # They are longer than servers accept, or missing.
        begun = args.pop()
        self._large = row, args
        front = _FRONT - len(begun)
        buffer.collect(HEADER_SIZE + front, size - front)

    def _next_large(self, row: Row, args: list[bytes]) -> Event | _NeedData:
        """Return the event of the packet whose payload the buffer collects."""
        payload = self._buffer.collected
        if payload is None:
            return self._need_data()
        args = [*args, payload]
        unanswered = self._end.pair_received(row, args) if row.pairs_received else None
        if unanswered is not None:
            return unanswered
        self._large = None
        self._buffer.end_collecting()
        return row.event_class(*args)  # type: ignore[no-any-return]

    def _next_odd(self, magic: bytes, number: int, size: int) -> Event | _NeedData | None:
        """Handle a header with a wrong magic, an unexpected type or an excessive size.

        Return None if the packet is acceptable.
        """
        buffer = self._buffer
        if buffer.data[buffer.start]:
            return self._next_line()
        self._check_magic(magic)
        packet = BY_NUMBER.get(number)
        end = self._end
        refusal = end.refusal(magic, number, packet)
        limit = size_limit(packet, self.max_packet_size)
        if size > limit:
            name = f"type {number}" if packet is None else packet.name
            raise RemoteProtocolError(f"{name} claims {size} bytes, more than the {limit} allowed")
        if refusal is None:
            return None
        assert isinstance(end, ServerEnd)  # A client's end accepts the packet or fails.
        if not buffer.has(HEADER_SIZE + size):
            return self._need_data()
        buffer.start += HEADER_SIZE + size
        end.pair_refused()
        return refusal

    def _need_data(self) -> _NeedData:
        self._buffer.shrink()
        if self._eof:
            raise RemoteProtocolError(
                f"the stream ended in the middle of a packet, after {len(self._buffer)} bytes of it"
            )
        return NEED_DATA

    @staticmethod
    def _check_magic(magic: bytes) -> None:
        if not (MAGIC_RESPONSE.startswith(magic) or MAGIC_REQUEST.startswith(magic)):
            raise RemoteProtocolError(f"a packet begins with {magic!r}, not with a magic")

    def _next_line(self) -> Event | _NeedData:
        buffer, max_line = self._buffer, self._end.max_line
        if not self._takes_text:
            begin = buffer.data[buffer.start : buffer.start + 40]
            # A TLS server may send an alert to a client that does not use TLS.
            tls = ", but TLS" if begin[:2] == b"\x15\3" else ""
            raise RemoteProtocolError(f"the peer does not speak Gearman{tls}: {begin!r}")
        size = buffer.line_size()
        if (size or len(buffer)) > max_line:
            raise RemoteProtocolError(f"a line of text of more than {max_line} bytes")
        if not size:
            return self._need_data()
        buffer.has(size)
        line = buffer.take(size)
        ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        line = line[: -len(ending)]
        self._end.check_received_line(line)
        return TextLine(line, ending)
