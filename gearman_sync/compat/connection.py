"""Connections (`gearman.connection`)."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from gearman_proto.address import ServerAddress, parse_address
from gearman_proto.constants import DEFAULT_GEARMAN_PORT
from gearman_proto.errors import *  # noqa: F403 - python-gearman's module has them
from gearman_proto.records import replaced

if TYPE_CHECKING:
    from gearman_proto import Server


# The settings of GearmanConnection, and the corresponding attributes of a ServerAddress.
_SETTINGS: Final = {
    "keepalive": "keepalive",
    "keepalive_idle": "keepidle",
    "keepalive_interval": "keepintvl",
    "keepalive_count": "keepcnt",
}
_DEFAULT: Final = ServerAddress("localhost")


class Manager(Protocol):
    """The owner of connections, such as a client."""

    def server_of(self, connection: GearmanConnection) -> Server | None:
        """Return the server of `connection`, or None if the manager has no such server."""

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close the connection."""


class GearmanConnection:
    """A server of a client or worker, and the state of its connection.

    From python-gearman (`GearmanConnection`). The object has no socket and sends nothing: the
    client or worker whose `connection_list` contains it does. Connections to the same host and port
    are equal.

    The class attributes are settings for all connections of the class, as in forks of
    python-gearman. Set them in a subclass, and make that the `connection_class` of a client or
    worker. None means the default of the library.

    Args:
        host: The server's host.
        port: The server's port.
        keyfile: Path of the client's private key.
        certfile: Path of the client's certificate.
        ca_certs: Path of the CA certificates that verify the server's certificate.

    Raises:
        TypeError: The host or the port has a wrong type.
        ValueError: The host or the port has an invalid value.

    Attributes:
        connect_timeout: Seconds to wait for a connection.
        keepalive: True to let the kernel send keepalive probes on an idle connection.
        keepalive_idle: Seconds of silence before the first probe.
        keepalive_interval: Seconds between two probes.
        keepalive_count: Number of unanswered probes after which the connection is lost.
        gearman_host: The server's host.
        gearman_port: The server's port.
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
        """Return a connection to `address`."""
        connection = cls.__new__(cls)
        connection.__setstate__(address)
        return connection

    def __getstate__(self) -> ServerAddress:
        return self._address

    def __setstate__(self, address: ServerAddress) -> None:
        self._address = address
        self.gearman_host: str = address.host
        self.gearman_port: int = address.port
        # The owner of the list that contains this connection. The reference is weak, because the
        # owner's sockets are closed when its last reference is dropped.
        self._manager: weakref.ref[Manager] | None = None

    def belong_to(self, manager: Manager) -> None:
        """Make `manager` the owner of this connection."""
        self._manager = weakref.ref(manager)

    @property
    def address(self) -> ServerAddress:
        """The server's address, including its settings."""
        changes: dict[str, Any] = {}
        for setting, name in _SETTINGS.items():
            value = getattr(self, setting)
            # Settings in a server's own dict override those of the class.
            if value is not None and getattr(self._address, name) == getattr(_DEFAULT, name):
                changes[name] = value
        return replaced(self._address, **changes)

    @property
    def _server(self) -> Server | None:
        manager = None if self._manager is None else self._manager()
        return None if manager is None else manager.server_of(self)

    @property
    def link(self) -> Any:
        """The current connection, or the current attempt to connect, or None."""
        return None if self._server is None else self._server.link

    @property
    def connected(self) -> bool:
        """True if the server is connected."""
        return self._server is not None and self._server.connected

    def close(self) -> None:
        """Close the connection, if any. The next call that needs it connects again."""
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
