"""A recorded exchange between a job server and its peers, and its file format.

The file contains one JSON object. ``name``, ``description``, ``server`` and ``server_args``
describe its origin. ``notes`` and ``epoch_base`` are optional. ``exchange`` is the list of
elements, in the order of recording. An element has

* ``from``: "client", "worker", "admin" or "server";
* ``conn``: the name of the connection: "client", "client2", "worker" and so on;
* ``hex``: the bytes: from the server one packet, or a text reply or a line of it; from others the
  bytes of one write, as far as the recorder could see;
* ``decoded``: the bytes in readable form;
* ``event``: "close" if the sender has closed the connection;
* ``pause``: the seconds since the previous element, if they are significant.

The elements of one connection have the order of the wire. A server can serve different connections
in any order.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.testing.units import decode

if TYPE_CHECKING:
    import os
    from typing import Self

#: The sender of what a server sends.
SERVER: Final = "server"
# Minimum seconds of a significant pause.
_PAUSE: Final = 0.25
# Commands whose replies are lists, unless the server refuses the command.
_LISTS: Final = frozenset({b"status", b"prioritystatus", b"workers", b"show"})


@dataclass
class Element:
    """An element of an exchange.

    Attributes:
        sender: The sender: "client", "worker", "admin" or "server".
        conn: The name of the connection.
        data: The bytes.
        closes: True if the sender has closed the connection. Then `data` is empty.
        pause: The seconds since the previous element, or 0 if they are insignificant.
        decoded: The bytes in readable form.
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
        """True if the server is the sender."""
        return self.sender == SERVER

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Self:
        """Return the element of a JSON object."""
        return cls(
            item["from"],
            item["conn"],
            bytes.fromhex(item.get("hex", "")),
            item.get("event") == "close",
            item.get("pause", 0.0),
            item.get("decoded", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the element as a JSON object."""
        item: dict[str, Any] = {"from": self.sender, "conn": self.conn, "hex": self.data.hex()}
        if self.closes:
            item["event"] = "close"
        if self.pause:
            item["pause"] = self.pause
        item["decoded"] = self.decoded
        return item


@dataclass
class Recording:
    """A recorded exchange.

    Attributes:
        exchange: The elements, oldest first.
        name: The name of the recording.
        description: The subject of the recording.
        server: The name of the server, and its version.
        server_args: The relevant command line arguments of the server.
        notes: Further remarks.
        epoch_base: The time, in seconds since 1970, at which the first scheduled job was submitted.
            None if there is no such job or the time is unknown.
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
        """Load a recording from a file.

        Raises:
            OSError: The file can't be read.
            ValueError: The file does not contain a recording.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            exchange = [Element.from_json(item) for item in value.pop("exchange")]
            return cls(exchange, **value)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no recording: {error!r}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the recording to a file.

        Raises:
            OSError: The file can't be written.
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
    """Measures the significant pauses between pieces, which a replay repeats."""

    def __init__(self) -> None:
        self._latest: float | None = None

    def next(self) -> float:
        """Return the seconds since the last call, or 0 if they are not a significant pause."""
        before, self._latest = self._latest, time.monotonic()
        pause = 0.0 if before is None else round(self._latest - before, 2)
        return pause if pause >= _PAUSE else 0.0


class Replies:
    """Joins lines of text from the server to complete replies."""

    def __init__(self) -> None:
        #: The commands that the server has not answered completely.
        self.commands: deque[bytes] = deque()
        self._lines = b""

    def put(self, unit: bytes) -> bytes:
        """Add a packet or line. Return a packet, or the reply that the line completes, or b""."""
        if not unit[0] or not self.commands:
            return unit
        self._lines += unit
        return self.end() if is_whole_reply(self.commands[0], self._lines) else b""

    def end(self) -> bytes:
        """Return the lines of an incomplete reply at the end of the stream, or b""."""
        if self._lines:
            self.commands.popleft()
        lines, self._lines = self._lines, b""
        return lines


def is_whole_reply(command: bytes, reply: bytes) -> bool:
    """Return True if `reply` is a complete reply to `command`."""
    words = command.split()
    if words and words[0].lower() in _LISTS and not reply.startswith(b"ERR"):
        return reply == b".\n" or reply.endswith(b"\n.\n")
    return reply.endswith(b"\n")
