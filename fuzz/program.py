"""The bytes of an input as a program. Each byte chooses a step, or an argument of a step.

A fuzzer that cuts, repeats and swaps bytes therefore cuts, repeats and swaps steps. Any bytes are a
valid program. If they end in the middle of a step, zeros follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from gearman_proto.wire.packets import EVENT_CLASSES, PACKETS, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.wire.packets import PacketEvent, PacketType

T = TypeVar("T")

# A smaller byte is an index into a pool. This byte and larger ones are followed by (byte - _OWN)
# literal bytes.
_OWN: Final = 240


_PAYLOADS: Final = (b"", b"x", b"y" * 100)
_NUMBERS: Final = (b"0", b"1", b"2", b"", b"-1", b"500", b"9" * 25)
_POOLS: Final[dict[str, Sequence[bytes]]] = {
    "function": (b"f", b"g", b"", b"f" * 70),
    "unique": (b"", b"u", b"v", b"-", b"w" * 64),
    "reducer": (b"", b"reducer"),
    "epoch": (b"0", b"1700000001", b"1700000100", b"-1", b"9" * 25),
    "data": _PAYLOADS,
    "reason": _PAYLOADS,
    "client_id": (b"id", b"", b"two words"),
    "option": (b"exceptions", b"other"),
    "code": (b"QUEUE_ERROR", b"JOB_NOT_FOUND", b"UNKNOWN_OPTION", b"not_worker", b"X"),
    "text": (b"", b"some+text", b"NUL\0"),
}
#: The packets for a server, and those from a server.
TO_SERVER: Final = [packet for packet in PACKETS if Role.SERVER in packet.receiver]
FROM_SERVER: Final = [packet for packet in PACKETS if Role.SERVER in packet.sender]
#: Durations and timeouts, in seconds.
SECONDS: Final = (0.0, 0.01, 0.3, 1.0, 4.0, 11.0, 35.0, 400.0)


class Program:
    """The rest of a program."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """Return the next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, count: int) -> int:
        """Return a number from 0 to `count` - 1."""
        return self.byte() % count

    def flag(self) -> bool:
        """Return True or False."""
        return self.byte() % 2 == 1

    def pick(self, items: Sequence[T]) -> T:
        """Return one of `items`, which must not be empty."""
        return items[self.byte() % len(items)]

    def some(self, items: Sequence[T], most: int) -> list[T]:
        """Return up to `most` of `items`, possibly with repetitions."""
        count = self.byte() % (most + 1) if items else 0
        return [self.pick(items) for _ in range(count)]

    def raw(self, size: int) -> bytes:
        """Return the next bytes unchanged."""
        self._at += size
        return self._data[self._at - size : self._at]

    def value(self, pool: Sequence[bytes]) -> bytes:
        """Return one of `pool`, or up to 15 literal bytes."""
        byte = self.byte()
        return pool[byte % len(pool)] if byte < _OWN else self.raw(byte - _OWN)

    def event(self, kinds: Sequence[PacketType], handles: Sequence[bytes]) -> PacketEvent:
        """Return a packet of one of `kinds`, with one of `handles` if it has a handle."""
        packet = self.pick(kinds)
        args: list[bytes] = []
        for name in packet.args:
            value = self.value(handles if name == "handle" else _POOLS.get(name, _NUMBERS))
            is_last = len(args) == len(packet.args) - 1
            args.append(value if packet.opaque and is_last else value.replace(b"\0", b""))
        return EVENT_CLASSES[packet.number](*args)

    def pieces(self, data: bytes) -> list[bytes]:
        """Return `data` whole, or in a moderate number of pieces."""
        size = max(self.pick([len(data), len(data), 1, 7]), len(data) // 40, 1)
        return [data[at : at + size] for at in range(0, len(data), size)]
