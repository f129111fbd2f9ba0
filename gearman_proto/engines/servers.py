"""The choice of a server for each request, and the backoff after failures.

After a failed connection attempt or a lost connection, a server cools down. The time grows
exponentially with each successive failure, with jitter, so that clients don't reconnect all at
once. Cooling down is only a preference. If no other server is left, the engine tries a cooling
server anyway, starting with the one whose cool-down ends first: the caller is waiting for an answer
now, and the server might just have restarted.

Automatic retries must respect the cool-down, or they would loop without a pause. A client's retry
of a submit and a worker's reconnect start at once after the first failure. After further successive
failures, they wait until the server has cooled down. The count of failures is reset when the server
does useful work (accepts a submit, assigns a job) or keeps a connection for some seconds. An open
connection does not reset the count, and neither does an answer: some servers accept each
connection, refuse the request and close the connection.

While other servers work, a server that has cooled down remains a suspect until it answers. A
stopped server process still accepts connections and data. Therefore, the engine sends requests to
other servers and only a probe to the suspect.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.address import parse_address
from gearman_proto.constants import DEFAULT_GEARMAN_PORT
from gearman_proto.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    InvalidClientState,
    ServerUnavailable,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gearman_proto.address import HostSpec, ServerAddress
    from gearman_proto.constants import Routing

#: Cool-down in seconds after the first failure, before jitter.
FIRST_COOL_DOWN: Final = 0.5
#: Maximum cool-down in seconds.
LONGEST_COOL_DOWN: Final = 30.0

ROUTINGS: Final = ("random", "unique")

# Names of this machine.
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


class Server:
    """The state that a client, a worker or an admin client keeps for one server."""

    def __init__(self, address: ServerAddress) -> None:
        self.address: ServerAddress = address
        #: Number of successive failures; see the module's docstring.
        self.failures: int = 0
        #: End of the cool-down, in the engine's time.
        self.cool_until: float = 0.0
        #: The last failure, or None if the server has answered since.
        self.error: Exception | None = None
        #: The engine's connection to the server, or None.
        self.link: Any = None

    def __repr__(self) -> str:
        return f"<Server {self.address}{'' if self.connected else ', not connected'}>"

    @functools.cached_property
    def digest(self) -> bytes:
        """The server's identity in rendezvous hashing."""
        return _hash(str(self.address).encode("utf-8", "surrogateescape"), 16)

    @property
    def connected(self) -> bool:
        """True if the connection to the server is open (python-gearman's `connected`)."""
        return self.link is not None and self.link.is_up

    @property
    def gearman_host(self) -> str:
        """The server's host (python-gearman's `gearman_host`)."""
        return self.address.host

    @property
    def gearman_port(self) -> int:
        """The server's port (python-gearman's `gearman_port`)."""
        return self.address.port

    def failed(self, error: Exception, now: float, rng: random.Random) -> None:
        """Record a failed connection attempt or a lost connection, and start the cool-down."""
        delay = min(FIRST_COOL_DOWN * 2 ** min(self.failures, 16), LONGEST_COOL_DOWN)
        self.failures += 1
        self.cool_until = now + delay * rng.uniform(0.5, 1.0)
        self.error = error

    def answered(self) -> None:
        """Record that the server sent a valid packet, and end the cool-down."""
        self.cool_until = 0.0
        self.error = None

    def served(self) -> None:
        """Record that the server did useful work, and reset the count of failures."""
        self.failures = 0

    def retry_at(self) -> float:
        """Return the earliest time for an automatic retry, or 0.0 for an immediate one."""
        return self.cool_until if self.failures > 1 else 0.0


def unreachable(reasons: Mapping[ServerAddress, object]) -> ServerUnavailable:
    """Return the error for servers that could not be reached.

    Args:
        reasons: The reason for each server: an exception, or a text.
    """
    causes = ", ".join(f"{address} ({reason})" for address, reason in reasons.items())
    cure = next(filter(None, map(_cure, reasons, reasons.values())), "")
    return ServerUnavailable(f"no server could be reached: {causes}{cure}")


def _cure(address: ServerAddress, reason: object) -> str:
    """Return the end of the error message if this machine has no server at `address`."""
    is_here = address.host in _LOCAL_HOSTS and isinstance(reason, ConnectionRefusedError)
    if not is_here or address.uses_tls:
        return ""
    port = "" if address.port == DEFAULT_GEARMAN_PORT else f" --port {address.port}"
    return f"; start one with `gearmanctl serve{port}`"


class ServerPool:
    """The servers of a client, and the choice between them.

    Args:
        addresses: The addresses of the servers.
        rng: The random number generator.
        routing: ``"random"`` sends each request to the next server of a shuffled rotation.
            ``"unique"`` sends all requests with the same unique to the same server while it works.
            All clients with the same servers choose the same one. If a server fails, only its
            uniques move to others (rendezvous hashing).
    """

    def __init__(
        self, addresses: Iterable[ServerAddress], rng: random.Random, routing: Routing = "random"
    ) -> None:
        if routing not in ROUTINGS:
            raise ValueError(f"routing is one of {', '.join(ROUTINGS)}, not {routing!r}")
        self.servers: list[Server] = [Server(address) for address in addresses]
        self.by_unique: bool = routing == "unique"
        self._rotation = list(self.servers)
        rng.shuffle(self._rotation)
        self._turn = 0
        #: Servers to probe, because the last choice skipped them as suspects.
        self.suspects: list[Server] = []

    def find(self, server: Server | HostSpec) -> Server:
        """Return the server of this pool that `server` refers to.

        Args:
            server: A server of this pool or of another client, or an address in any form that a
                host list accepts.

        Raises:
            InvalidClientState: This pool has no server with that address.
            TypeError, ValueError: `server` is neither a server nor a valid address.
        """
        for own in self.servers:
            if own is server:
                return own
        try:
            address = server.address if isinstance(server, Server) else parse_address(server)
        except TypeError as error:
            raise ArgumentTypeError(str(error)) from None
        except ValueError as error:
            raise ArgumentValueError(str(error)) from None
        for own in self.servers:
            if (own.address.host, own.address.port) == (address.host, address.port):
                return own
        raise InvalidClientState(f"{address} is not one of this client's servers")

    def links(self) -> list[Any]:
        """Return the engine's links to the servers."""
        return [server.link for server in self.servers if server.link is not None]

    def unavailable(self) -> ServerUnavailable:
        """Return the error to raise if no server is available, with the reasons."""
        if not self.servers:
            return ServerUnavailable("there are no servers in the host list")
        return unreachable({server.address: server.error or "no error" for server in self.servers})

    def choose(self, now: float, tried: Collection[Server], key: bytes) -> Server | None:
        """Return the server for a request, or None if the request has tried all of them.

        Args:
            now: The time, in seconds.
            tried: Servers to exclude.
            key: The hash key if requests are routed by unique.
        """
        candidates: Sequence[Server] = self._rotation
        if len(candidates) == 1:
            return candidates[0] if candidates[0] not in tried else None
        if self.by_unique:
            candidates = sorted(candidates, key=lambda s: _hash(key, 8, s.digest), reverse=True)
        else:
            turn = self._turn
            self._turn = (turn + 1) % len(candidates) if candidates else 0
            candidates = [*candidates[turn:], *candidates[:turn]]
        best = None
        self.suspects.clear()
        for server in candidates:
            if server in tried:
                continue
            if server.cool_until <= now:
                if server.error is None:
                    return server
                if server.link is None:
                    self.suspects.append(server)
            if best is None or server.cool_until < best.cool_until:
                best = server
        self.suspects.clear()
        return best

    def choose_many(self, now: float, count: int) -> list[Server]:
        """Return the servers that get `count` requests in turn.

        Return an empty list if `choose` has to be called for each request.
        """
        servers = self._rotation
        if len(servers) == 1:
            return servers
        has_failed = any(server.error is not None or server.cool_until > now for server in servers)
        if not servers or self.by_unique or has_failed:
            return []
        turn = self._turn
        self._turn = (turn + count) % len(servers)
        return [*servers[turn:], *servers[:turn]]

    def take_suspects(self) -> list[Server]:
        """Return the servers to probe, and clear the list."""
        suspects, self.suspects = self.suspects, []
        return suspects


def _hash(data: bytes, size: int, key: bytes = b"") -> bytes:
    # Few clients route by unique, and hashlib loads OpenSSL, which is slow.
    import hashlib  # noqa: PLC0415

    return hashlib.blake2b(data, digest_size=size, key=key).digest()
