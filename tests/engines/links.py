"""Shared parts of the test worlds: the remote ends of links, and the execution of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gearman_proto.engines.base import Close, Connect
from gearman_proto.errors import ConnectionError, LocalProtocolError
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto.engines.waits import Wait


def raise_refusal(wait: Wait) -> None:
    """Raise the reason if the engine has refused the call."""
    if wait.done and isinstance(wait.error, (LocalProtocolError, ConnectionError)):
        wait.raise_error()


class Peer:
    """The remote end of one link."""

    world: Any
    link: Any

    def __init__(self, world: Any, link: Any, role: Role) -> None:
        self.world = world
        self.link = link
        self.connection = Connection(role)
        #: True once the engine or the peer has closed the link.
        self.closed = False

    def send_raw(self, data: bytes) -> None:
        """Send arbitrary bytes, split into chunks of the world's size."""
        size = self.world.chunk or len(data) or 1
        for at in range(0, len(data), size):
            self.world.call(
                self.world.engine.receive_data, self.link, data[at : at + size], self.world.now
            )


class Server(Peer):
    """The server's end of a link that an engine has requested."""

    def __init__(self, world: Any, link: Any, timeout: float) -> None:
        super().__init__(world, link, Role.SERVER)
        self.timeout = timeout

    @property
    def host(self) -> str:
        host: str = self.link.address.host
        return host

    def up(self) -> Self:
        """Open the connection."""
        self.world.call(self.world.engine.connected, self.link, self.world.now)
        return self

    def refuse(self, error: Exception | None = None) -> None:
        """Refuse the connection."""
        error = error or ConnectionRefusedError("refused")
        self.world.call(self.world.engine.connect_failed, self.link, error, self.world.now)

    def lose(self, error: Exception | None = None) -> None:
        """End the connection, with an EOF or with `error`."""
        engine, now = self.world.engine, self.world.now
        if error is None:
            self.world.call(engine.receive_eof, self.link, now)
        else:
            self.world.call(engine.connection_lost, self.link, error, now)


S = TypeVar("S", bound=Server)


class World(Generic[S]):
    """An engine that requests connections, with its driver and servers."""

    engine: Any

    def __init__(self, server: type[S], chunk: int = 0) -> None:
        self.now = 0.0
        self.chunk = chunk
        #: All links that the engine has requested, oldest first.
        self.peers: list[S] = []
        self._server = server

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call the engine like a driver, then check the invariants."""
        value = function(*args, **options)
        self.pump()
        self.check()
        return value

    def pump(self) -> None:
        """Do the driver's work after each call."""
        self.act()

    def act(self) -> list[S]:
        """Execute all actions. Return the peers of the new, still connecting links."""
        peers = []
        while (action := self.engine.next_action()) is not None:
            if isinstance(action, Connect):
                assert all(peer.link is not action.link for peer in self.peers)
                assert action.timeout > 0
                peers.append(self._server(self, action.link, action.timeout))
                self.peers.append(peers[-1])
            else:
                assert isinstance(action, Close)
                (peer,) = (peer for peer in self.peers if peer.link is action.link)
                assert not peer.closed
                peer.closed = True
        return peers

    def alive(self) -> list[S]:
        """Return the peers of all living links."""
        return [peer for peer in self.peers if peer.link.alive]

    def peer(self, host: str | None = None) -> S:
        """Return the peer of the living link to `host`, or of the only living link."""
        self.act()
        (peer,) = (peer for peer in self.alive() if host in (None, peer.host))
        return peer

    def serve(self, host: str | None = None) -> S:
        """Open the link to `host`, or the only living link, and return its peer."""
        peer = self.peer(host)
        return peer if peer.link.is_up else peer.up()

    def sleep(self, seconds: float) -> None:
        """Advance the clock in one step."""
        self.now += seconds
        self.call(self.engine.handle_timeout, self.now)
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    def check(self) -> None:
        """Check the engine's invariants."""
        raise NotImplementedError
