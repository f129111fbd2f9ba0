"""What client, worker and admin client have in common (`gearman.connection_manager`)."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, ClassVar

from gearman_proto import DataEncoder, NoopEncoder
from gearman_proto.address import parse_address
from gearman_proto.engines.connecting import ConnectingEngine
from gearman_proto.errors import InvalidClientState

from .connection import GearmanConnection
from .job import GearmanJob, GearmanJobRequest

if TYPE_CHECKING:
    from gearman_proto import HostSpec, Server, ServerAddress

__all__ = ["DataEncoder", "GearmanConnectionManager", "NoopEncoder"]


class GearmanConnectionManager:
    """The base of client, worker and admin client (python-gearman: `GearmanConnectionManager`).

    It stands before the class of gearman_sync. The servers are those in `connection_list`, a plain
    list, which may be changed until something is connected: the driver, which is all that there is
    of connections, is made anew then.

    Attributes:
        connection_class: The class of connections, whose attributes are settings.
        job_class: The class of jobs.
        job_request_class: The class of requests.
        connection_list: The servers: GearmanConnections, or what a host list may have.
    """

    connection_class: ClassVar[type[GearmanConnection]] = GearmanConnection
    job_class: ClassVar[type[GearmanJob]] = GearmanJob
    job_request_class: ClassVar[type[GearmanJobRequest]] = GearmanJobRequest

    connection_list: Any = ()
    # Arguments of the engine that the class of gearman_sync does not give it.
    _engine_options: ClassVar[dict[str, Any]] = {}
    # Attributes that copies do not have.
    _transient: ClassVar[tuple[str, ...]] = ()
    # What the class of gearman_sync was given; what the driver was made of, of that and the list.
    _options: dict[str, Any]
    _made_of: tuple[list[ServerAddress], dict[str, Any]]
    # The driver, and the list that it was made of.
    _made: tuple[Any, list[Any]]

    def _setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self._options = {**options, **self._engine_options}
        self.connection_list = [self.connection_class.to(address) for address in addresses]
        self._remake()

    @property
    def _driver(self) -> Any:
        driver, made_of = self._made
        if not driver.engine.closed:
            is_same = _same(made_of, self.connection_list)
            is_used = any(server.link is not None for server in self._servers_of(driver.engine))
            if is_used and not is_same:
                raise InvalidClientState("connection_list can't be changed: it is connected")
            if not is_used and not (is_same and self._addresses() == self._made_of[0]):
                driver.close()
                self._remake()
        return self._made[0]

    @_driver.setter
    def _driver(self, driver: Any) -> None:
        self._made = driver, list(self.connection_list)

    def _addresses(self) -> list[ServerAddress]:
        return [connection.address for connection in self.connection_list]

    def _remake(self) -> None:
        """Make the driver, of what is in the list."""
        for index, connection in enumerate(self.connection_list):
            if not isinstance(connection, GearmanConnection):
                connection = self.connection_class.to(parse_address(connection))
                self.connection_list[index] = connection
            connection.belong_to(self)
        options = self._options
        if self.connection_class.connect_timeout is not None:
            options = {**options, "connect_timeout": self.connection_class.connect_timeout}
        addresses = self._addresses()
        self._made_of = addresses, options
        super()._setup(addresses, options)  # type: ignore[misc]

    @property
    def _old_driver(self) -> Any:
        """The driver, whatever has become of `connection_list`: what ends things needs no other."""
        return self._made[0]

    def server_of(self, connection: GearmanConnection) -> Server | None:
        """The server that `connection` is to; None if it is none of this one's."""
        # Not those of `_driver`, which looks here whether it may be made anew.
        for server in self._servers_of(self._old_driver.engine):
            if (server.gearman_host, server.gearman_port) == connection.get_address():
                return server
        return None

    @staticmethod
    def _servers_of(engine: Any) -> list[Server]:
        servers: list[Server] = engine.pool.servers
        return servers

    def connection_of(self, server: Server) -> GearmanConnection:
        """The one of `connection_list` that is to `server`."""
        own: list[GearmanConnection] = self.connection_list
        return next(connection for connection in own if self.server_of(connection) is server)

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close a connection of this; see `GearmanConnection.close`."""
        server = self.server_of(connection)
        if server is not None:
            self._old_driver.call(ConnectingEngine.disconnect, server)

    def shutdown(self) -> None:
        """Close all connections at once, for good."""
        self._old_driver.close()

    def add_connection(self, hostport_tuple: HostSpec) -> GearmanConnection:
        """Add a server to `connection_list` (python-gearman: `add_connection`).

        Args:
            hostport_tuple: Its address, in any form that a host list takes.

        Returns:
            Its connection, which is not connected.

        Raises:
            TypeError, ValueError: It is no address.
        """
        connection = self.connection_class.to(parse_address(hostport_tuple))
        self.connection_list.append(connection)
        return connection

    def add_ssl_connection(
        self, host: str, port: int, keyfile: str, certfile: str, ca_certs: str
    ) -> GearmanConnection:
        """Add a server that has TLS (python-gearman: `add_ssl_connection`).

        The arguments are those of GearmanConnection.
        """
        tls = {"keyfile": keyfile, "certfile": certfile, "ca_certs": ca_certs}
        return self.add_connection({"host": host, "port": port, **tls})

    # Copies have the list as it is, and no driver.

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        state["connection_list"] = list(self.connection_list)
        for name in ("_made", *self._transient):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.connection_list = [
            self.connection_class.to(connection.address) for connection in self.connection_list
        ]
        self._remake()


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def specified(server: GearmanConnection | Server | HostSpec) -> Server | HostSpec:
    """Return `server` in a form that the classes of gearman_sync take."""
    return server.address if isinstance(server, GearmanConnection) else server
