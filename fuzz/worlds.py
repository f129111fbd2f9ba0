"""The worlds of the engines' own tests, with consistency checks on demand.

The tests' own worlds check the whole engine in each call, which would be too slow for a fuzzer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.testing import pack
from gearman_proto.wire.packets import MAGIC_RESPONSE
from tests.engines import admin_harness, harness, server_harness, worker_harness

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PacketEvent


class _Told:
    """A mixin that checks the engine only on demand."""

    def check(self) -> None: ...

    def look(self) -> None:
        """Check the whole engine."""
        super().check()  # type: ignore[misc]


class ClientWorld(_Told, harness.World):
    """A client's world."""


class WorkerWorld(_Told, worker_harness.World):
    """A worker's world."""


class ServerWorld(_Told, server_harness.World):
    """A job server's world."""


class AdminWorld(admin_harness.World):
    """An admin client's world. The engine is small enough to be checked in each call."""

    def look(self) -> None:
        """Check the whole engine."""
        self.check()


def packed(event: PacketEvent, magic: bytes = MAGIC_RESPONSE) -> bytes:
    """Return a packet as a server sends it.

    With the magic of requests, return it as another peer sends it.
    """
    return pack(event.packet, type(event).arguments(event), magic)
