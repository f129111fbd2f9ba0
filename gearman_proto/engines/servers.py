"""Which server a request goes to, and how long one that fails is left alone.

A server that could not be reached, or whose connection was lost, is left alone for a while: it
cools down, longer with each failure in a row, by a jittered exponential backoff, so that many
clients do not come back at the same moment. Cooling down is a preference only. When nothing else
is left, a cooling server is tried all the same, the one that has cooled longest first: the caller
waits for an answer now, and a server that has just been restarted is there.

That may not go on by itself. What an engine does again without having been asked to, a client's
retries of a submit and a worker's coming back, waits until the server has cooled; only a retry
after the first failure in a row goes at once. Failures are in a row until the server does what it
is there for (it takes a submit, it gives a job), or keeps a connection for some seconds. To be
reached is not enough, nor is an answer: there are servers that take each connection, refuse what
they are asked for, and close it.

Where others work, a server that has cooled down is still a suspect until it has answered. One that
was stopped takes connections, and whatever is sent; so requests go elsewhere, and it is sent a
question of the engine's own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.address import parse_address
from gearman_proto.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    InvalidClientState,
    ServerUnavailable,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Sequence

    from gearman_proto.address import HostSpec, ServerAddress

#: Seconds that a server is left alone after the first failure, before jitter.
FIRST_COOL_DOWN: Final = 0.5
#: Seconds that a server is left alone at most.
LONGEST_COOL_DOWN: Final = 30.0

ROUTINGS: Final = ("random", "unique")


class Server:
    """A server as a client, a worker or an admin client knows it."""

    def __init__(self, address: ServerAddress) -> None:
        self.address: ServerAddress = address
        #: How often in a row it failed; see above.
        self.failures: int = 0
        #: Until when it is left alone, in the engine's time.
        self.cool_until: float = 0.0
        #: Why it failed last; None again as soon as it has answered.
        self.error: Exception | None = None
        #: The engine's connection to it, if there is one.
        self.link: Any = None

    def __repr__(self) -> str:
        return f"<Server {self.address}{'' if self.connected else ', not connected'}>"

    @functools.cached_property
    def digest(self) -> bytes:
        """What it is known by in rendezvous hashing."""
        return _hash(str(self.address).encode("utf-8", "surrogateescape"), 16)

    @property
    def connected(self) -> bool:
        """Whether there is a connection that works (python-gearman's `connected`)."""
        return self.link is not None and self.link.is_up

    @property
    def gearman_host(self) -> str:
        """Its host (python-gearman's `gearman_host`)."""
        return self.address.host

    @property
    def gearman_port(self) -> int:
        """Its port (python-gearman's `gearman_port`)."""
        return self.address.port

    def failed(self, error: Exception, now: float, rng: random.Random) -> None:
        """It could not be reached, or its connection was lost."""
        delay = min(FIRST_COOL_DOWN * 2 ** min(self.failures, 16), LONGEST_COOL_DOWN)
        self.failures += 1
        self.cool_until = now + delay * rng.uniform(0.5, 1.0)
        self.error = error

    def answered(self) -> None:
        """It sent something sound: it is not to be passed over any more."""
        self.cool_until = 0.0
        self.error = None

    def served(self) -> None:
        """It did what it is there for: its next failure will be the first one in a row."""
        self.failures = 0

    def retry_at(self) -> float:
        """When to send it again what it has lost; 0.0 is at once."""
        return self.cool_until if self.failures > 1 else 0.0


class ServerPool:
    """The servers of a client, and the choice between them.

    Args:
        addresses: The servers.
        rng: Where chance comes from.
        routing: ``"random"``: each request goes to the next server of a rotation with a random
            start. ``"unique"``: the same unique goes to the same server as long as that lives, in
            every client with the same servers (rendezvous hashing: when one is lost, only its
            uniques move).
    """

    def __init__(
        self, addresses: Iterable[ServerAddress], rng: random.Random, routing: str = "random"
    ) -> None:
        if routing not in ROUTINGS:
            raise ValueError(f"routing is one of {', '.join(ROUTINGS)}, not {routing!r}")
        self.servers: list[Server] = [Server(address) for address in addresses]
        self.by_unique: bool = routing == "unique"
        self._rotation = list(self.servers)
        rng.shuffle(self._rotation)
        self._turn = 0
        #: Those that were passed over, and are to be asked.
        self.suspects: list[Server] = []

    def find(self, server: Server | HostSpec) -> Server:
        """The server that is meant: one of these, or one by its address.

        Args:
            server: A server, also one that another client has for the same address; or an address
                in any form that a host list takes.

        Raises:
            InvalidClientState: It is none of these.
            TypeError, ValueError: It is no server and no address.
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
        """The engine's links to them, as far as there are any."""
        return [server.link for server in self.servers if server.link is not None]

    def unavailable(self) -> ServerUnavailable:
        """The error for whoever needs one of them, and why it was none."""
        if not self.servers:
            return ServerUnavailable("there are no servers in the host list")
        causes = ", ".join(f"{s.address} ({s.error or 'no error'})" for s in self.servers)
        return ServerUnavailable(f"no server could be reached: {causes}")

    def choose(self, now: float, tried: Collection[Server], key: bytes) -> Server | None:
        """The server for a request, or None if all have been tried.

        Args:
            now: The time, in seconds.
            tried: The servers that are out of the question.
            key: What a routing by unique goes by.
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

    def take_suspects(self) -> list[Server]:
        """Return the servers to ask whether they are back, as others have been chosen over them."""
        suspects, self.suspects = self.suspects, []
        return suspects


def _hash(data: bytes, size: int, key: bytes = b"") -> bytes:
    # Few clients route by unique, and OpenSSL, which comes with it, takes long to load.
    import hashlib  # noqa: PLC0415

    return hashlib.blake2b(data, digest_size=size, key=key).digest()
