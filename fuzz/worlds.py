"""The worlds of the engines' own tests, looked at when they are told to be.

There they look at the whole engine in each call, which would take most of a fuzzer's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.testing import pack
from gearman_proto.wire.packets import MAGIC_RESPONSE
from tests.engines import admin_harness, harness, server_harness, worker_harness

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PacketEvent


class _Told:
    """It looks at the whole engine when it is told to."""

    def check(self) -> None: ...

    def look(self) -> None:
        """Look at the whole engine."""
        super().check()  # type: ignore[misc]


class ClientWorld(_Told, harness.World):
    """A client's."""


class WorkerWorld(_Told, worker_harness.World):
    """A worker's."""


class ServerWorld(_Told, server_harness.World):
    """A job server's."""


class AdminWorld(admin_harness.World):
    """An admin client's, which is so small that it is looked at in each call, too."""

    def look(self) -> None:
        """Look at the whole engine."""
        self.check()


def packed(event: PacketEvent, magic: bytes = MAGIC_RESPONSE) -> bytes:
    """The packet as a server sends it (or, with a request's magic, others), in order or not."""
    return pack(event.packet, type(event).arguments(event), magic)
