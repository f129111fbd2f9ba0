"""The states of a job server, and the links of its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.engines.base import Link
from gearman_proto.engines.states import State

from .jobqueue import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.engines.base import LinkState
    from gearman_proto.engines.states import StateTable
    from gearman_proto.wire.connection import Connection

    from .jobqueue import Function, QueuedJob


class ServerLife(State):
    """State of a server."""

    SERVING = "accepts connections"
    DRAINING = "accepts no connections, and finishes all jobs"
    ENDING = "sends the remaining output"
    ENDED = "has ended, and can't be used again"


# Enum attribute lookup is slow before Python 3.12.
SERVING: Final = ServerLife.SERVING

SERVER_LIVES: Final[StateTable[ServerLife]] = {
    ServerLife.SERVING: {
        ServerLife.DRAINING: "shutdown graceful",
        ServerLife.ENDING: "shutdown",
        ServerLife.ENDED: "close",
    },
    ServerLife.DRAINING: {
        ServerLife.DRAINING: "shutdown graceful",
        ServerLife.ENDING: "no job is left, shutdown",
        ServerLife.ENDED: "no link is left, close",
    },
    ServerLife.ENDING: {ServerLife.ENDED: "no link is left, close"},
    ServerLife.ENDED: {ServerLife.ENDED: "close"},
}


class ServerLink(Link):
    """A connection that the server has accepted."""

    __slots__ = (
        "abilities",
        "asleep",
        "buffered",
        "client_id",
        "exceptions",
        "former",
        "jobs",
        "listed",
        "listening",
        "number",
        "peer",
        "ready",
        "registered",
        "unsent",
        "unsent_size",
        "work",
        "writing",
    )

    def __init__(self, connection: Connection, peer: str, number: int, state: LinkState) -> None:
        super().__init__(connection, state)
        #: The peer's address, for the list of workers.
        self.peer: str = peer
        #: The adapter's number of the connection, for the list of workers.
        self.number: int = number
        self.client_id: bytes = b"-"
        #: True to send WORK_EXCEPTION to this peer.
        self.exceptions: bool = False
        #: Outgoing packets.
        self.unsent: list[bytes | memoryview] = []
        #: Total size of `unsent`, in bytes.
        self.unsent_size: int = 0
        #: Size of the transport's current write, in bytes; 0 for a small one.
        self.writing: int = 0
        #: Received bytes that are not processed yet.
        self.buffered: int = 0
        #: Work to finish before the next packet is processed: a long reply, or the cleanup of the
        #: link. Each step yields its cost.
        self.work: Iterator[int] | None = None
        #: Bytes used by the list that is being sent.
        self.listed: int = 0
        #: Bytes used by registrations.
        self.registered: int = 0
        #: The foreground jobs that the peer waits for as a client.
        self.listening: dict[QueuedJob, None] = {}
        #: The peer's functions as a worker, each with the time limit of a job in seconds (0 means
        #: unlimited).
        self.abilities: dict[Function, float] = {}
        #: For each priority, the functions in `abilities` that might have queued jobs: all that do,
        #: and some that did.
        self.ready: tuple[dict[Function, None], ...] = tuple({} for _ in PRIORITIES)
        #: True from PRE_SLEEP until the worker is woken.
        self.asleep: bool = False
        #: The jobs that the worker runs, by handle.
        self.jobs: dict[bytes, QueuedJob] = {}
        #: Handles of former jobs that the worker might still send packets about, the latest last.
        self.former: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<ServerLink {self.number} from {self.peer}>"

    @property
    def held(self) -> int:
        """Bytes used by the link's packets, lists, and registrations."""
        return self.buffered + self.listed + self.unsent_size + self.writing + self.registered
