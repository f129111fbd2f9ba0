"""Each test for drivers fails for a driver that has the fault of its case.

The drivers are that of examples/own_loop.py with one fault. Those that hang make the test wait for
its `patience`.
"""

from __future__ import annotations

import contextlib
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import DriverTests
from tests.support import PATIENCE

from .kits import OwnLoop, own_loop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

# Seconds after which a driver counts as hanging.
HUNG = 3.0
HANGS = "the driver did not end its call within 3.0 seconds"
STAYS = r"the driver has not closed \d of its connections"

#: Sockets that drivers have not closed.
kept: list[socket.socket] = []

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_hang", "no_leak")]


class IgnoresShortReads(own_loop.Adapter):  # type: ignore[misc]
    """Drops reads that are shorter than a packet's header."""

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        is_short = getattr(call, "__name__", "") == "receive_data" and len(args[1]) < 12
        return None if is_short else super().tell(call, *args)


class BuffersAll(own_loop.Adapter):  # type: ignore[misc]
    """Takes all data from the engine at once."""

    def refill(self, link: Any) -> None:
        data = b""
        while more := self.tell(self.engine.data_to_send, link):
            data += more
        self.unsent[link] = memoryview(data)
        events = EVENT_READ | EVENT_WRITE if data else EVENT_READ
        self.selector.modify(self.socks[link], events, partial(self.on_ready, link))


class ReadsOrWrites(own_loop.Adapter):  # type: ignore[misc]
    """Does not read while there is something to write."""

    def refill(self, link: Any) -> None:
        super().refill(link)
        if self.unsent.get(link):
            self.selector.modify(self.socks[link], EVENT_WRITE, partial(self.on_ready, link))


class IgnoresEnds(own_loop.Adapter):  # type: ignore[misc]
    """Does not report the end of a stream or of a connection, and forgets the socket."""

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        if call in (self.engine.receive_eof, self.engine.connection_lost):
            self.drop(args[0])
            return None
        return super().tell(call, *args)


class KeepsSockets(own_loop.Adapter):  # type: ignore[misc]
    """Ignores the action Close."""

    def drop(self, link: Any) -> None:
        self.unsent.pop(link, None)
        sock = self.socks.pop(link, None)
        if sock is not None:
            self.selector.unregister(sock)
            kept.append(sock)


class WritesOnce(own_loop.Adapter):  # type: ignore[misc]
    """Forgets the bytes that a socket does not accept at once."""

    def on_ready(self, link: Any, events: int) -> None:
        super().on_ready(link, events)
        if events & EVENT_WRITE and self.unsent.get(link):
            self.refill(link)


class SendsOldBytes(own_loop.Adapter):  # type: ignore[misc]
    """Sends the rest of a lost connection on the next one."""

    rest = memoryview(b"")

    def drop(self, link: Any) -> None:
        self.rest = self.unsent.get(link) or self.rest
        super().drop(link)

    def refill(self, link: Any) -> None:
        super().refill(link)
        if link in self.unsent and self.rest:
            self.unsent[link] = memoryview(bytes(self.rest) + bytes(self.unsent[link]))
            self.rest = memoryview(b"")


class NeverActsOnTimers(own_loop.Adapter):  # type: ignore[misc]
    """Sleeps until a socket is ready."""

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        is_timeout = call == self.engine.handle_timeout
        return None if is_timeout else super().tell(call, *args)


class LetsExceptionsPass(own_loop.Adapter):  # type: ignore[misc]
    """Does not expect an exception of the engine."""

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args, own_loop.clock())


class SuppressesExceptions(own_loop.Adapter):  # type: ignore[misc]
    """Uses an engine that has raised an exception."""

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        with contextlib.suppress(ZeroDivisionError):
            return call(*args, own_loop.clock())


class WakesNobody(own_loop.Adapter):  # type: ignore[misc]
    """Does not wake the callers of an abandoned engine."""

    engine: Any

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args, own_loop.clock())
        except ZeroDivisionError as error:
            self.engine.abandon(error)
            for link in list(self.socks):
                self.drop(link)
            self.engine = self.make_engine()


class KeepsOldConnections(own_loop.Adapter):  # type: ignore[misc]
    """Does not close the connections of an abandoned engine."""

    engine: Any

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args, own_loop.clock())
        except ZeroDivisionError as error:
            for wait in self.engine.abandon(error):
                wait.wake()
            self.engine = self.make_engine()


class ClosesOnly(own_loop.Adapter):  # type: ignore[misc]
    """Closes a socket that a child has inherited without shutting it down."""

    def drop(self, link: Any) -> None:
        self.unsent.pop(link, None)
        sock = self.socks.pop(link, None)
        if sock is not None:
            self.selector.unregister(sock)
            sock.close()


class SleepsForever(OwnLoop):
    """Does not ask for the next deadline."""

    def call(self, method: str, *args: Any, **options: Any) -> None:
        wait = self.begin(method, *args, **options)
        self.adapter.pump()
        while not wait.ready:
            for key, events in self.selector.select():
                key.data(events)
            self.adapter.tell(self.adapter.engine.handle_timeout)
            self.adapter.pump()
        self.release(wait)
        wait.raise_error()


class PumpsOnlyAfterData(SleepsForever):
    """Does not carry out actions after a timer."""

    def call(self, method: str, *args: Any, **options: Any) -> None:
        wait = self.begin(method, *args, **options)
        self.adapter.pump()
        while not wait.ready:
            deadline = self.adapter.engine.next_deadline()
            timeout = None if deadline is None else max(deadline - own_loop.clock(), 0.0)
            for key, events in self.selector.select(timeout):
                key.data(events)
                self.adapter.pump()
            self.adapter.tell(self.adapter.engine.handle_timeout)
        self.release(wait)
        wait.raise_error()


class ForgetsCancelledCalls(OwnLoop):
    """Does not release the Wait of a cancelled call."""

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        self.begin(method, *args, **options)
        self.adapter.pump()


class DropsConnectionsOfCancelledCalls(OwnLoop):
    """Closes the connection when a call is cancelled."""

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        super().cancel(method, *args, **options)
        for link in list(self.adapter.socks):
            self.adapter.drop(link)
            self.adapter.tell(self.adapter.engine.connection_lost, link, OSError("cancelled"))
        self.adapter.pump()


class ReleasesNothing(OwnLoop):
    """Releases no Wait."""

    def release(self, wait: Any) -> None: ...


class LeavesActionsAtTheEnd(OwnLoop):
    """Does not carry out the actions of `close`."""

    def close(self) -> None:
        self.adapter.engine.close(own_loop.clock())
        self.selector.close()


class CallsInsideWake(OwnLoop):
    """Makes a call of the engine in `wake`."""

    def begin(self, method: str, *args: Any, **options: Any) -> Any:
        call = getattr(self.adapter.engine, method)
        return call(own_loop.clock(), self.adapter.engine.next_deadline, *args, **options)


def suite(
    adapter: type | None = None,
    kit: type[OwnLoop] = OwnLoop,
    *,
    forks: bool = False,
) -> DriverTests:
    """Return the tests of a driver."""

    class Suite(DriverTests):
        def make_driver(self, make_engine: Callable[[], Any], /) -> OwnLoop:
            class Driver(kit):  # type: ignore[misc, valid-type]
                def make_adapter(self, make_engine: Callable[[], Any]) -> Any:
                    return (adapter or own_loop.Adapter)(make_engine, self.selector)

                def close(self) -> None:
                    try:
                        super().close()
                    finally:
                        kept.extend(self.adapter.socks.values())
                        self.selector.close()

            return Driver(make_engine)

    Suite.forks = forks
    return Suite()


CRASHES = ["when_connected", "in_a_read", "in_a_write", "in_a_timer"]

BROKEN = [
    ("jobs", suite(kit=ReleasesNothing), "the Wait of `submit` was not released"),
    ("jobs", suite(kit=LeavesActionsAtTheEnd), STAYS),
    ("jobs", suite(kit=CallsInsideWake), "`wake` has called `next_deadline`"),
    ("slow_peer", suite(IgnoresShortReads), HANGS),
    ("peer_that_does_not_read", suite(BuffersAll), r"has taken \d{8} bytes"),
    ("peer_that_does_not_read", suite(ReadsOrWrites), HANGS),
    ("half_closed_peer", suite(KeepsSockets), STAYS),
    ("half_closed_peer_with_a_job", suite(IgnoresEnds), HANGS),
    ("large_payload", suite(WritesOnce), HANGS),
    ("connection_cut_inside_a_packet", suite(IgnoresEnds), HANGS),
    ("connection_reset_inside_a_packet", suite(IgnoresEnds), HANGS),
    ("connection_reset_during_a_write", suite(SendsOldBytes), "lost before it was"),
    ("time_limit_without_any_data", suite(kit=SleepsForever), HANGS),
    ("time_limit_without_any_data", suite(NeverActsOnTimers), HANGS),
    ("time_limit_of_connecting", suite(kit=SleepsForever), HANGS),
    ("timer_that_sends", suite(kit=SleepsForever), HANGS),
    ("timer_that_sends", suite(kit=PumpsOnlyAfterData), "after `handle_timeout`"),
    ("cancelled_call", suite(kit=ForgetsCancelledCalls), "Wait of `submit` was not released"),
    ("cancelled_call", suite(kit=DropsConnectionsOfCancelledCalls), "UNKNOWN|lost"),
    *[(f"crash_{name}", suite(LetsExceptionsPass), "this bug of the engine") for name in CRASHES],
    *[(f"crash_{name}", suite(SuppressesExceptions), "has raised Zero") for name in CRASHES],
    *[(f"crash_{name}", suite(WakesNobody), "wake` of `submit` was not") for name in CRASHES],
    ("crash_in_a_write", suite(KeepsOldConnections), STAYS),
    ("connection_ends_although_a_child_has_a_copy", suite(ClosesOnly), STAYS),
    ("child_of_a_fork", suite(forks=True), "have made 1 connections|has failed"),
]


@pytest.mark.parametrize(
    ("name", "tests", "message"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_broken_driver_is_found(name: str, tests: DriverTests, message: str) -> None:
    # A driver with another fault must not look like a hanging one on a slow machine.
    type(tests).patience = HUNG if message in (HANGS, STAYS) else PATIENCE
    # Any exception fails the test.
    with pytest.raises(Exception, match=message):
        getattr(tests, f"test_{name}")()
    while kept:
        kept.pop().close()


def test_each_test_for_drivers_has_a_broken_driver() -> None:
    names = {name for name in dir(DriverTests) if name.startswith("test_")}
    assert names == {f"test_{name}" for name, _, _ in BROKEN}
