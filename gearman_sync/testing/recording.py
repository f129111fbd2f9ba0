"""An exchange between a job server and its clients, workers and admins, as a file keeps it.

The file is JSON, one object: ``name``, ``description``, ``server`` and ``server_args`` say where it
comes from, ``notes`` and ``epoch_base`` are there where they are needed, and ``exchange`` is the
list of its elements, in the order in which the recorder saw them. An element has

* ``from``: "client", "worker", "admin" or "server";
* ``conn``: the name of the connection: "client", "client2", "worker" and so on;
* ``hex``: the bytes: from the server a packet or a whole reply of text, from the others what was
  written at once, as far as the recorder could see;
* ``decoded``: the same for reading;
* ``event``: "close" where that side has closed;
* ``pause``: how many seconds had passed, where they were more than a moment.

Within a connection the order is that of the wire. A server may serve two connections in any order.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.wire.packets import (
    BY_NUMBER,
    HEADER,
    HEADER_SIZE,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
)

if TYPE_CHECKING:
    import os
    from typing import Self

    from gearman_proto.wire.packets import PacketType

#: The sender of what a server sends.
SERVER: Final = "server"
# Seconds that are more than a moment.
_PAUSE: Final = 0.25
# Bytes of a packet's body that are not all shown, and how many of them are.
_LONG: Final = 200
_FRONT: Final = 60
# The commands whose replies are lists, but for those that are refused.
_LISTS: Final = frozenset({b"status", b"prioritystatus", b"workers", b"show"})


@dataclass
class Element:
    """A part of an exchange.

    Attributes:
        sender: Whose it is: "client", "worker", "admin" or "server".
        conn: The name of the connection.
        data: The bytes.
        closes: Whether the sender has closed the connection; then there are no bytes.
        pause: Seconds that had passed before, where that means something.
        decoded: The bytes for reading.
    """

    sender: str
    conn: str
    data: bytes = b""
    closes: bool = False
    pause: float = 0.0
    decoded: str = ""

    def __post_init__(self) -> None:
        self.decoded = self.decoded or decode(self.data)

    @property
    def of_server(self) -> bool:
        """Whether the server has sent it."""
        return self.sender == SERVER

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Self:
        """Return what an object of a file says."""
        return cls(
            item["from"],
            item["conn"],
            bytes.fromhex(item.get("hex", "")),
            item.get("event") == "close",
            item.get("pause", 0.0),
            item.get("decoded", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return an object for a file."""
        item: dict[str, Any] = {"from": self.sender, "conn": self.conn, "hex": self.data.hex()}
        if self.closes:
            item["event"] = "close"
        if self.pause:
            item["pause"] = self.pause
        item["decoded"] = self.decoded
        return item


@dataclass
class Recording:
    """An exchange.

    Attributes:
        exchange: Its elements, oldest first.
        name: What it is called.
        description: What it shows.
        server: The server, and its version.
        server_args: What the server was started with, where that matters.
        notes: What else has to be known.
        epoch_base: The second, since 1970, at which the first job for later was submitted. None:
            there is none, or it is not known.
    """

    exchange: list[Element]
    name: str = ""
    description: str = ""
    server: str = ""
    server_args: list[str] = field(default_factory=list)
    notes: str = ""
    epoch_base: int | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return what a file says.

        Raises:
            OSError: It can't be read.
            ValueError: It is not such a file.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            exchange = [Element.from_json(item) for item in value.pop("exchange")]
            return cls(exchange, **value)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no recording: {error!r}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file.

        Raises:
            OSError: It can't be written.
        """
        value: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "server": self.server,
            "server_args": self.server_args,
        }
        if self.notes:
            value["notes"] = self.notes
        if self.epoch_base is not None:
            value["epoch_base"] = self.epoch_base
        value["exchange"] = [element.to_json() for element in self.exchange]
        Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    @property
    def connections(self) -> list[str]:
        """The names of the connections, in the order of their first elements."""
        return list(dict.fromkeys(element.conn for element in self.exchange))


class Pauses:
    """Tells the pauses between what passes, which a replay has to make as well."""

    def __init__(self) -> None:
        self._latest: float | None = None

    def next(self) -> float:
        """Return how many seconds have passed since the last call, if that is a pause; else 0."""
        before, self._latest = self._latest, time.monotonic()
        pause = 0.0 if before is None else round(self._latest - before, 2)
        return pause if pause >= _PAUSE else 0.0


class Cutter:
    """Cuts one direction of a connection into packets and lines of text."""

    def __init__(self) -> None:
        #: What is not complete.
        self.rest: bytes = b""
        #: Whether that will never be complete, since it is no packet.
        self.lost: bool = False

    def cut(self, data: bytes) -> list[bytes]:
        """Return the packets and lines that are complete with these bytes."""
        self.rest += data
        units: list[bytes] = []
        while (size := self._size()) and size <= len(self.rest):
            units.append(self.rest[:size])
            self.rest = self.rest[size:]
        return units

    def take(self, data: bytes) -> list[bytes]:
        """The same, where no data is the end, and what will never be complete is one, too."""
        units = self.cut(data)
        if self.rest and (self.lost or not data):
            units.append(self.rest)
            self.rest = b""
        return units

    def _size(self) -> int:
        """How long the first unit is. 0: that is not known."""
        if self.lost or not self.rest:
            return 0
        if self.rest[0]:
            return self.rest.find(b"\n") + 1
        if not any(magic.startswith(self.rest[:4]) for magic in (MAGIC_REQUEST, MAGIC_RESPONSE)):
            self.lost = True
            return 0
        if len(self.rest) < HEADER_SIZE:
            return 0
        return HEADER_SIZE + int(HEADER.unpack_from(self.rest)[2])


def packet_of(unit: bytes) -> PacketType | None:
    """Return what packet it is. None: text, or no packet that is known."""
    if unit[:1] != b"\0" or len(unit) < HEADER_SIZE:
        return None
    return BY_NUMBER.get(HEADER.unpack_from(unit)[1])


class Replies:
    """Puts together the lines of what a server sends."""

    def __init__(self) -> None:
        #: The commands that are not answered yet.
        self.commands: deque[bytes] = deque()
        self._lines = b""

    def put(self, unit: bytes) -> bytes:
        """Return a packet, or a whole reply, if it is one with this line. Else nothing."""
        if not unit[0] or not self.commands:
            return unit
        self._lines += unit
        return self.end() if is_whole_reply(self.commands[0], self._lines) else b""

    def end(self) -> bytes:
        """Return the lines of a reply of which no more will come, if there are any."""
        if self._lines:
            self.commands.popleft()
        lines, self._lines = self._lines, b""
        return lines


def decode(data: bytes) -> str:
    """Bytes for reading: packets by their names, and lines of text."""
    cutter = Cutter()
    parts = []
    for unit in cutter.cut(data):
        if unit[0]:
            parts.append(f"TEXT {_shown(unit)}")
            continue
        magic, number, _ = HEADER.unpack_from(unit)
        name = BY_NUMBER[number].name if number in BY_NUMBER else str(number)
        parts.append(f"{magic[1:].decode()} {name} {_shown(unit[HEADER_SIZE:])}")
    if cutter.rest:
        parts.append(f"PARTIAL {cutter.rest.hex()}")
    return "; ".join(parts)


def _shown(data: bytes) -> str:
    if len(data) > _LONG:
        return f"{repr(data[:_FRONT])[1:]}...({len(data)} bytes)"
    return repr(data)[1:]


def is_whole_reply(command: bytes, reply: bytes) -> bool:
    """Whether these lines are all that a server says to a command."""
    words = command.split()
    if words and words[0].lower() in _LISTS and not reply.startswith(b"ERR"):
        return reply == b".\n" or reply.endswith(b"\n.\n")
    return reply.endswith(b"\n")
