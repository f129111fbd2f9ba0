"""The common base of client, worker and admin client (`gearman.connection_manager`)."""

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

    Subclasses derive from this class first, then from their class in gearman_sync.
    `connection_list`, a plain list, contains the servers and can be changed until one is connected.
    A changed list replaces the driver, which owns all connections.

    Attributes:
        connection_class: The class of connections, whose attributes are settings.
        job_class: The class of jobs.
        job_request_class: The class of requests.
        connection_list: The servers: GearmanConnections, or items that a host list accepts.
    """

    connection_class: ClassVar[type[GearmanConnection]] = GearmanConnection
    job_class: ClassVar[type[GearmanJob]] = GearmanJob
    job_request_class: ClassVar[type[GearmanJobRequest]] = GearmanJobRequest

    connection_list: Any = ()
    # `add_connection` can add the first server.
    _gm_needs_servers: ClassVar[bool] = False
    # Arguments for the engine that the class in gearman_sync does not pass.
    _gm_engine_options: ClassVar[dict[str, Any]] = {}
    # Attributes that are not copied.
    _gm_transient: ClassVar[tuple[str, ...]] = ()
    # The options given to the class in gearman_sync; the addresses and options of the current
    # driver.
    _gm_options: dict[str, Any]
    _gm_driver_options: tuple[list[ServerAddress], dict[str, Any]]
    # The driver, and the list it was created from.
    _gm_driver_and_list: tuple[Any, list[Any]]

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self._gm_options = {**options, **self._gm_engine_options}
        self.connection_list = [self.connection_class.to(address) for address in addresses]
        self._gm_replace_driver()

    @property
    def _gm_driver(self) -> Any:
        driver, made_of = self._gm_driver_and_list
        if not driver.engine.closed:
            is_same = _are_same(made_of, self.connection_list)
            is_used = any(server.link is not None for server in self._gm_servers_of(driver.engine))
            if is_used and not is_same:
                raise InvalidClientState("connection_list can't be changed: it is connected")
            if not is_used and not (is_same and self._gm_addresses() == self._gm_driver_options[0]):
                driver.close()
                self._gm_replace_driver()
        return self._gm_driver_and_list[0]

    @_gm_driver.setter
    def _gm_driver(self, driver: Any) -> None:
        self._gm_driver_and_list = driver, list(self.connection_list)

    def _gm_addresses(self) -> list[ServerAddress]:
        return [connection.address for connection in self.connection_list]

    def _gm_replace_driver(self) -> None:
        """Create a driver for the servers in the list."""
        for index, connection in enumerate(self.connection_list):
            if not isinstance(connection, GearmanConnection):
                connection = self.connection_class.to(parse_address(connection))
                self.connection_list[index] = connection
            connection.belong_to(self)
        options = self._gm_options
        if self.connection_class.connect_timeout is not None:
            options = {**options, "connect_timeout": self.connection_class.connect_timeout}
        addresses = self._gm_addresses()
        self._gm_driver_options = addresses, options
        super()._gm_setup(addresses, options)  # type: ignore[misc]

    @property
    def _gm_current_driver(self) -> Any:
        """The current driver, even if `connection_list` has changed.

        Closing needs no new driver.
        """
        return self._gm_driver_and_list[0]

    def server_of(self, connection: GearmanConnection) -> Server | None:
        """Return the server of `connection`, or None if there is no such server."""
        # Don't use `_gm_driver`, which calls this method to check if it can replace the driver.
        for server in self._gm_servers_of(self._gm_current_driver.engine):
            if (server.gearman_host, server.gearman_port) == connection.get_address():
                return server
        return None

    @staticmethod
    def _gm_servers_of(engine: Any) -> list[Server]:
        servers: list[Server] = engine.pool.servers
        return servers

    def connection_of(self, server: Server) -> GearmanConnection:
        """Return the connection in `connection_list` whose server is `server`."""
        own: list[GearmanConnection] = self.connection_list
        return next(connection for connection in own if self.server_of(connection) is server)

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close a connection; see `GearmanConnection.close`."""
        server = self.server_of(connection)
        if server is not None:
            self._gm_current_driver.call(ConnectingEngine.disconnect, server)

    def shutdown(self) -> None:
        """Close all connections at once and permanently."""
        self._gm_current_driver.close()

    def add_connection(self, hostport_tuple: HostSpec) -> GearmanConnection:
        """Add a server to `connection_list` (python-gearman: `add_connection`).

        Args:
            hostport_tuple: The server's address, in any form that a host list accepts.

        Returns:
            The new GearmanConnection, which is not connected yet.

        Raises:
            TypeError, ValueError: `hostport_tuple` is not an address.
        """
        connection = self.connection_class.to(parse_address(hostport_tuple))
        self.connection_list.append(connection)
        return connection

    def add_ssl_connection(
        self, host: str, port: int, keyfile: str, certfile: str, ca_certs: str
    ) -> GearmanConnection:
        """Add a server that uses TLS (python-gearman: `add_ssl_connection`).

        The arguments are those of GearmanConnection.
        """
        tls = {"keyfile": keyfile, "certfile": certfile, "ca_certs": ca_certs}
        return self.add_connection({"host": host, "port": port, **tls})

    # Copies have the current list and no driver.

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        state["connection_list"] = list(self.connection_list)
        for name in ("_gm_driver_and_list", *self._gm_transient):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.connection_list = [
            self.connection_class.to(connection.address) for connection in self.connection_list
        ]
        self._gm_replace_driver()


def _are_same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def specified(server: GearmanConnection | Server | HostSpec) -> Server | HostSpec:
    """Return `server` in a form that the classes of gearman_sync accept."""
    return server.address if isinstance(server, GearmanConnection) else server
