"""Staggered connection attempts to a server's addresses (RFC 8305, Happy Eyeballs).

A host name can have several addresses, some of them dead. An address that drops packets would use
up the whole connect timeout, so attempts at other addresses run in parallel:

* The first address is the one that worked last. The others follow in the resolver's order, but with
  alternating address families, since often all addresses of one family are unreachable.
* Each attempt starts 250 ms after the previous one, or immediately if that one fails. If the
  connect timeout is too short for all addresses, the delays shrink so that all of them start.
* The first connection that opens wins, and the driver closes the others.

The race is lost as soon as every address has failed. Otherwise it ends with the engine's connect
timeout.
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

# Seconds between the starts of two attempts, as RFC 8305 recommends.
_ATTEMPT_DELAY: Final = 0.25


class Race:
    """The attempts of one link to connect to its server.

    A driver calls `take` until it returns None, then again at `next_start` and after each failed
    attempt. It reports failures to `fail` and the open connection to `won`.

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
        # The failed addresses and their errors, in the order of the failures.
        self._errors: list[tuple[Any, Exception]] = []

    def take(self, now: float) -> Found | None:
        """Return the next address to try at `now`, or None if none is due."""
        if not self._waiting or now < self._next_start:
            return None
        self._running += 1
        self._next_start = now + self._delay
        return self._waiting.pop(0)

    @property
    def next_start(self) -> float | None:
        """Time at which `take` returns the next address, or None if none is left."""
        return self._next_start if self._waiting else None

    def fail(self, address: Found, error: Exception) -> None:
        """Record that `address` failed with `error`, and make the next attempt due immediately."""
        self._running -= 1
        self._next_start = 0.0
        self._errors.append((address[4], error))

    def won(self, address: Found) -> None:
        """Record that the connection to `address` is open, including the TLS handshake."""
        self._last_good[self._server] = address[4]

    @property
    def is_lost(self) -> bool:
        """True if every address has failed."""
        return not (self._waiting or self._running)

    def error(self) -> Exception:
        """Return the error of a lost race: a common error, or a list of all addresses' errors."""
        if not self._errors:
            return OSError(f"no addresses for {self._server.host}")
        if len({str(error) for _, error in self._errors}) == 1:
            return self._errors[0][1]
        return OSError("; ".join(f"{_text(where)}: {error}" for where, error in self._errors))


def _in_order(found: Iterable[Found], last_good: object) -> list[Found]:
    """Return the distinct addresses, the first one to try first."""
    unique = list({address[4]: address for address in found}.values())
    unique.sort(key=lambda address: address[4] != last_good)
    families: dict[Any, list[Found]] = {}
    for address in unique:
        families.setdefault(address[0], []).append(address)
    rounds = zip_longest(*families.values())
    return [address for each in rounds for address in each if address is not None]


def _text(where: Any) -> str:
    return str(HostAndPort(*where[:2])) if isinstance(where, tuple) else str(where)
