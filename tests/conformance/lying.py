"""Lies: changes to the packets of a connection, which make a case fail.

Each case is shown to fail with the smallest change that makes it fail, because a suite that can't
fail judges nothing. A lie is about packets of one type: ">NOOP" are those to the server, "<NOOP"
those from it. "TEXT" in place of a type means lines. "<END" means that the server closes the
connection or refuses it: the lie hides that, and only its bytes pass. ">" alone are packets of
unknown types, and ">LOST" is data that begins like no packet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from gearman_proto.testing.packing import pack
from gearman_proto.testing.units import packet_of
from gearman_proto.wire.packets import BY_NAME, HEADER_SIZE, MAGIC_REQUEST, MAGIC_RESPONSE

#: Gets the arguments of a packet, and returns what passes in its place.
Change: TypeAlias = Callable[[list[bytes]], bytes]

#: So many that no case has more.
MANY: Final = 1_000_000
#: What closes the connection in place of passing something.
CLOSE: Final = b"close"


@dataclass
class Lie:
    """What is done with the packets of one type, or with lines of text.

    Attributes:
        name: The direction and the type.
        change: Gets the arguments of the packet (of a line: the line), and returns the bytes that
            pass, or `CLOSE`.
        first: How many of them pass as they are before, in each connection.
        last: How many are changed then.
        since: How many of the connections that have such packets are left as they are before.
    """

    name: str
    change: Change
    first: int = 0
    last: int = MANY
    since: int = 0
    seen: dict[int, int] = field(default_factory=dict)


def packet(name: str, *args: bytes) -> bytes:
    """Return a packet of a direction and type."""
    magic = MAGIC_REQUEST if name[0] == ">" else MAGIC_RESPONSE
    return pack(BY_NAME[name[1:]], args, magic)


def drop(name: str, *, first: int = 0, last: int = MANY) -> Lie:
    """They do not pass."""
    return Lie(name, lambda args: b"", first, last)


def close(name: str, *, first: int = 0) -> Lie:
    """The connection is closed in their place."""
    return Lie(name, lambda args: CLOSE, first)


def twice(name: str, *, first: int = 0, last: int = MANY) -> Lie:
    """They pass twice."""
    return Lie(name, lambda args: _unit(name, args) * 2, first, last)


def field_of(
    name: str,
    number: int,
    value: bytes | Callable[[bytes], bytes],
    *,
    first: int = 0,
    last: int = MANY,
) -> Lie:
    """One of their arguments is another."""

    def change(args: list[bytes]) -> bytes:
        args[number] = value if isinstance(value, bytes) else value(args[number])
        return packet(name, *args)

    return Lie(name, change, first, last)


def becomes(name: str, *replacement: bytes, first: int = 0, last: int = MANY) -> Lie:
    """These bytes pass in their place."""
    return Lie(name, lambda args: b"".join(replacement), first, last)


def before(name: str, *data: bytes, first: int = 0, last: int = MANY) -> Lie:
    """These bytes pass before them."""
    return Lie(name, lambda args: b"".join(data) + _unit(name, args), first, last)


def after(name: str, *data: bytes, first: int = 0, last: int = MANY) -> Lie:
    """These bytes pass behind them."""
    return Lie(name, lambda args: _unit(name, args) + b"".join(data), first, last)


def as_kind(name: str, other: str) -> Lie:
    """They pass as packets of another type that has the same arguments."""
    return Lie(name, lambda args: packet(other, *args))


def stuck(name: str, number: int) -> Lie:
    """One of their arguments is always what it was in the first one."""
    first: list[bytes] = []

    def value(arg: bytes) -> bytes:
        first.append(arg)
        return first[0]

    return field_of(name, number, value)


def late(name: str, behind: str) -> list[Lie]:
    """Each passes behind the next packet of another type, or of its own."""
    held: list[bytes] = []

    def keep(args: list[bytes]) -> bytes:
        held.append(_unit(name, args))
        return b""

    def pass_all(args: list[bytes]) -> bytes:
        units = _unit(behind, args) + b"".join(held)
        held.clear()
        return units

    def swap(args: list[bytes]) -> bytes:
        return pass_all(args) if held else keep(args)

    return [Lie(name, swap)] if name == behind else [Lie(name, keep), Lie(behind, pass_all)]


def _unit(name: str, args: list[bytes]) -> bytes:
    return args[0] if name[1:] == "TEXT" else packet(name, *args)


def typed(name: str, other: str) -> Lie:
    """They are of another type, which has as many arguments at least: those to come are empty."""
    count = len(BY_NAME[other[1:]].args)
    return Lie(name, lambda args: packet(other, *(args + [b""] * count)[:count]))


def later(lie: Lie, since: int = 1) -> Lie:
    """It is told in later connections only."""
    lie.since = since
    return lie


def told(lies: Sequence[Lie], unit: bytes, way: str, connection: int, odd: str = "") -> bytes:
    """Return what passes in place of a packet or line."""
    kind = None if odd else packet_of(unit)
    name = way + (odd or ("TEXT" if unit[0] else kind.name if kind else ""))
    for lie in lies:
        if lie.name != name:
            continue
        seen = lie.seen[connection] = lie.seen.get(connection, 0) + 1
        if list(lie.seen).index(connection) < lie.since:
            continue
        if lie.first < seen <= lie.first + lie.last:
            if kind is None:
                return lie.change([unit])
            count = len(kind.args)
            args = unit[HEADER_SIZE:].split(b"\0", count - 1) if count else []
            return lie.change(args)
    return unit
