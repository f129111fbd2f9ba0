"""A proxy of an engine that finds the mistakes of its driver.

The proxy sees each call of the engine before the engine does. It keeps the state that the contract
gives to the driver's side: the call in progress, the last time, the state of each link for the
driver, the Waits that no call has released, and the calls after which the driver has not yet
requested actions or links to write.
"""

# ruff: noqa: D102 - `Engine` documents the methods of the transport side

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from gearman_proto.engines.base import Close, Connect, LinkState
from gearman_proto.engines.waits import Wait

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable

    from gearman_proto.engines.base import Action, Engine

L = TypeVar("L")
T = TypeVar("T")

# Methods that only read the engine's state. A thread can call them at any time.
_READS: Final = frozenset({"has_jobs"})
_ARGUMENT_ERRORS: Final = (TypeError, ValueError)

# States of a link for the driver. The value of each but _OPEN completes "data was received ...".
_CONNECTING: Final = "before `connected`"
_OPEN: Final = ""
_HALF_CLOSED: Final = "after `receive_eof`"
_LOST: Final = "after the report of its end"
_CLOSED: Final = "after `next_action` had returned its Close"
_UNKNOWN: Final = "from a link of another engine"
_CURES: Final = {
    _CONNECTING: "report `connected` first, after the TLS handshake",
    _HALF_CLOSED: "read no more after the end of the stream",
    _LOST: "close the socket and forget the link",
    _CLOSED: "close the socket and forget the link as soon as you get the Close",
    _UNKNOWN: "when you replace an engine, close the connections of the old one",
}


class DriverError(AssertionError):
    """A driver has made a mistake. The message names the mistake, the call and the cure."""


class StrictEngine(Generic[L]):
    """A proxy of an engine that raises if its driver breaks the contract of `Engine`.

    Use it in a driver's tests in place of the engine. It has all attributes of the engine, and
    each call has the same effect and result, unless it is a mistake:

    ==============================  ================================================================
    mistake                         found when
    ==============================  ================================================================
    A call inside `wake`            `wake` makes the call
    Two calls at the same time      a thread, a signal handler or a finalizer makes the second one
    A clock that runs backwards     a call gets an earlier time than one before
    Actions left                    the driver calls `next_deadline`, to sleep, or `handle_timeout`
                                    for a second time, and `next_action` has not returned None since
                                    an earlier call
    Output left                     the same, but the driver has not called `links_to_write`
    Data of a link that is not      `receive_data` gets data from a link before `connected`, after
    open                            its end was reported, or after its Close was returned; or from
                                    a link of another engine
    `connected` after a Close       the driver calls it
    Data despite a backlog          `receive_data` gets data from a link while it `has_backlog`
    A wrong measurement             `measured` gets a link that the last call of `links_to_measure`
                                    has not returned
    A broken engine in use          any call but `abandon` follows an exception of the engine
    An abandoned engine in use      any call but `release` follows `abandon`, unless the engine was
                                    closed
    A Wait never released           `check_end`
    An engine never closed          `check_end`
    Callers not woken               `check_end`: after `abandon`, the driver has not called `wake`
                                    of each returned Wait
    ==============================  ================================================================

    The other rules concern code that a proxy can't see: whether a driver writes all bytes, sleeps
    until the deadline, and calls `raise_error`. `gearman_sync.testing.DriverTests` tests these.

    For type checkers, a StrictEngine is an `Engine`. The methods of the caller's side are `Any`.

    Args:
        engine: A client's, worker's, admin client's or server's engine.
    """

    def __init__(self, engine: Engine[L]) -> None:
        #: The errors raised so far. A driver might log and suppress what its engine raises.
        self.mistakes: list[DriverError] = []
        self._gm_engine = engine
        # The call in progress, and whether it has called a `wake` that has not returned.
        self._gm_current: str | None = None
        self._gm_is_waking = False
        self._gm_now = -math.inf
        # The last call after which the driver has not received None from `next_action`, and the
        # last one after which it has not called `links_to_write`.
        self._gm_unfinished: str | None = None
        self._gm_unwritten: str | None = None
        # True if `handle_timeout` was called and `next_action` has not returned None since.
        self._gm_is_late = False
        # The states of links, and the result of the last `links_to_measure`.
        self._gm_links: dict[L, str] = {}
        self._gm_late: list[L] = []
        # The Waits to release, with the calls that have returned them and their `wake`.
        self._gm_waits: dict[Wait, tuple[str, Callable[[], Any]]] = {}
        # The `wake` of each Wait that `abandon` has returned, until the driver has called it, and
        # the name of the call.
        self._gm_asleep: dict[Callable[[], Any], str] = {}
        # The call that has raised an exception, and the exception.
        self._gm_broken: str | None = None
        self._gm_is_abandoned = False

    def __repr__(self) -> str:
        return f"StrictEngine({self._gm_engine!r})"

    def check_end(self) -> None:
        """Check the rules for the end, after the driver has ended.

        Raises:
            DriverError: The first mistake, even if it was raised before.
        """
        if self.mistakes:
            raise self.mistakes[0]
        if self._gm_asleep:
            self._gm_fail(
                f"`wake` of {_listed(self._gm_asleep.values())} was not called after `abandon`",
                "call `wake` of each Wait that `abandon` returns",
            )
        if self._gm_is_abandoned and not self.closed:
            return
        if not self.closed:
            self._gm_fail("the engine was not closed", "call `close` at the end")
        if self._gm_waits:
            names = _listed(name for name, _ in self._gm_waits.values())
            self._gm_fail(
                f"the Wait of {names} was not released",
                "call `release` as soon as the caller stops waiting, even if it gives up early",
            )

    # The caller's side, and everything else.

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._gm_engine, name)
        if name.startswith("_") or name in _READS or not callable(value):
            return value
        return partial(self._gm_ask, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        # A test's replacement of a method stays here, since it may call the method of the proxy.
        is_method = callable(value) and not name.startswith("_")
        if is_method or name == "mistakes" or name.startswith("_gm_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._gm_engine, name, value)

    def _gm_ask(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        bound = inspect.signature(method).bind(*args, **options)
        values = bound.arguments
        self._gm_check(name, values.get("now"))
        self._gm_unfinished = self._gm_unwritten = name
        if "wake" in values:
            values["wake"] = self._gm_waking(values["wake"])
        # Calls of the caller's side check their arguments before they change anything.
        result = self._gm_call(name, partial(method, *bound.args, **bound.kwargs), _ARGUMENT_ERRORS)
        if isinstance(result, Wait):
            self._gm_waits[result] = name, values["wake"]
        elif name == "accept":
            is_connecting = result.state is LinkState.CONNECTING
            self._gm_links[result] = _CONNECTING if is_connecting else _OPEN
        return result

    # The transport side: input.

    @property
    def closed(self) -> bool:
        return self._gm_engine.closed

    @property
    def notices(self) -> deque[str]:
        return self._gm_engine.notices

    def connected(self, link: L, now: float) -> None:
        state = self._gm_links.get(link, _UNKNOWN)
        if state in (_CLOSED, _UNKNOWN):
            self._gm_fail(f"`connected` was called {state}: {link!r}", _CURES[state])
        self._gm_tell("connected", link, now=now)
        self._gm_links[link] = _OPEN

    def connecting(self, link: L, now: float) -> None:
        self._gm_tell("connecting", link, now=now)

    def connect_failed(self, link: L, error: Exception, now: float) -> None:
        self._gm_tell("connect_failed", link, error, now=now)
        self._gm_end(link, _LOST)

    def receive_data(self, link: L, data: bytes, now: float) -> None:
        state = self._gm_links.get(link, _UNKNOWN)
        if state is not _OPEN:
            self._gm_fail(f"`receive_data` was called {state}: {link!r}", _CURES[state])
        if getattr(link, "has_backlog", False):
            self._gm_fail(
                f"`receive_data` was called while {link!r} has a backlog",
                "do not read from a link while its `has_backlog` is true",
            )
        self._gm_tell("receive_data", link, data, now=now)

    def receive_eof(self, link: L, now: float) -> None:
        self._gm_tell("receive_eof", link, now=now)
        self._gm_end(link, _HALF_CLOSED)

    def connection_lost(self, link: L, error: Exception, now: float) -> None:
        self._gm_tell("connection_lost", link, error, now=now)
        self._gm_end(link, _LOST)

    def handle_timeout(self, now: float) -> None:
        if self._gm_is_late:
            self._gm_check_round("handle_timeout")
        self._gm_tell("handle_timeout", now=now)
        self._gm_is_late = True

    def links_to_measure(self, now: float) -> Iterable[L]:
        self._gm_check("links_to_measure", now)
        call = partial(self._gm_engine.links_to_measure, now)
        self._gm_late = list(self._gm_call("links_to_measure", call))
        return self._gm_late

    def measured(self, link: L, unacknowledged: int) -> None:
        self._gm_check("measured")
        if link not in self._gm_late:
            self._gm_fail(
                f"`measured` was called for {link!r}, which is not late",
                "measure the links that the last call of `links_to_measure` has returned",
            )
        self._gm_call("measured", partial(self._gm_engine.measured, link, unacknowledged))

    # The transport side: output.

    def next_action(self) -> Action | None:
        self._gm_check("next_action")
        action = self._gm_call("next_action", self._gm_engine.next_action)
        if isinstance(action, Connect):
            self._gm_links[action.link] = _CONNECTING
        elif isinstance(action, Close):
            self._gm_links[action.link] = _CLOSED
        elif action is None:
            self._gm_unfinished = None
            self._gm_is_late = False
        return action

    def links_to_write(self) -> Iterable[L]:
        self._gm_check("links_to_write")
        self._gm_unwritten = None
        return self._gm_call("links_to_write", self._gm_engine.links_to_write)

    def data_to_send(self, link: L, now: float) -> bytes:
        self._gm_check("data_to_send", now)
        self._gm_unfinished = "data_to_send"
        return self._gm_call("data_to_send", partial(self._gm_engine.data_to_send, link, now))

    def next_deadline(self) -> float | None:
        self._gm_check("next_deadline")
        self._gm_check_round("next_deadline")
        return self._gm_call("next_deadline", self._gm_engine.next_deadline)

    # The transport side: Waits and the end.

    def release(self, wait: Wait, now: float) -> None:
        self._gm_check("release", now)
        self._gm_unfinished = "release"
        self._gm_call("release", partial(self._gm_engine.release, wait, now))
        # The driver may still release a Wait of an engine that this one has replaced.
        self._gm_waits.pop(wait, None)

    def close(self, now: float) -> None:
        self._gm_tell("close", now=now)

    def abandon(self, error: Exception) -> list[Wait]:
        # A driver calls this after any exception. That of a signal handler may have hit the proxy.
        self._gm_current, self._gm_is_waking = None, False
        waits = self._gm_call("abandon", partial(self._gm_engine.abandon, error))
        self._gm_is_abandoned = True
        for wait in waits:
            name, wake = self._gm_waits.get(wait, ("", None))
            if wake is wait.wake:  # An adapter can replace it.
                self._gm_asleep[wait.wake] = name
        self._gm_waits.clear()
        return waits

    # The checks.

    def _gm_fail(self, mistake: str, cure: str) -> NoReturn:
        error = DriverError(f"{mistake}; {cure}")
        self.mistakes.append(error)
        raise error

    def _gm_check(self, name: str, now: float | None = None) -> None:
        """Check a call for the mistakes that each call can be."""
        if self._gm_current is not None and self._gm_is_waking:
            self._gm_fail(
                f"`wake` has called `{name}` in the middle of `{self._gm_current}`",
                "`wake` must only wake the caller, so leave the call to your loop",
            )
        if self._gm_current is not None:
            self._gm_fail(
                f"`{name}` was called in the middle of `{self._gm_current}`",
                "make one call at a time: threads need a lock, and the calls of signal handlers "
                "and finalizers have to wait until the current one has returned",
            )
        if self._gm_is_abandoned:
            if name != "release" and not self.closed:
                self._gm_fail(f"`{name}` was called after `abandon`", "make a new engine to use")
        elif self._gm_broken is not None:
            self._gm_fail(
                f"`{name}` was called although {self._gm_broken}",
                "call `abandon` of the broken engine, and make a new one",
            )
        if now is not None:
            if not now >= self._gm_now:
                self._gm_fail(
                    f"`{name}` was called at {now!r}, after a call at {self._gm_now!r}",
                    "get all times from one monotonic clock",
                )
            self._gm_now = now

    def _gm_check_round(self, name: str) -> None:
        """Check that the driver has finished a round, and can sleep."""
        if self._gm_unfinished is not None:
            self._gm_fail(
                f"`{name}` was called, but not `next_action` after `{self._gm_unfinished}`",
                "carry out the actions after each call, until `next_action` returns None",
            )
        if self._gm_unwritten is not None:
            self._gm_fail(
                f"`{name}` was called, but not `links_to_write` after `{self._gm_unwritten}`",
                "write the data of `links_to_write` after each call",
            )

    # Making calls.

    def _gm_waking(self, wake: Callable[[], Any]) -> Callable[[], Any]:
        """Return a `wake` for the engine that notes while it runs."""

        def waking() -> Any:
            self._gm_asleep.pop(waking, None)
            outer, self._gm_is_waking = self._gm_is_waking, True
            try:
                return wake()
            finally:
                self._gm_is_waking = outer

        return waking

    def _gm_tell(self, name: str, *args: Any, now: float) -> None:
        """Make a call that can create actions and output."""
        self._gm_check(name, now)
        self._gm_unfinished = self._gm_unwritten = name
        self._gm_call(name, partial(getattr(self._gm_engine, name), *args, now))

    def _gm_end(self, link: L, state: str) -> None:
        """Note the end of `link` or of its input, unless it is reported again."""
        if self._gm_links.get(link) in (_CONNECTING, _OPEN, _HALF_CLOSED):
            self._gm_links[link] = state

    def _gm_call(
        self,
        name: str,
        call: Callable[[], T],
        harmless: tuple[type[Exception], ...] = (),
    ) -> T:
        """Make a call that was checked. Any exception but a harmless one breaks the engine."""
        self._gm_current = name
        try:
            return call()
        except harmless:
            raise
        except BaseException as error:
            self._gm_broken = f"`{name}` has raised {error!r}"
            raise
        finally:
            self._gm_current = None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(f"`{name}`" for name in names))
