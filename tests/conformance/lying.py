"""Lies: changes to the packets of a connection, which make a case fail.

Each case must fail with a small change, because a suite that cannot fail judges nothing. A lie
applies to packets of one type: ">NOOP" selects NOOP packets to the server, "<NOOP" those from it.
"TEXT" in place of a type selects lines. "<END" selects the end of a connection that the server
closes or refuses: the lie hides the end, and only the lie's bytes pass. ">" alone selects packets
of unknown types, and ">LOST" selects data that does not begin like a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from gearman_proto.testing.packing import pack
from gearman_proto.testing.units import packet_of
from gearman_proto.wire.packets import BY_NAME, HEADER_SIZE, MAGIC_REQUEST, MAGIC_RESPONSE

#: A function from the arguments of a packet to the bytes that pass in its place.
Change: TypeAlias = Callable[[list[bytes]], bytes]

#: More packets than any case has.
MANY: Final = 1_000_000
#: Closes the connection in place of passing bytes.
CLOSE: Final = b"close"


@dataclass
class Lie:
    """A change to the packets of one type, or to lines of text.

    Attributes:
        name: The direction and the type.
        change: Called with the arguments of the packet (or with the line). Returns the bytes that
            pass, or `CLOSE`.
        first: Number of packets that pass unchanged first, in each connection.
        last: Number of packets to change after that.
        since: Number of connections with such packets to leave unchanged first.
        least: The size in bytes of the smallest packet to change.
        connection: The connection of the current packet.
    """

    name: str
    change: Change
    first: int = 0
    last: int = MANY
    since: int = 0
    least: int = 0
    connection: int = 0
    seen: dict[int, int] = field(default_factory=dict)


#: One lie, or several at once. A lie that counts packets is made anew by a function.
Lies: TypeAlias = "Lie | tuple[Lie, ...] | Callable[[], list[Lie]]"


def fresh(lies: Lies) -> list[Lie]:
    """Return lies that have seen no packet."""
    if isinstance(lies, Lie):
        lies = (lies,)
    return [replace(each, seen={}) for each in lies] if isinstance(lies, tuple) else lies()


def packet(name: str, *args: bytes) -> bytes:
    """Return a packet of a direction and type."""
    magic = MAGIC_REQUEST if name[0] == ">" else MAGIC_RESPONSE
    return pack(BY_NAME[name[1:]], args, magic)


def drop(name: str, *, first: int = 0, last: int = MANY) -> Lie:
    """Drop the packets."""
    return Lie(name, lambda args: b"", first, last)


def close(name: str, *, first: int = 0) -> Lie:
    """Close the connection in place of passing the packets."""
    return Lie(name, lambda args: CLOSE, first)


def twice(name: str, *, first: int = 0, last: int = MANY) -> Lie:
    """Send each packet twice."""
    return Lie(name, lambda args: _unit(name, args) * 2, first, last)


def field_of(
    name: str,
    number: int,
    value: bytes | Callable[[bytes], bytes],
    *,
    first: int = 0,
    last: int = MANY,
) -> Lie:
    """Replace one argument of the packets."""

    def change(args: list[bytes]) -> bytes:
        args[number] = value if isinstance(value, bytes) else value(args[number])
        return packet(name, *args)

    return Lie(name, change, first, last)


def becomes(name: str, *replacement: bytes, first: int = 0, last: int = MANY) -> Lie:
    """Replace the packets by these bytes."""
    return Lie(name, lambda args: b"".join(replacement), first, last)


def before(name: str, *data: bytes, first: int = 0, last: int = MANY) -> Lie:
    """Insert these bytes before each packet."""
    return Lie(name, lambda args: b"".join(data) + _unit(name, args), first, last)


def after(name: str, *data: bytes, first: int = 0, last: int = MANY) -> Lie:
    """Insert these bytes after each packet."""
    return Lie(name, lambda args: _unit(name, args) + b"".join(data), first, last)


def stuck(name: str, number: int) -> Lie:
    """Repeat the first packet's value of an argument in all packets."""
    first: list[bytes] = []

    def value(arg: bytes) -> bytes:
        first.append(arg)
        return first[0]

    return field_of(name, number, value)


def stale(name: str, number: int) -> Lie:
    """Replace an argument by that of the packet before."""
    earlier: list[bytes] = []

    def value(arg: bytes) -> bytes:
        earlier.append(arg)
        return earlier[-2:][0]

    return field_of(name, number, value)


def late(name: str, behind: str) -> list[Lie]:
    """Delay each packet until after the next packet of another type, or of its own."""
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


def as_kind(name: str, other: str) -> Lie:
    """Change the packets' type to one with at least as many arguments; fill up with empty ones."""
    count = len(BY_NAME[other[1:]].args)
    return Lie(name, lambda args: packet(other, *(args + [b""] * count)[:count]))


def until_nul(data: bytes) -> bytes:
    """Return the data up to the first NUL, as a C string."""
    return data.split(b"\0")[0]


def later(lie: Lie, since: int = 1) -> Lie:
    """Apply the lie to later connections only."""
    return replace(lie, since=since)


def told(lies: Sequence[Lie], unit: bytes, way: str, connection: int, odd: str = "") -> bytes:
    """Return the bytes that pass in place of a packet or line."""
    kind = None if odd else packet_of(unit)
    name = way + (odd or ("TEXT" if unit[0] else kind.name if kind else ""))
    for lie in lies:
        if lie.name != name or len(unit) < lie.least:
            continue
        lie.connection = connection
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
