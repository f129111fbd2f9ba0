"""Blocking calls of a simulated client or admin client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto.checks import FOR_EVER, check_seconds

from .books import EPSILON
from .nodes import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.request import GearmanJobRequest

    from .books import Entry
    from .wires import End


class Call:
    """A blocking call and its outcome.

    Attributes:
        name: The name of the method, and its arguments in short.
        begun: Start time, in seconds of virtual time.
        timeout: Timeout in seconds, or None.
        is_over: True if the call has returned or raised.
        over_at: Time at which it returned or raised, or None.
        timed_out: True if the call has timed out.
        error: The exception that it raised, or None.
        value: The return value (admin client only).
        requests: The requests that it waits for (client only).
        entries: The entries of these requests in the books.
        wait: The engine's Wait for this call.
        then: Called with the call when it is over, or None.
    """

    def __init__(self, node: CallingNode, name: str, timeout: float | None) -> None:
        if timeout is not None:
            check_seconds("timeout", timeout, 0, FOR_EVER)
        self.name = name
        self.begun: float = node.net.now
        self.timeout = timeout
        self.is_over: bool = False
        self.over_at: float | None = None
        self.timed_out: bool = False
        self.error: Exception | None = None
        self.value: Any = None
        self.requests: list[GearmanJobRequest] = []
        self.entries: Sequence[Entry] = ()
        self.wait: Wait | None = None
        self.then: Callable[[Call], object] | None = None
        self._node = node

    def __repr__(self) -> str:
        state = f"over at {self.over_at:.6f}" if self.over_at is not None else "waits"
        return f"<{self.name} of {self._node.name} at {self.begun:.6f}, {state}>"

    @property
    def deadline(self) -> float | None:
        """The deadline of the call, or None without a timeout."""
        return None if self.timeout is None else self.begun + self.timeout

    def woken(self) -> None:
        """Queue the call, as its engine has news for it: the `wake` of its Wait."""
        self._node.woken.append(self)


class CallingNode(Node):
    """A node whose application makes blocking calls."""

    # True if the engine may close a sound connection.
    _may_close = False

    def begin(self) -> None:
        """Reset the calls: a new process has none."""
        self.woken: list[Call] = []
        #: The pending calls.
        self.calls: dict[Call, None] = {}

    def died(self) -> None:
        """Drop the pending calls, as their process has died."""
        self.begin()

    def is_busy(self) -> bool:
        """Return whether a call is pending."""
        return bool(self.calls)

    def start_call(self, call: Call, function: Callable[..., Wait], *args: Any) -> Call:
        """Begin a call of the engine.

        Args:
            call: The call.
            function: The engine's method, called as
                ``function(now, wake, *args, timeout=call.timeout)``.
            args: The other arguments of `function`.
        """
        net = self.net
        self.calls[call] = None
        net.trace.add(net.now, self.name, "calls", call.name)

        def begin() -> None:
            call.wait = function(net.now, call.woken, *args, timeout=call.timeout)
            if call.wait.ready and call not in self.woken:
                self.woken.append(call)

        self.call(begin)
        if call.deadline is not None and not call.is_over:
            net.schedule(call.deadline + 2 * EPSILON, self._check_deadline, call)
        return call

    def give_up(self, call: Call) -> None:
        """Abandon `call`, as if its caller had been cancelled."""
        if call in self.calls:
            self.net.trace.add(self.net.now, self.name, "gives up", call.name)
            self.call(self._return, call)

    def _forget(self, end: End, *, closes: bool = False) -> None:
        is_meant = self.engine.closed or end.has_ended or self._may_close
        # In a slow network, a piece of a large packet can take longer than a heartbeat.
        if closes and self.net.is_prompt() and not is_meant:
            self.net.fail(f"{self.name} closes a connection, and nothing has happened")
        super()._forget(end, closes=closes)

    def _wake(self) -> bool:
        woken, self.woken = self.woken, []
        for call in woken:
            if call in self.calls:
                self._look(call)
        return bool(woken)

    def _look(self, call: Call) -> None:
        """Process the news for `call`."""
        self._return(call)

    def _return(self, call: Call) -> None:
        """End `call`, for whatever reason."""
        net, wait = self.net, call.wait
        assert wait is not None
        del self.calls[call]
        net.steps += 1
        self.engine.release(wait, net.now)
        call.is_over, call.over_at, call.timed_out = True, net.now, wait.timed_out
        try:
            call.value = self.value_of(call)
        except Exception as error:  # noqa: BLE001 - the application gets it
            call.error = error
        net.trace.add(net.now, self.name, "returns", f"{call.name} {call.error!r}")
        deadline = call.deadline
        if deadline is not None and wait.done:
            if call.timed_out and net.now < deadline - EPSILON:
                net.fail(f"{call} has timed out {deadline - net.now} seconds too early")
            if net.now > deadline + EPSILON and not self.was_frozen(deadline):
                net.fail(f"{call} is over {net.now - deadline} seconds too late")
        elif call.timed_out:
            net.fail(f"{call} has timed out, and has no timeout")
        self.returned(call)
        if call.then is not None:
            call.then(call)

    def value_of(self, call: Call) -> Any:
        """Return the result of `call`, or raise its error."""
        assert call.wait is not None
        call.wait.raise_error()

    def returned(self, call: Call) -> None:
        """Compare the outcome of `call` with the books."""

    def _check_deadline(self, call: Call) -> None:
        assert call.deadline is not None
        if call in self.calls and not self.was_frozen(call.deadline):
            self.net.fail(f"{call} should have been over at {call.deadline:.6f}")
