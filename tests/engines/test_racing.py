"""Races between the addresses of a server, in simulated time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.engines.racing import Race

if TYPE_CHECKING:
    from gearman_proto.engines.racing import Found, LastGood

SERVER: Final = ServerAddress("gearman.test", 4730)
V4: Final = 2
V6: Final = 10
UNIX: Final = 1
REFUSED: Final = OSError(111, "Connection refused")


def at(host: str) -> Found:
    """The address `host`, as getaddrinfo returns it."""
    if host.startswith("/"):
        return (UNIX, 1, 0, "", host)
    if ":" in host:
        return (V6, 1, 6, "", (host, 4730, 0, 0))
    return (V4, 1, 6, "", (host, 4730))


def race(*hosts: str, timeout: float = 10.0, last_good: LastGood | None = None) -> Race:
    found = [at(host) for host in hosts]
    return Race(SERVER, found, timeout, {} if last_good is None else last_good)


def starts(race: Race, now: float = 0.0) -> list[tuple[float, str]]:
    """Run a race whose addresses never answer. Return the start time of each address."""
    started = []
    while True:
        while (address := race.take(now)) is not None:
            started.append((round(now, 3), address[4][0]))
        if race.next_start is None:
            return started
        assert race.next_start > now
        assert race.take(race.next_start - 0.001) is None
        now = race.next_start


def order(race: Race) -> list[str]:
    return [host for _, host in starts(race)]


def lost(*failures: tuple[str, Exception]) -> Race:
    """Return a race whose addresses have failed, one after the other."""
    running = race(*[host for host, _ in failures])
    for host, error in failures:
        assert not running.is_lost
        assert running.take(0.0) == at(host)
        running.fail(at(host), error)
    assert running.is_lost
    return running


def test_silent_addresses_start_250_ms_apart() -> None:
    running = race("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert starts(running) == [(0.0, "192.0.2.1"), (0.25, "192.0.2.2"), (0.5, "192.0.2.3")]
    assert running.take(60.0) is None


def test_short_timeout_starts_every_address_in_time() -> None:
    hosts = [f"192.0.2.{number}" for number in range(100)]
    started = starts(race(*hosts, timeout=2.0))
    assert [host for _, host in started] == hosts
    assert started[-1][0] == pytest.approx(1.98)


def test_failed_attempt_starts_the_next_at_once() -> None:
    running = race("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert running.take(0.0) == at("192.0.2.1")
    running.fail(at("192.0.2.1"), REFUSED)
    assert running.take(0.01) == at("192.0.2.2")
    # The delay counts from the last start.
    assert running.take(0.02) is None
    assert running.next_start == pytest.approx(0.26)


def test_late_driver_starts_one_address_and_then_keeps_the_delay() -> None:
    running = race("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert running.take(0.0) == at("192.0.2.1")
    assert starts(running, now=20.0) == [(20.0, "192.0.2.2"), (20.25, "192.0.2.3")]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["::1", "::2", "::3", "192.0.2.1"], ["::1", "192.0.2.1", "::2", "::3"]),
        (["192.0.2.1", "192.0.2.2", "::1"], ["192.0.2.1", "::1", "192.0.2.2"]),
        (["192.0.2.1", "192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
    ],
)
def test_families_alternate_and_repeated_addresses_are_tried_once(
    found: list[str], expected: list[str]
) -> None:
    assert order(race(*found)) == expected


def test_address_that_worked_last_starts_first() -> None:
    last_good: dict[Any, Any] = {}
    race("::1", "::2", "192.0.2.1", last_good=last_good).won(at("192.0.2.1"))
    again = race("::1", "::2", "192.0.2.1", last_good=last_good)
    assert order(again) == ["192.0.2.1", "::1", "::2"]
    assert order(race("::1", "::2", last_good=last_good)) == ["::1", "::2"]
    other = Race(ServerAddress("other.test"), [at("::1"), at("192.0.2.1")], 10.0, last_good)
    assert order(other) == ["::1", "192.0.2.1"]


def test_race_is_not_lost_while_an_attempt_runs() -> None:
    running = race("192.0.2.1", "192.0.2.2")
    running.take(0.0)
    running.take(0.25)
    running.fail(at("192.0.2.2"), REFUSED)
    assert not running.is_lost
    running.fail(at("192.0.2.1"), REFUSED)
    assert running.is_lost


def test_lost_race_reports_a_common_error_once() -> None:
    assert lost(("192.0.2.1", REFUSED), ("192.0.2.2", OSError(*REFUSED.args))).error() is REFUSED


def test_lost_race_reports_different_errors_with_their_addresses() -> None:
    running = lost(
        ("::1", OSError(101, "Network is unreachable")),
        ("192.0.2.1", REFUSED),
        ("/run/gearman", OSError(2, "No such file")),
    )
    assert str(running.error()) == (
        "[::1]:4730: [Errno 101] Network is unreachable; "
        "192.0.2.1:4730: [Errno 111] Connection refused; "
        "/run/gearman: [Errno 2] No such file"
    )


def test_name_without_addresses_loses_at_once() -> None:
    empty = race()
    assert empty.take(0.0) is None
    assert empty.is_lost
    assert str(empty.error()) == "no addresses for gearman.test"
