"""What the small worlds of the engines share: the other end of a link, and what engines ask for."""

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
    """The other end of one link."""

    world: Any
    link: Any

    def __init__(self, world: Any, link: Any, role: Role) -> None:
        self.world = world
        self.link = link
        self.connection = Connection(role)
        #: Whether the engine has asked to close it, or the peer has closed it.
        self.closed = False

    def send_raw(self, data: bytes) -> None:
        """Send anything, in the world's chunks."""
        size = self.world.chunk or len(data) or 1
        for at in range(0, len(data), size):
            self.world.call(
                self.world.engine.receive_data, self.link, data[at : at + size], self.world.now
            )


class Server(Peer):
    """The server's end of a link that an engine has asked for."""

    def __init__(self, world: Any, link: Any, timeout: float) -> None:
        super().__init__(world, link, Role.SERVER)
        self.timeout = timeout

    @property
    def host(self) -> str:
        host: str = self.link.address.host
        return host

    def up(self) -> Self:
        """The connection is open."""
        self.world.call(self.world.engine.connected, self.link, self.world.now)
        return self

    def refuse(self, error: Exception | None = None) -> None:
        """The connection can't be made."""
        error = error or ConnectionRefusedError("refused")
        self.world.call(self.world.engine.connect_failed, self.link, error, self.world.now)

    def lose(self, error: Exception | None = None) -> None:
        """The connection ends."""
        engine, now = self.world.engine, self.world.now
        if error is None:
            self.world.call(engine.receive_eof, self.link, now)
        else:
            self.world.call(engine.connection_lost, self.link, error, now)


S = TypeVar("S", bound=Server)


class World(Generic[S]):
    """An engine that asks for connections, and all that is around it."""

    engine: Any

    def __init__(self, server: type[S], chunk: int = 0) -> None:
        self.now = 0.0
        self.chunk = chunk
        #: All links that the engine has asked for, oldest first.
        self.peers: list[S] = []
        self._server = server

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call the engine, as the driver does."""
        value = function(*args, **options)
        self.pump()
        self.check()
        return value

    def pump(self) -> None:
        """Do what the driver does behind each call."""
        self.act()

    def act(self) -> list[S]:
        """Take all actions. Returns the new links, which are being connected."""
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
        """The peers of all living links."""
        return [peer for peer in self.peers if peer.link.alive]

    def peer(self, host: str | None = None) -> S:
        """The living link to `host`, or the only living one."""
        self.act()
        (peer,) = (peer for peer in self.alive() if host in (None, peer.host))
        return peer

    def serve(self, host: str | None = None) -> S:
        """Bring up the link to `host`, or the only one that there is, and return it."""
        peer = self.peer(host)
        return peer if peer.link.is_up else peer.up()

    def sleep(self, seconds: float) -> None:
        """Let time pass, all in one piece."""
        self.now += seconds
        self.call(self.engine.handle_timeout, self.now)
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    def check(self) -> None:
        """Look at the whole engine, which has to be in accord at any time."""
        raise NotImplementedError
