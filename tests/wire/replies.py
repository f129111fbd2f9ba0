"""A parser of replies, for the properties in gearman_proto.testing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto.testing import ConnectionParser
from gearman_proto.wire.packets import Role, TextLine
from gearman_proto.wire.text import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.wire.text import Command


class Replies:
    """A parser that yields the value of the reply to `command`, or a packet in its place."""

    def __init__(self, command: Command[Any], max_size: int = 10**6) -> None:
        self._parser = ConnectionParser(Role.CLIENT, [command.event])
        self._reply = Reply(command, max_size)
        self._done = False

    def receive(self, data: bytes) -> Iterator[Any]:
        for event in () if self._done else self._parser.receive(data):
            self._done = not isinstance(event, TextLine) or self._reply.receive_line(event)
            if self._done:
                yield self._reply.value() if isinstance(event, TextLine) else event
                return
