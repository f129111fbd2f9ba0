"""Any bytes, received in any pieces, yield the same events or error, and events pack to the bytes.

The pieces are all bytes at once, single bytes, and runs. One setup treats nearly every payload as
large. The invariant holds for a Connection in each role, for requests and for expected answers.
RemoteProtocolError is the only exception. There are three tolerances: a body is dropped from a
packet type that has none, a packet that no server accepts yields the ERROR to answer it with, and
clients accept either magic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.testing import pack
from gearman_proto.wire import connection
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    BY_NAME,
    BY_NUMBER,
    EVENT_CLASSES,
    HEADER,
    HEADER_SIZE,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    PACKETS,
    ConnectionClosed,
    Event,
    InvalidRequest,
    JobCreated,
    OptionReq,
    PacketEvent,
    Role,
    TextLine,
    Unanswered,
)

from . import Failure
from .mutating import mutate

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# Small enough for the generator to exceed it.
MAX_PACKET_SIZE = 4096
#: Each setup: the role, and whether the expected answers were requested, whether text replies were,
#: and whether requests that the server ignores are among the requests.
SETUPS = [
    (Role.SERVER, False, False, False),
    (Role.CLIENT, False, False, False),
    (Role.CLIENT, True, True, False),
    (Role.WORKER, True, False, True),
    (Role.CLIENT | Role.WORKER, True, False, False),
    (Role.CLIENT | Role.WORKER, True, True, True),
]
#: The requests that a packet with this number answers.
ASKING = {
    answer.number: [packet for packet in PACKETS if answer.name in packet.answers]
    for answer in PACKETS
}


def requests_for(data: bytes, *, ignored: bool) -> Iterator[Event]:
    """Yield the requests that the answers in `data` belong to."""
    at = 0
    while at + HEADER_SIZE <= len(data):
        if data[at]:
            end = data.find(b"\n", at)
            if end < 0:
                return
            at = end + 1
            continue
        _, number, size = HEADER.unpack_from(data, at)
        body = data[at + HEADER_SIZE : at + HEADER_SIZE + size]
        at += HEADER_SIZE + size
        choices = ASKING.get(number)
        if number == BY_NAME["ERROR"].number:
            choices = [BY_NAME["SUBMIT_JOB"], BY_NAME["GRAB_JOB"]]
        if not choices:
            continue
        if ignored and size % 3 == 0:
            yield OptionReq(b"exceptions")
        packet = choices[size % len(choices)]
        args = [b"1"] * len(packet.args)
        if args and not packet.is_submit:
            args[0] = body if packet.opaque else body.partition(b"\0")[0][:63]
        yield EVENT_CLASSES[packet.number](*args)


def run(
    setup: tuple[Role, bool, bool, bool], data: bytes, step: int, *, in_runs: bool = False
) -> tuple[list[Event], type[RemoteProtocolError] | None]:
    role, asked, text, ignored = setup
    end = Connection(role, max_packet_size=MAX_PACKET_SIZE)
    if text:
        end.send(TextLine(b"workers"))
    if asked:
        for request in requests_for(data, ignored=ignored):
            if isinstance(request, PacketEvent) and request.packet.sender & role:
                end.send(request, request)
    events: list[Event] = []
    # The last chunk is followed by the end of the stream.
    for at in range(0, len(data) + step, step):
        if at < len(data):
            end.receive_data(data[at : at + step])
        else:
            end.receive_eof()
        try:
            while True:
                if in_runs:
                    events += map(JobCreated, *end.next_created())
                    events += [kind(*args) for kind, args in end.requests()]
                if not isinstance(event := end.next_event(), Event):
                    break
                events.append(event)
                if isinstance(event, ConnectionClosed):
                    return events, None
        except RemoteProtocolError as error:
            return events, type(error)
    raise Failure(f"{role!r}: neither an error nor the end after the end of the stream")


def check_bytes(role: Role, data: bytes, events: list[Event]) -> int:
    """Compare the events with their bytes. Return the number of these bytes."""
    at = 0
    for event in events:
        if isinstance(event, (Unanswered, ConnectionClosed)):
            continue
        if isinstance(event, TextLine):
            packed = event.line + event.ending
            original = data[at : at + len(packed)]
        else:
            magic, number, size = HEADER.unpack_from(data, at)
            original = data[at : at + HEADER_SIZE + size]
            if isinstance(event, PacketEvent):
                packed = pack(event.packet, type(event).arguments(event), magic)
                if not event.packet.args:
                    packed = packed[:8] + original[8:]
                if role is Role.SERVER and magic != MAGIC_REQUEST:
                    raise Failure(f"{role!r}: {event!r} came with the magic {magic!r}")
            elif isinstance(event, InvalidRequest) and role is Role.SERVER:
                packet = BY_NUMBER.get(number)
                if magic == MAGIC_REQUEST and packet is not None and packet.receiver & role:
                    raise Failure(f"{role!r}: {packet.name} was refused")
                packed = original
            else:
                raise Failure(f"{role!r}: received {event!r}")
        if packed != original:
            raise Failure(f"{role!r}: {event!r} was {original!r} and became {packed!r}")
        at += len(original)
    return at


def check(data: bytes) -> int:
    """Raise Failure, or an exception of Connection, if the invariant does not hold for `data`.

    Returns:
        The number of events.
    """
    count = 0
    for setup in SETUPS:
        events, error = run(setup, data, max(len(data), 1))
        if (events, error) != (pieces := run(setup, data, 1)):
            raise Failure(f"{setup!r}: whole {(events, error)!r}, byte by byte {pieces!r}")
        if (events, error) != (runs := run(setup, data, 64, in_runs=True)):
            raise Failure(f"{setup!r}: whole {(events, error)!r}, in runs {runs!r}")
        with mock.patch.multiple(connection, _LARGE=8, _FRONT=6):
            large = run(setup, data, 9)
        if (events, error) != large:
            raise Failure(f"{setup!r}: whole {(events, error)!r}, with large payloads {large!r}")
        used = check_bytes(setup[0], data, events)
        if error is None and used != len(data):
            raise Failure(f"{setup!r}: {len(data) - used} bytes left no trace")
        count += len(events)
    return count


# The generator.


def random_packet(rng: random.Random) -> bytes:
    packet = rng.choice(PACKETS)
    count = len(packet.args)
    if rng.random() < 0.1:
        count = rng.randrange(9)
    args = [
        rng.choice([b"", b"1", b"f", b"H:h:1", b"\0", rng.randbytes(rng.randrange(12))])
        for _ in range(count)
    ]
    if not packet.opaque and rng.random() < 0.9:
        args = [value.replace(b"\0", b"") for value in args]
    if packet.name == "ERROR" and args:
        args[0] = rng.choice([b"JOB_NOT_FOUND", b"QUEUE_ERROR", b"not_worker", b"UNKNOWN_OPTION"])
    is_reply = Role.SERVER in packet.sender and rng.random() < 0.9
    magic = MAGIC_RESPONSE if is_reply else MAGIC_REQUEST
    if rng.random() < 0.05:
        magic = rng.choice([MAGIC_REQUEST, MAGIC_RESPONSE, b"\0XYZ", b"\0RE\0"])
    data = pack(packet, tuple(args), magic)
    if rng.random() < 0.05:
        number = rng.choice([packet.number, 0, 5, 43, 2**31, rng.randrange(64)])
        size = rng.choice([len(data) - 12, rng.randrange(64), 4096, 4097, 65537, 2**32 - 1])
        data = HEADER.pack(magic, number, size) + data[HEADER_SIZE:]
    return data


def random_run(rng: random.Random) -> Iterator[bytes]:
    """Yield answers to submits, or requests, mostly of the same size."""
    if rng.random() < 0.5:
        data = rng.choice([b"", b"1", b"\0"])
        for kind in rng.choices(["SUBMIT_JOB", "WORK_COMPLETE", "GRAB_JOB"], k=rng.randrange(2, 9)):
            packet = BY_NAME[kind]
            args = (b"f",) * (len(packet.args) - 1) + (data,) * packet.opaque
            yield pack(packet, args, MAGIC_REQUEST)
        return
    for number in range(rng.randrange(2, 9)):
        handle = b"H:h:%d" % (number + rng.choice([1, 1, 1, 9]))
        yield pack(BY_NAME["JOB_CREATED"], (handle,), MAGIC_RESPONSE)


def random_text(rng: random.Random) -> bytes:
    words = [
        rng.choice([b"status", b"workers", b"f", b"", b"\xff", b"\r", b"\t", b"a\0b"])
        for _ in range(rng.randrange(8))
    ]
    return b" ".join(words) + rng.choice([b"\n", b"\r\n", b""])


def generate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return packets, lines and runs of answers, mostly valid, and some of `seeds`."""
    parts = []
    for _ in range(rng.randrange(1, 6)):
        kind = rng.random()
        if kind < 0.6:
            parts.append(random_packet(rng))
        elif kind < 0.7:
            parts += random_run(rng)
        elif kind < 0.85:
            parts.append(random_text(rng))
        else:
            parts.append(rng.choice(seeds)[:200])
    data = b"".join(parts)
    while rng.random() < 0.3:
        data = mutate(rng, data, seeds)
    return data
