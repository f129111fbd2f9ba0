"""Tier 1: the bytes of one connection to events, and back.

A `Connection` knows the packets that its role can send and receive, their format, and the request
that each reply answers. It has no clock, no policy and no jobs.

Pairing
    A server answers the requests of one connection in order, so one queue of unanswered requests
    is enough. Each answer (JOB_CREATED, STATUS_RES, OPTION_RES and so on) must match the head of
    the queue and removes it. Other packets (WORK_*, NOOP) leave the queue alone. An ERROR names no
    request. Servers send it in place of an answer, or, with a special code, in response to a WORK_*
    packet, which has no other answer.

    Some servers drop some requests silently. If the head is such a request and a reply does not
    match it, the server will never answer it. `next_event` then returns the request as
    `Unanswered`, and compares the reply with the next request.

    If a reply repeats a part of its request (a handle, a unique, an option, the echo), both must
    be equal. A reply that matches no request means that the two streams are out of step. The
    connection can't recover from that, so it treats the reply as garbage.

    A server's Connection has the same queue, and refuses to send answers out of order. A server
    answers most requests before it receives the next one, so the head of the queue is stored
    separately.

Errors
    `next_event` raises the errors of received bytes, after it has returned all earlier events, and
    every later call raises them again. `next_event` also reports a lack of memory for received
    bytes this way, so it ends only this connection. `send` raises the errors of the caller, and
    changes nothing in that case. Most of its checks exist because some server would ignore the
    packet, close the connection, or end its process.
"""

from __future__ import annotations

import enum
import functools
import itertools
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError

from .buffer import ReceiveBuffer
from .packets import (
    BY_NAME,
    BY_NUMBER,
    HEADER,
    HEADER_SIZE,
    LAST_NUMBER,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    NUMBER,
    ConnectionClosed,
    Event,
    InvalidRequest,
    PacketEvent,
    PlainSubmit,
    Role,
    TextLine,
    Unanswered,
    parse,
)
from .rows import MAX_PLAIN_SIZE, QUICK_SIZE, Row, prepared, size_limit
from .special import check_special

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class _NeedData(enum.Enum):
    """The type of NEED_DATA: an enum, so that type checkers can tell it from events."""

    NEED_DATA = enum.auto()

    def __repr__(self) -> str:
        return "NEED_DATA"


#: What `next_event` returns when it needs more bytes.
NEED_DATA: Final = _NeedData.NEED_DATA

_MAX_BODY_SIZE: Final = constants.MAX_BODY_SIZE
# Bytes. A payload above it is not copied: not from the application's object, and not once it has
# come.
_LARGE: Final = MAX_PLAIN_SIZE
# Bytes behind the header of such a packet among which its names are looked for.
_FRONT: Final = 4096
# Replies have no limit of their own: the line of a worker in `workers` holds all its functions.
_MAX_REPLY_LINE: Final = 1024 * 1024
# The codes with which servers refuse a WORK_* packet (gearmand's, as in recording
# 23_work_for_unknown_handle; the Perl server's).
_WORK_ERRORS: Final = frozenset({b"JOB_NOT_FOUND", b"not_worker"})
# The codes with which gearmand refuses a submit, and nothing else (recordings 27_queue_full and
# 28_pipelined_submits_with_error).
_SUBMIT_ERRORS: Final = frozenset({b"QUEUE_ERROR", b"ARGUMENT_TOO_LARGE"})

_IGNORED: Final = object()
_ERROR: Final = BY_NAME["ERROR"].number
_CREATED: Final = BY_NAME["JOB_CREATED"].number
_CREATED_HEAD: Final = MAGIC_RESPONSE + NUMBER.pack(_CREATED)
# What a server owes for a request that it can only refuse.
_ERROR_ONLY: Final[tuple[frozenset[int], str]] = (frozenset(), "an invalid request")
# In place of a queue that is empty, as most of a server's connections have them: an empty deque
# takes 760 bytes.
_NOTHING: Final[deque[Any]] = deque(maxlen=0)


@functools.lru_cache(maxsize=64)
def _pairs(size: int) -> struct.Struct:
    """A packet with a body of `size` bytes, as its header and its body."""
    return struct.Struct(f"{HEADER_SIZE}s{size}s")


def _words(line: bytes) -> int:
    return sum(1 for word in line.split(b" ") if word)


class Connection:
    """One end of one connection, without the connection.

    Args:
        role: What this end is. ``Role.CLIENT | Role.WORKER`` is both at once.
        max_packet_size: In bytes. A received packet whose body is larger is an error.

    Raises:
        TypeError: `role` is none.
        ValueError: It is a server's and another one at once.
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
        self._is_server = role is Role.SERVER
        self._is_worker = Role.WORKER in role
        self._to_send, self._to_receive, self._requests = prepared(role, max_packet_size)
        # What `send_args` makes without an event: a server's packets, until there is an error.
        self._replies = self._to_send if self._is_server else {}
        self._magic = MAGIC_RESPONSE if self._is_server else MAGIC_REQUEST
        self._peer_magic = MAGIC_REQUEST if self._is_server else MAGIC_RESPONSE
        self._max_line = constants.MAX_COMMAND_SIZE if self._is_server else _MAX_REPLY_LINE
        self._buffer = ReceiveBuffer()
        # What was asked and is not answered: the row and what the answer repeats (None: nothing);
        # and, beside it, the tokens.
        self._asked: deque[tuple[Row, bytes | None]] = _NOTHING
        self._tokens: deque[Any] = _NOTHING
        if not self._is_server:
            self._asked, self._tokens = deque(), deque()
        # The same for a server: the head of the queue (None: it is empty), and the others.
        self._owed: tuple[frozenset[int], str] | None = None
        self._owed_next: deque[tuple[frozenset[int], str]] = _NOTHING
        # The packet whose payload the buffer collects apart, and the arguments before that.
        self._large: tuple[Row, list[bytes]] | None = None
        self._takes_text = self._is_server
        self._eof = False
        self._error: RemoteProtocolError | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.role!r}, {self.unanswered} unanswered>"

    @property
    def unanswered(self) -> int:
        """How many requests wait for their answer."""
        return len(self._asked) + len(self._owed_next) + (self._owed is not None)

    @property
    def buffered(self) -> int:
        """How many received bytes are kept until their packet is complete."""
        return len(self._buffer)

    def is_drained(self) -> bool:
        """Whether nothing is kept of what was received, and more may come.

        Then `next_event` would return NEED_DATA. What was taken is let go of, as it does.
        """
        return not self._eof and self._error is None and self._buffer.is_spent()

    def unanswered_tokens(self) -> Iterator[Any]:
        """Yield the tokens of the requests that wait for their answer, oldest first."""
        yield from [None] * self.unanswered if self._is_server else self._tokens

    # Sending.

    def send(self, event: Event, token: Any = None) -> bytes:
        """Return the bytes to write for `event`.

        Args:
            event: A packet that this role may send, or a TextLine.
            token: Anything; `event` itself if None. The event that answers this one will have it
                as its `answers`.

        Raises:
            LocalProtocolError: This role may not send that, or not now; or a server would meet it
                with silence, by closing the connection, or by ending its process.
        """
        row = self._to_send.get(type(event))
        if row is None or self._error is not None:
            return self._send_other(event)
        args: tuple[bytes, ...] = row.get_args(event)
        payload = len(args[-1]) if row.opaque else 0
        if payload > _LARGE and len(args) > 1 and type(args[-1]) is bytes:
            return b"".join(self._send_large(row, event, args, token))
        body = b"\0".join(args)
        # Looks at all plain arguments at once, which is enough for nearly every packet.
        plain = len(body) - payload
        if plain > row.enough or body.count(b"\0", 0, plain) != row.nuls:
            self._check_args(row, args)
        if len(body) > _MAX_BODY_SIZE:
            raise self._too_large(row, len(body))
        if self._is_server:
            if row.answers_something:
                self._settle_owed(row, args[0] if args else b"")
        else:
            if row.is_special:
                check_special(row.packet, event)
            if row.accepts:
                self._asked.append((row, args[0]) if row.repeated else row.alone)
                self._tokens.append(event if token is None else token)
        return HEADER.pack(self._magic, row.number, len(body)) + body

    def send_with_data_passthrough(self, event: Event, token: Any = None) -> list[bytes]:
        """Do what `send` does, but return the bytes in pieces, to be written one after the other.

        Arguments and exceptions are those of `send`.

        A payload of more than 64 KiB, if it is `bytes`, is the last of two: the event's own object,
        which is not copied. Everything else, and ECHO_REQ and ECHO_RES, is in one.
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
        """Send what is before the payload of `event`, and let that follow as it is."""
        *names, payload = args
        size = sum(map(len, names)) + len(names) + len(payload)
        if size > _MAX_BODY_SIZE:
            raise self._too_large(row, size)
        packet = self.send(row.event_class(*names, b""), event if token is None else token)
        front = HEADER.pack(self._magic, row.number, size) + packet[HEADER_SIZE:]
        return [front, payload]

    def send_submits(
        self,
        kind: type[PlainSubmit],
        function: bytes,
        jobs: Iterable[tuple[bytes, bytes]],
        tokens: Iterable[Any],
    ) -> bytes:
        """Return the bytes to write for many submits of one function: what `send` of each returns.

        It costs much less than that, as no events are made.

        Args:
            kind: SubmitJob, or another of the submits that have nothing special.
            function: The function of all of them.
            jobs: The unique and the data of each.
            tokens: For each, what the event that answers it will have as its `answers`.

        Raises:
            LocalProtocolError: As in `send`; then none of them was sent.
        """
        row = self._to_send.get(kind)
        if row is None or self._error is not None:
            return self._send_other(kind(function, b"", b""))
        self._check_args(row, (function,))
        start, fixed, unique_limit = (
            self._magic + NUMBER.pack(row.number),
            len(function) + 2,
            row.limits[1],
        )
        name = function + b"\0"
        known, head = -1, b""
        packets: list[bytes] = []
        for unique, data in jobs:
            size = fixed + len(unique) + len(data)
            if size != known:
                if size > _MAX_BODY_SIZE:
                    raise self._too_large(row, size)
                known, head = size, start + NUMBER.pack(size) + name
            if 0 in unique or len(unique) > unique_limit:
                self._check_args(row, (function, unique))
            packets += head, unique, b"\0", data
        self._asked.extend([row.alone] * (len(packets) // 4))
        self._tokens.extend(tokens)
        return b"".join(packets)

    def send_args(self, kind: type[PacketEvent], args: Sequence[bytes]) -> bytes:
        """Return the bytes to write for an event of this `kind` and `args`: what `send` returns.

        It costs a server much less than that, as no event is made.

        Args:
            kind: The class of the event.
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
        if row.answers_something:
            owed = self._owed
            if owed is not None and row.number in owed[0] and not self._owed_next:
                self._owed = None
            else:
                self._settle_owed(row, args[0] if args else b"")
        return row.head + NUMBER.pack(size) + body

    @staticmethod
    def _too_large(row: Row, size: int) -> LocalProtocolError:
        return LocalProtocolError(f"{row.packet.name}: {size} bytes do not fit a packet")

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
        if not self._is_server:
            if len(line) + len(ending) > constants.MAX_COMMAND_SIZE:
                raise LocalProtocolError(f"a command of {len(line)} bytes is too long")
            if _words(line) > constants.MAX_COMMAND_WORDS:
                raise LocalProtocolError(
                    f"{line[:80]!r} has more than {constants.MAX_COMMAND_WORDS} words: servers "
                    "close the connection on that"
                )
            self._takes_text = True
        return line + ending

    def _check_args(self, row: Row, args: tuple[bytes, ...]) -> None:
        for name, value, limit in zip(row.packet.args, args, row.limits):
            if 0 in value:
                raise LocalProtocolError(f"{row.packet.name}: a NUL in the {name} {value[:80]!r}")
            if len(value) > limit and not self._is_server:
                raise LocalProtocolError(
                    f"{row.packet.name}: the {name} has {len(value)} bytes, more than the {limit} "
                    "that servers take"
                )

    # Receiving.

    def receive_data(self, data: bytes) -> None:
        """Take `data`, bytes from the peer; get what they mean from `next_event`.

        After an error in what came before, they are dropped.

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
        """Note that the peer has closed its side of the stream."""
        self._eof = True

    def next_event(self) -> Event | _NeedData:
        """Return the next event, or NEED_DATA.

        After the peer's end of stream, and all that came before it, it is ConnectionClosed.

        Raises:
            RemoteProtocolError: The peer sent something unsound (or its stream ended in the middle
                of a packet). Every later call raises the same.
        """
        if self._error is not None:
            raise self._error
        try:
            buffer = self._buffer
            start = buffer.start + HEADER_SIZE
            if start > len(buffer.data):
                if not buffer.has(HEADER_SIZE):
                    return self._next_short()
                start = HEADER_SIZE  # The pieces have been joined.
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
            if row.single and 0 not in (first := buffer.data[start:end]):
                args = [first]
            else:
                args = parse(row.packet, buffer.data, start, end)
                first = args[0] if args else b""
            if self._is_server:
                if row.owes is not None:
                    self._owe(row.owes)
            elif row.answers_something:
                token = self._settle(row, first)
                if token is _IGNORED:  # The packet stays in the buffer, for the next call.
                    return self._pop_ignored()
                buffer.start = end
                return row.event_class(*args, token)  # type: ignore[no-any-return]
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
        buffer = self._buffer
        data, start = buffer.data, buffer.start
        head = data[start : start + HEADER_SIZE]
        if not head.startswith(_CREATED_HEAD) or self._error is not None or self._is_server:
            return [], []
        size = int.from_bytes(head[-4:])
        count = min((len(data) - start) // (HEADER_SIZE + size), len(self._asked))
        if count < 2 or size > MAX_PLAIN_SIZE:
            return [], []
        for number, (request, _) in enumerate(itertools.islice(self._asked, count)):
            if _CREATED not in request.accepts:
                count = number
                break
        packets = memoryview(data)[start : start + count * (HEADER_SIZE + size)]
        handles: list[bytes] = []
        for found, handle in _pairs(size).iter_unpack(packets):
            if found != head or 0 in handle:
                break
            handles.append(handle)
        buffer.start = start + len(handles) * (HEADER_SIZE + size)
        tokens = []
        for _ in handles:
            self._asked.popleft()
            tokens.append(self._tokens.popleft())
        return handles, tokens

    def requests(self) -> Iterator[tuple[type[PacketEvent], list[bytes]]]:
        """Take the packets that come next, and yield the class and the arguments of each event.

        For a server. It is what `next_event` would say of them, at a fraction of its cost. Each is
        taken when it is yielded, and may be answered then. The iterator may be left at any time;
        it must not be gone on with when more was received, or taken by other calls.

        It ends at what is large, odd, no packet or incomplete, which is for `next_event`.
        """
        buffer, requests, header_size = self._buffer, self._requests, HEADER_SIZE
        known: bytes | None = None
        data, start = buffer.data, buffer.start
        while True:
            head = data[start : start + header_size]
            if head != known:
                # No row begins like a part of a header.
                row = requests.get(head[:-4])
                if row is None:
                    return
                size = int.from_bytes(head[-4:])
                if size > row.quick_size:
                    return
                known, kind, owes, count, nuls = (
                    head,
                    row.event_class,
                    row.owes,
                    row.count,
                    row.nuls,
                )
            begin = start + header_size
            end = begin + size
            if end > len(data):
                return
            args = data[begin:end].split(b"\0", nuls) if count else []
            if len(args) != count:
                return
            start = buffer.start = end
            if owes is not None:
                if self._owed is None:
                    self._owed = owes
                else:
                    self._owe(owes)
            yield kind, args

    def _next_short(self) -> Event | _NeedData:
        """The next event where there are fewer bytes than a header has, or a large packet."""
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
        """Have the payload of an incomplete packet be collected apart, if its names are there."""
        buffer = self._buffer
        if not buffer.has(HEADER_SIZE + _FRONT):
            return
        start = buffer.start + HEADER_SIZE
        args = buffer.data[start : start + _FRONT].split(b"\0", row.nuls)
        if len(args) <= row.nuls:
            return  # They are longer than any that servers take, or there are none.
        begun = args.pop()
        self._large = row, args
        front = _FRONT - len(begun)
        buffer.collect(HEADER_SIZE + front, size - front)

    def _next_large(self, row: Row, args: list[bytes]) -> Event | _NeedData:
        """The next event where the payload of its packet is collected apart."""
        payload = self._buffer.collected
        if payload is None:
            return self._need_data()
        args = [*args, payload]
        token: tuple[Any, ...] = ()
        if self._is_server:
            if row.owes is not None:
                self._owe(row.owes)
        elif row.answers_something:
            token = (self._settle(row, args[0]),)
            if token[0] is _IGNORED:
                return self._pop_ignored()
        self._large = None
        self._buffer.end_collecting()
        return row.event_class(*args, *token)  # type: ignore[no-any-return]

    def _next_odd(self, magic: bytes, number: int, size: int) -> Event | _NeedData | None:
        """The same where the header is not quite right. None if the packet is none the less."""
        buffer = self._buffer
        if buffer.data[buffer.start]:
            return self._next_line()
        self._check_magic(magic)
        packet = BY_NUMBER.get(number)
        if packet is None and not (self._is_server and 0 < number <= LAST_NUMBER):
            raise UnknownCommandError(f"there is no packet of type {number}")
        name = f"type {number}" if packet is None else packet.name
        limit = size_limit(packet, self.max_packet_size)
        if size > limit:
            raise RemoteProtocolError(f"{name} claims {size} bytes, more than the {limit} allowed")
        if not self._is_server:
            if number not in self._to_receive:
                raise RemoteProtocolError(f"{name} is not for {self.role!r} to receive")
            return None  # gear's server sends a request's magic.
        if not buffer.has(HEADER_SIZE + size):
            return self._need_data()
        buffer.start += HEADER_SIZE + size
        self._owe(_ERROR_ONLY)
        if magic == MAGIC_RESPONSE:
            return InvalidRequest(b"INVALID_MAGIC", b"Request magic expected")
        return InvalidRequest(b"INVALID_COMMAND", b"Command not expected")

    def _pop_ignored(self) -> Unanswered:
        request, _ = self._asked.popleft()
        return Unanswered(request.packet, self._tokens.popleft())

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
        buffer = self._buffer
        if not self._takes_text:
            begin = buffer.data[buffer.start : buffer.start + 40]
            # An alert: what a server of TLS may say to a client that does not speak it.
            tls = ", but TLS" if begin[:2] == b"\x15\3" else ""
            raise RemoteProtocolError(f"the peer does not speak Gearman{tls}: {begin!r}")
        size = buffer.line_size()
        if (size or len(buffer)) > self._max_line:
            raise RemoteProtocolError(f"a line of text of more than {self._max_line} bytes")
        if not size:
            return self._need_data()
        buffer.has(size)
        line = buffer.take(size)
        ending = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        line = line[: -len(ending)]
        if self._is_server and _words(line) > constants.MAX_COMMAND_WORDS:
            raise RemoteProtocolError(
                f"a command of more than {constants.MAX_COMMAND_WORDS} words: {line[:80]!r}"
            )
        return TextLine(line, ending)

    # Pairing.

    def _owe(self, entry: tuple[frozenset[int], str]) -> None:
        """For a server: a request has come that has to be answered."""
        if self._owed is None:
            self._owed = entry
        elif self._owed_next:
            self._owed_next.append(entry)
        else:
            self._owed_next = deque((entry,))

    def _settle_owed(self, answer: Row, first: bytes) -> None:
        """For a server: pop the request that `answer`, whose first argument is `first`, is for."""
        owed = self._owed
        if owed is None or answer.number not in owed[0]:
            if answer.number != _ERROR:
                fault = "answers nothing" if owed is None else f"can't answer {owed[1]}"
                raise LocalProtocolError(f"{answer.packet.name} {fault}")
            if owed is None or first in _WORK_ERRORS:
                return  # It refuses a WORK_* packet.
        self._owed = self._owed_next.popleft() if self._owed_next else None

    def _settle(self, answer: Row, first: bytes) -> Any:
        """Pop the request that `answer`, whose first argument is `first`, is for.

        Returns its token, or _IGNORED if the head will never be answered, which is not popped.
        """
        asked = self._asked
        if asked:
            request, repeated = asked[0]
            if answer.number in request.accepts and (repeated is None or first == repeated):
                asked.popleft()
                return self._tokens.popleft()
        return self._settle_odd(answer, first)

    def _settle_odd(self, answer: Row, first: bytes) -> Any:
        """The same where the head does not expect `answer`: it is an ERROR, or does not fit."""
        asked = self._asked
        if answer.number == _ERROR and (not asked or (first in _WORK_ERRORS and self._is_worker)):
            return None  # It refuses a WORK_* packet, and so answers no request.
        if not asked:
            raise RemoteProtocolError(f"{answer.packet.name} answers nothing")
        request, repeated = asked[0]
        # An ERROR names no request, but some codes tell what kind it was.
        fits = answer.number == _ERROR and first not in _SUBMIT_ERRORS
        if not fits and request.ignorable:
            return _IGNORED
        if answer.number == _ERROR:
            asked.popleft()
            return self._tokens.popleft()
        if answer.number not in request.accepts:
            raise RemoteProtocolError(f"{answer.packet.name} can't answer {request.packet.name}")
        raise RemoteProtocolError(
            f"{answer.packet.name} is about {first[:80]!r}, but {repeated!r:.100} was asked"
        )
