"""The worlds of the engines' own tests, looked at when they are told to be.

There they look at the whole engine in each call, which would take most of a fuzzer's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.testing import pack
from gearman_proto.wire.packets import MAGIC_RESPONSE
from tests.engines import harness, server_harness, worker_harness

if TYPE_CHECKING:
    from gearman_proto.wire.events import PacketEvent


class ClientWorld(harness.World):
    """A client's."""

    def check(self) -> None: ...

    def look(self) -> None:
        """Look at the whole engine."""
        super().check()


class WorkerWorld(worker_harness.World):
    """A worker's."""

    def check(self) -> None: ...

    def look(self) -> None:
        """Look at the whole engine."""
        super().check()


class ServerWorld(server_harness.World):
    """A job server's."""

    def check(self) -> None: ...

    def look(self) -> None:
        """Look at the whole engine."""
        super().check()


def packed(event: PacketEvent, magic: bytes = MAGIC_RESPONSE) -> bytes:
    """The packet as a server sends it (or, with a request's magic, others), in order or not."""
    return pack(event.packet, type(event).arguments(event), magic)
