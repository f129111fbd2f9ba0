"""Bytes that no correct peer sends, or that look like it, which a parser must survive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from gearman_proto.records import record
from gearman_proto.wire.packets import (
    HEADER,
    HEADER_SIZE,
    LAST_NUMBER,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    Role,
)

from ..packing import pack_event  # noqa: TID252
from .dialogues import streams
from .values import check_role, packets

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy

    from gearman_proto.wire.packets import Event


@record(frozen=True)
class HostileStream:
    """Received bytes that a parser must reject, or at least survive.

    Attributes:
        data: The bytes.
        faults: The faults in the bytes, in words.
        asked: The events that the receiver has sent before. Empty for a server.
    """

    data: bytes
    faults: tuple[str, ...]
    asked: tuple[Event, ...] = ()


# Faults. Each function puts one fault into a packet. Its description is in _FAULTS.


def _torn(draw: DrawFn, packet: bytes) -> bytes:
    return packet[: draw(st.integers(1, len(packet) - 1))]


def _bad_magic(draw: DrawFn, packet: bytes) -> bytes:
    other = MAGIC_REQUEST if packet.startswith(MAGIC_RESPONSE) else MAGIC_RESPONSE
    return draw(st.sampled_from([b"\0REX", b"\0XYZ", b"\0req", b"\0\0\0\0", other])) + packet[4:]


def _resized(packet: bytes, size: int) -> bytes:
    return packet[: HEADER_SIZE - 4] + size.to_bytes(4) + packet[HEADER_SIZE:]


def _near_size(draw: DrawFn, packet: bytes) -> bytes:
    size = len(packet) - HEADER_SIZE
    return _resized(packet, size - 1 if draw(st.booleans()) and size else size + 1)


def _far_size(draw: DrawFn, packet: bytes) -> bytes:
    size = len(packet) - HEADER_SIZE
    return _resized(packet, draw(st.sampled_from([size ^ 2**31, 2**31 - 1, 2**32 - 1])))


def _missing_nul(draw: DrawFn, packet: bytes) -> bytes:
    count = draw(st.integers(1, max(packet.count(b"\0", HEADER_SIZE), 1)))
    body = packet[HEADER_SIZE:].replace(b"\0", b"", count)
    return _resized(packet[:HEADER_SIZE], len(body)) + body


def _added_nul(draw: DrawFn, packet: bytes) -> bytes:
    body = packet[HEADER_SIZE:] + b"\0" + draw(st.binary(max_size=3))
    return _resized(packet[:HEADER_SIZE], len(body)) + body


def _retyped(packet: bytes, number: int) -> bytes:
    magic, _, size = HEADER.unpack_from(packet)
    return HEADER.pack(magic, number, size) + packet[HEADER_SIZE:]


def _unknown_type(draw: DrawFn, packet: bytes) -> bytes:
    numbers = [0, 5, LAST_NUMBER + 1, 2**31, 2**32 - 1]
    return _retyped(packet, draw(st.sampled_from(numbers)))


def _other_type(draw: DrawFn, packet: bytes) -> bytes:
    return _retyped(packet, draw(st.integers(1, LAST_NUMBER)))


def _text_before(draw: DrawFn, packet: bytes) -> bytes:
    lines = [b"\n", b"status\r\n", b"1 2 3 4 5 6\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\n"]
    return draw(st.sampled_from([*lines, b"no end", b"x" * 9000])) + packet


def _bytes_before(draw: DrawFn, packet: bytes) -> bytes:
    return draw(st.binary(min_size=1, max_size=20)) + packet


def _changed_bit(draw: DrawFn, packet: bytes) -> bytes:
    at = draw(st.integers(0, len(packet) - 1))
    return packet[:at] + bytes([packet[at] ^ 1 << draw(st.integers(0, 7))]) + packet[at + 1 :]


_FAULTS: Final[dict[str, Callable[[DrawFn, bytes], bytes]]] = {
    "a packet without its end": _torn,
    "a magic that is none, or the other side's": _bad_magic,
    "a size that is wrong by one": _near_size,
    "a size that is wrong by 2**31 or so": _far_size,
    "a NUL, or more, too few": _missing_nul,
    "a NUL too many, or a body where none belongs": _added_nul,
    "a type that is not known": _unknown_type,
    "another type": _other_type,
    "text between packets": _text_before,
    "bytes between packets": _bytes_before,
    "a bit that is not as it was": _changed_bit,
}


@st.composite
def _hostile(draw: DrawFn, role: Role) -> HostileStream:
    stream = draw(streams(role))
    magic = MAGIC_REQUEST if role is Role.SERVER else MAGIC_RESPONSE
    pieces = [pack_event(event, magic) for event in stream.events]
    places = [at for at, piece in enumerate(pieces) if piece.startswith(magic)]
    if not places:
        places = [len(pieces)]
        pieces.append(pack_event(draw(packets(role)), magic))
    chosen = draw(st.lists(st.sampled_from(places), min_size=1, max_size=2, unique=True))
    faults = {at: draw(st.sampled_from(list(_FAULTS))) for at in chosen}
    for at, fault in faults.items():
        pieces[at] = _FAULTS[fault](draw, pieces[at])
    if draw(st.booleans()):
        # Drop the following packets, which a parser could take for the rest of this one.
        del pieces[max(faults) + 1 :]
    return HostileStream(b"".join(pieces), tuple(faults.values()), stream.asked)


def hostile_streams(role: Role) -> SearchStrategy[HostileStream]:
    """Streams that `role` can receive from a broken or malicious peer.

    Each stream is one of `streams` with faults in one or two packets: a missing end, an invalid
    magic, a size that is off by one or by 2**31, too few or too many NULs, a packet type that is
    unknown or not for this role, text or other bytes between packets, a flipped bit. Some streams
    are valid all the same, such as a line of text to a server. The simplest stream is the first
    byte of a packet.

    Args:
        role: The role of the receiver.

    Raises:
        TypeError: `role` is not a Role.
    """
    return _hostile(check_role(role))


_PIECES: Final = (
    *(b"\n", b"\r\n", b".\n", b"\n.\n", b"\t", b" ", b" :", b" : ", b"OK", b"OK ", b"OK\r\n"),
    *(b"OK 7\n", b"ERR", b"ERR ", b"ERR NO\r\n", b"UNKNOWN_COMMAND", b"+%41", b"f", b"7"),
    *(b"f\t1\t2\t3\n", b"f\t1\t2\t3\t4\n", b"4 ::1 - :\n", b"4 ::1 a b : f g\n"),
    *(b"H:h:1\t0\t1\t0\n", b"\0", b"\xff", b"\0RES", b"\0RES\0\0\0\x06\0\0\0\0"),
)


def hostile_replies() -> SearchStrategy[bytes]:
    """Bytes that can replace a reply to any text command: parts of replies, packets, random bytes.

    The simplest one is empty.
    """
    pieces = st.sampled_from(_PIECES) | st.binary(max_size=20)
    return st.lists(pieces, max_size=25).map(b"".join)
