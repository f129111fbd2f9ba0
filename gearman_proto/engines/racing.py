"""The order and the times in which a server's addresses are tried (RFC 8305, Happy Eyeballs).

A host name may have several addresses, some of them dead. One that drops packets would use up the
whole connect timeout, so its successor is started beside it:

* The address that worked last is first. The others follow in the resolver's order, but with
  the address families alternating, since often all addresses of one family are unreachable.
* An attempt starts 250 ms after the one before, or at once if that one fails. If the connect
  timeout is too short for all addresses, the delays shrink so that each gets its turn.
* The first connection that opens wins, and the driver closes the others.

The race is lost as soon as every address has failed. While one of them has not, the engine's
connect timeout ends the race.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.address import HostAndPort

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence

    from gearman_proto.address import ServerAddress

#: An address as `socket.getaddrinfo` returns it: family, type, protocol, canonical name, address.
Found: TypeAlias = "tuple[Any, Any, int, str, Any]"
#: The address of each server that worked last. A driver keeps one for all of its races.
LastGood: TypeAlias = "MutableMapping[ServerAddress, Any]"

# Seconds between the starts of two attempts; what RFC 8305 recommends.
_ATTEMPT_DELAY: Final = 0.25


class Race:
    """The attempts of one link to connect to its server.

    A driver asks `take` for addresses until it returns None, and again at `next_start` or when an
    attempt has failed. It reports failures to `fail` and the opened connection to `won`.

    Args:
        server: The server.
        found: Its addresses, as `socket.getaddrinfo` returns them.
        timeout: The connect timeout, in seconds.
        last_good: The addresses that worked last.
    """

    def __init__(
        self, server: ServerAddress, found: Sequence[Found], timeout: float, last_good: LastGood
    ) -> None:
        self._server = server
        self._last_good = last_good
        self._waiting = _in_order(found, last_good.get(server))
        self._delay = min(_ATTEMPT_DELAY, timeout / max(len(self._waiting), 1))
        self._next_start = 0.0
        self._running = 0
        # Why each address failed, in the order of the failures.
        self._errors: list[tuple[Any, Exception]] = []

    def take(self, now: float) -> Found | None:
        """Return the address to start at `now`, or None if none is due."""
        if not self._waiting or now < self._next_start:
            return None
        self._running += 1
        self._next_start = now + self._delay
        return self._waiting.pop(0)

    @property
    def next_start(self) -> float | None:
        """When `take` returns an address again, or None if all have been started."""
        return self._next_start if self._waiting else None

    def fail(self, address: Found, error: Exception) -> None:
        """Record that the attempt at `address` failed with `error`; the next one is due at once."""
        self._running -= 1
        self._next_start = 0.0
        self._errors.append((address[4], error))

    def won(self, address: Found) -> None:
        """Record that the connection to `address` is open, including the TLS handshake."""
        self._last_good[self._server] = address[4]

    @property
    def is_lost(self) -> bool:
        """Whether every address has failed."""
        return not (self._waiting or self._running)

    def error(self) -> Exception:
        """Return the reason of a lost race: the addresses' common one, or each with its own."""
        if not self._errors:
            return OSError(f"no addresses for {self._server.host}")
        if len({str(error) for _, error in self._errors}) == 1:
            return self._errors[0][1]
        return OSError("; ".join(f"{_text(where)}: {error}" for where, error in self._errors))


def _in_order(found: Iterable[Found], last_good: object) -> list[Found]:
    """Return the addresses in the order of their starts, each once."""
    unique = list({address[4]: address for address in found}.values())
    unique.sort(key=lambda address: address[4] != last_good)
    families: dict[Any, list[Found]] = {}
    for address in unique:
        families.setdefault(address[0], []).append(address)
    rounds = zip_longest(*families.values())
    return [address for each in rounds for address in each if address is not None]


def _text(where: Any) -> str:
    return str(HostAndPort(*where[:2])) if isinstance(where, tuple) else str(where)
