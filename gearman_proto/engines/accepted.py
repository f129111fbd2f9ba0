"""A job server's life, and the connections that it has accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .base import Link
from .states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.wire.connection import Connection

    from .base import LinkState
    from .jobqueue import Function, QueuedJob
    from .states import StateTable


class ServerLife(State):
    """What the server is doing."""

    SERVING = "it takes connections"
    DRAINING = "no new connections; the jobs go on until there is none"
    ENDING = "what is to be sent is sent"
    ENDED = "it is over for good"


# Looking members up in the class takes long before Python 3.12.
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
    """A connection that was accepted."""

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
        #: The address of the other end, and the adapter's number for it, for the list of workers.
        self.peer: str = peer
        self.number: int = number
        self.client_id: bytes = b"-"
        #: True if it is to get WORK_EXCEPTION.
        self.exceptions: bool = False
        #: Packets to send, and their total size in bytes.
        self.unsent: list[bytes | memoryview] = []
        self.unsent_size: int = 0
        #: Bytes that the transport has, until it asks for more; few are not counted.
        self.writing: int = 0
        #: Bytes of an unfinished packet, and of those that were not looked at yet.
        self.buffered: int = 0
        #: What is being done for it, a piece in each of its turns, before its next packet is looked
        #: at: the reply to a command, or its end. It yields what each piece has cost.
        self.work: Iterator[int] | None = None
        #: Bytes that the list takes up which is being sent to it.
        self.listed: int = 0
        #: Bytes that its registrations take up.
        self.registered: int = 0
        #: The foreground jobs that it waits for, as a client.
        self.listening: dict[QueuedJob, None] = {}
        #: What it has registered for, as a worker, with the seconds that a job may take; 0 is any.
        self.abilities: dict[Function, float] = {}
        #: Those of them that may have jobs to give out, each that has and some that had.
        self.ready: dict[Function, None] = {}
        #: True from PRE_SLEEP until it is woken.
        self.asleep: bool = False
        #: The jobs that it has, by handle.
        self.jobs: dict[bytes, QueuedJob] = {}
        #: The handles of jobs that were taken away from it, latest last.
        self.former: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<ServerLink {self.number} from {self.peer}>"

    @property
    def held(self) -> int:
        """Bytes in packets, lists and registrations that are kept for it."""
        return self.buffered + self.listed + self.unsent_size + self.writing + self.registered
