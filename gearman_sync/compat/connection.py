"""Connections (`gearman.connection`)."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from gearman_proto.address import ServerAddress, parse_address
from gearman_proto.constants import DEFAULT_GEARMAN_PORT
from gearman_proto.errors import ConnectionError
from gearman_proto.records import replaced

if TYPE_CHECKING:
    from gearman_proto import Server

__all__ = ["ConnectionError", "GearmanConnection"]

# The settings of GearmanConnection, and the attributes of a ServerAddress that they are.
_SETTINGS: Final = {
    "keepalive": "keepalive",
    "keepalive_idle": "keepidle",
    "keepalive_interval": "keepintvl",
    "keepalive_count": "keepcnt",
}
_DEFAULT: Final = ServerAddress("localhost")


class Manager(Protocol):
    """What has connections: a client, say."""

    def server_of(self, connection: GearmanConnection) -> Server | None:
        """The server that `connection` is to; None if it is none of this one's."""

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close the connection."""


class GearmanConnection:
    """A server of a client or worker, and whether that is connected to it.

    From python-gearman (`GearmanConnection`). It has no socket and sends nothing; the client or
    worker that has it in its `connection_list` does. Two to the same host and port are equal.

    The attributes of the class are settings for all its connections, as in forks of python-gearman:
    set them in a subclass, and set that as the `connection_class` of a client or worker. None is
    what the library has without it.

    Args:
        host: The server's host.
        port: Its port.
        keyfile: Path of the client's private key.
        certfile: Path of the client's certificate.
        ca_certs: Path of the certificates that the server's is verified with.

    Raises:
        TypeError: This is no host, or no port.
        ValueError: It can't be one.

    Attributes:
        connect_timeout: Seconds to wait for a connection.
        keepalive: Whether the system asks, in silence, whether the server is there.
        keepalive_idle: Seconds of silence before it asks.
        keepalive_interval: Seconds between two such questions.
        keepalive_count: How many of them may stay unanswered.
        gearman_host: The server's host.
        gearman_port: Its port.
    """

    connect_timeout: float | None = None
    keepalive: bool | None = None
    keepalive_idle: int | None = None
    keepalive_interval: int | None = None
    keepalive_count: int | None = None

    def __init__(
        self,
        host: str | bytes | None = None,
        port: int | str | None = DEFAULT_GEARMAN_PORT,
        keyfile: str | None = None,
        certfile: str | None = None,
        ca_certs: str | None = None,
    ) -> None:
        tls = {"keyfile": keyfile, "certfile": certfile, "ca_certs": ca_certs}
        self.__setstate__(parse_address({"host": host, "port": port, **tls}))

    @classmethod
    def to(cls, address: ServerAddress) -> GearmanConnection:
        """Return one to `address`."""
        connection = cls.__new__(cls)
        connection.__setstate__(address)
        return connection

    def __getstate__(self) -> ServerAddress:
        return self._address

    def __setstate__(self, address: ServerAddress) -> None:
        self._address = address
        self.gearman_host: str = address.host
        self.gearman_port: int = address.port
        # What has it in its list. Weak: that has sockets, which end with its last reference.
        self._manager: weakref.ref[Manager] | None = None

    def belong_to(self, manager: Manager) -> None:
        """Be one of the connections of `manager`."""
        self._manager = weakref.ref(manager)

    @property
    def address(self) -> ServerAddress:
        """Where the server is, and with what settings."""
        changes: dict[str, Any] = {}
        for setting, name in _SETTINGS.items():
            value = getattr(self, setting)
            # What stands in a server's own dict comes before the settings of the class.
            if value is not None and getattr(self._address, name) == getattr(_DEFAULT, name):
                changes[name] = value
        return replaced(self._address, **changes)

    @property
    def _server(self) -> Server | None:
        manager = None if self._manager is None else self._manager()
        return None if manager is None else manager.server_of(self)

    @property
    def link(self) -> Any:
        """The connection that there is, or the attempt to make one; None if there is neither."""
        return None if self._server is None else self._server.link

    @property
    def connected(self) -> bool:
        """Whether there is a working connection to the server."""
        return self._server is not None and self._server.connected

    def close(self) -> None:
        """Close the connection, if there is one. The next call that needs it connects again."""
        manager = None if self._manager is None else self._manager()
        if manager is not None:
            manager.close_connection(self)

    def get_address(self) -> tuple[str, int]:
        """Return the host and the port."""
        return self.gearman_host, self.gearman_port

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GearmanConnection):
            return NotImplemented
        return self.get_address() == other.get_address()

    def __hash__(self) -> int:
        return hash(self.get_address())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address} connected={self.connected}>"
