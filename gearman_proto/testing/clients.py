"""The client and the admin client of a simulated network, and their blocking calls."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.checks import FOR_EVER, check_seconds, check_type
from gearman_proto.constants import DEFAULT_HEARTBEAT
from gearman_proto.engines.admin import AdminEngine, AdminLink
from gearman_proto.engines.client.cancelling import CancelWait
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.engines.client.results import ResultsWait
from gearman_proto.engines.waits import Subscription
from gearman_proto.errors import ArgumentValueError, RemoteProtocolError
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.wire.text import Command

from .books import EPSILON
from .nodes import Node
from .servers import ServerNode
from .wires import HEALTHY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.request import GearmanJobRequest

    from .books import Entry
    from .simulation import Simulation
    from .wires import End


# Maximum number of unanswered packets on one connection: requests, and probes of the heartbeat.
_WINDOW: Final = 4096 + 100
# Maximum number of bytes buffered in a tunnel.
_HIDDEN: Final = 8 * 1024 * 1024


@dataclass(eq=False, repr=False)
class Call:
    """A blocking call and its outcome.

    Attributes:
        node: The node that calls.
        name: The name of the method, and its arguments in short.
        timeout: Timeout in seconds, or None.
        requests: The requests that it waits for (client only).
        entries: The entries of `requests` in the books.
        then: Called with the finished call, or None.
        begun: Start time, in seconds of virtual time.
        is_finished: True if the call has returned or raised.
        is_given_up: True if the call was given up before.
        finished_at: Time at which it returned or raised, or None.
        timed_out: True if the call has timed out.
        error: The exception that it raised, or None.
        value: The return value (admin client only).
        wait: The engine's Wait for this call.
        cancel_if_abandoned: True to cancel the jobs of an abandoned submit.
        stream: The requests that a call of `results` has not submitted.
        yielded: The entries that a call of `results` has yielded.
        window: Maximum number of entries of a call of `results` that were not yielded.
        size: The number of jobs of a call of `results`.
    """

    node: CallingNode
    name: str
    timeout: float | None
    requests: Sequence[GearmanJobRequest] = ()
    entries: Sequence[Entry] = ()
    then: Callable[[Call], object] | None = None
    is_finished: bool = False
    is_given_up: bool = False
    finished_at: float | None = None
    timed_out: bool = False
    error: Exception | None = None
    value: Any = None
    wait: Wait | None = None
    cancel_if_abandoned: bool = False
    stream: Iterator[GearmanJobRequest] = field(default_factory=lambda: iter(()))
    yielded: set[Entry] = field(default_factory=set)
    window: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, 0, FOR_EVER)
        self.begun: float = self.node.net.now

    def __repr__(self) -> str:
        state = f"finished at {self.finished_at:.6f}" if self.finished_at is not None else "waits"
        return f"<{self.name} of {self.node.name} at {self.begun:.6f}, {state}>"

    @property
    def deadline(self) -> float | None:
        """The deadline of the call, or None without a timeout."""
        return None if self.timeout is None else self.begun + self.timeout

    def woken(self) -> None:
        """Queue the call, as its engine has news for it: the `wake` of its Wait."""
        self.node.woken.append(self)


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

    def close(self) -> None:
        """Close all connections and end all calls."""
        self.call(self.engine.close, self.net.now)

    def start_call(self, call: Call, function: Callable[..., Wait], *args: Any) -> Call:
        """Begin a call of the engine.

        Args:
            call: The call.
            function: The engine's method, called as
                ``function(now, wake, *args, timeout=call.timeout)``.
            args: The other arguments of `function`.
        """
        net = self.net
        self.note("calls", call.name)

        def begin() -> None:
            call.wait = function(net.now, call.woken, *args, timeout=call.timeout)
            self.calls[call] = None
            if call.wait.ready and call not in self.woken:
                self.woken.append(call)

        self.call(begin)
        if call.deadline is not None and not call.is_finished:
            net.schedule(call.deadline + 2 * EPSILON, self._check_deadline, call)
        return call

    def give_up(self, call: Call) -> None:
        """Abandon `call`, as if its caller had been cancelled."""
        if call in self.calls:
            self.note("gives up", call.name)
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
        call.is_given_up = not wait.done  # `release` finishes some Waits.
        self.engine.release(wait, net.now)
        call.is_finished, call.finished_at, call.timed_out = True, net.now, wait.timed_out
        try:
            call.value = self.value_of(call)
        except Exception as error:  # noqa: BLE001 - the application gets it
            call.error = error
        self.note("returns", f"{call.name} {call.error!r}")
        deadline = call.deadline
        if deadline is not None and not call.is_given_up:
            if call.timed_out and net.now < deadline - EPSILON:
                net.fail(f"{call} has timed out {deadline - net.now} seconds too early")
            if net.now > deadline + EPSILON and not self.was_frozen(deadline):
                net.fail(f"{call} has finished {net.now - deadline} seconds too late")
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
            self.net.fail(f"{call} should have finished at {call.deadline:.6f}")


class ClientNode(CallingNode):
    """A client.

    Args:
        net: The network.
        name: Its name.
        servers: Its servers.
        options: Passed to ClientEngine. Its clock and its random numbers are set by the node.
    """

    engine: ClientEngine

    def __init__(self, net: Simulation, name: str, servers: Sequence[Node], **options: Any) -> None:
        def make(node: ClientNode) -> ClientEngine:
            return ClientEngine(node.addresses, rng=node.rng, wall_clock=node.wall_clock, **options)

        super().__init__(net, name, make, servers)
        heartbeat = options.get("heartbeat", DEFAULT_HEARTBEAT)
        # Seconds after which the client must have given up a silent server, with some tolerance.
        self._patience = None if heartbeat is None else 2 * heartbeat + 2.5
        self.begin()

    def begin(self) -> None:
        """Reset the state of the application: a new process has no calls and no requests."""
        super().begin()
        self._is_watched = False
        self._entries: dict[int, Entry] = {}

    def submit(
        self,
        jobs: Sequence[Mapping[str, Any]],
        *,
        background: bool = False,
        max_retries: int = 0,
        accepted_only: bool = False,
        cancel_if_abandoned: bool = False,
        timeout: float | None = None,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        """Submit jobs, and wait for them.

        Args:
            jobs: Dicts with `task` and `data`, as for `submit_multiple_jobs`.
            background: True to submit background jobs, whose results are not returned.
            max_retries: Maximum number of times to send a lost submit again.
            accepted_only: True to wait only until the servers have acknowledged the jobs.
            cancel_if_abandoned: True to cancel the jobs if the call times out, is given up, or
                fails.
            timeout: Timeout in seconds of virtual time, or None.
            then: Called with the call when it is over.

        Returns:
            The call. It ends while the network runs.

        Raises:
            TypeError, ValueError: A job is invalid.
        """
        requests = make_requests(jobs, background=background, max_retries=max_retries)
        prepare(requests, NoopEncoder)
        net = self.net
        entries = [net.books.submitted(self, request, net.now) for request in requests]
        self._entries.update((id(entry.request), entry) for entry in entries)
        name = f"submit {[entry.number for entry in entries]}"
        call = Call(self, name, timeout, requests, entries, then)
        call.cancel_if_abandoned = cancel_if_abandoned
        submit = functools.partial(self.engine.submit, accepted_only=accepted_only)
        return self.start_call(call, submit, requests)

    def results(
        self,
        jobs: Sequence[Mapping[str, Any]],
        window: int,
        *,
        max_retries: int = 0,
        timeout: float | None = None,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        """Submit a stream of foreground jobs, like `ClientEngine.results`.

        Args:
            jobs: Dicts with `task` and `data`.
            window: Maximum number of jobs in flight.
            max_retries: Maximum number of times to send a lost submit again.
            timeout: Timeout in seconds of virtual time, or None.
            then: Called with the call when it is over.

        Raises:
            TypeError, ValueError: A job is invalid.
        """
        requests = make_requests(jobs, background=False, max_retries=max_retries)
        prepare(requests, NoopEncoder)
        call = Call(self, f"results of {len(requests)} jobs", timeout, [], [], then)
        call.stream, call.window = iter(requests), window
        call.size = len(requests)
        begin = functools.partial(self._begin_results, call)
        return self.start_call(call, begin)

    def _begin_results(
        self, call: Call, now: float, wake: Callable[[], Any], *, timeout: float | None
    ) -> Wait:
        wait = self.engine.results(now, wake, call.window, timeout=timeout)
        self._feed(call, wait)
        return wait

    def _feed(self, call: Call, wait: ResultsWait) -> None:
        """Submit the next jobs of a stream, as long as slots are free."""
        net = self.net
        while wait.wants_job:
            net.steps += 1
            request = next(call.stream, None)
            if request is None:
                self.engine.end_of_jobs(net.now, call.woken, wait)
                return
            entry = net.books.submitted(self, request, net.now)
            self._entries[id(request)] = entry
            call.requests = [*call.requests, request]
            call.entries = [*call.entries, entry]
            self.engine.add(net.now, call.woken, wait, request)
            if len(call.entries) - len(call.yielded) > call.window:
                net.fail(f"{call} has more than {call.window} jobs in flight")

    def _take(self, call: Call, wait: ResultsWait) -> None:
        """Take the requests that have ended, and submit the next jobs of the stream."""
        while (request := wait.take()) is not None:
            entry = self._entry(request)
            if entry in call.yielded or request._gm_link is not None:
                self.net.fail(f"{call} has yielded {entry} twice, or before its end: {request!r}")
            call.yielded.add(entry)
        self._feed(call, wait)

    def wait(
        self,
        requests: Sequence[GearmanJobRequest],
        *,
        timeout: float | None = None,
        as_completed: bool = False,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        """Wait for requests that were submitted before.

        Args:
            requests: The requests of an earlier call of this client.
            timeout: Timeout in seconds of virtual time, or None.
            as_completed: True to return the requests one by one as they end, like
                `ClientEngine.as_completed`; False to return when all have ended.
            then: Called with the call when it is over.

        Raises:
            ValueError: A request was not submitted by this client.
        """
        entries = [self._entry(each) for each in requests]
        name = f"wait {[entry.number for entry in entries]}"
        call = Call(self, name, timeout, requests, entries, then)
        method = self.engine.as_completed if as_completed else self.engine.wait_completed
        return self.start_call(call, method, list(requests))

    def updates(self, *requests: GearmanJobRequest, timeout: float | None = None) -> Call:
        """Receive the updates of requests until they end.

        Args:
            requests: Foreground requests of earlier calls of this client.
            timeout: Timeout in seconds of virtual time, or None.

        Raises:
            ValueError: A request was not submitted by this client, or is a background request.
        """
        entries = [self._entry(each) for each in requests]
        name = f"updates {[entry.number for entry in entries]}"
        call = Call(self, name, timeout, requests, entries)
        return self.start_call(call, self.engine.updates, requests)

    def cancel(
        self,
        requests: Sequence[GearmanJobRequest],
        *,
        timeout: float | None = None,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        """Cancel the jobs of requests, like `ClientEngine.cancel`.

        Args:
            requests: Requests of earlier calls of this client.
            timeout: Timeout in seconds of virtual time, or None.
            then: Called with the call when it is over.

        Raises:
            ValueError: A request was not submitted by this client.
            InvalidClientState: A request was lost before a server has acknowledged it.
        """
        entries = [self._entry(each) for each in requests]
        return self._cancel(entries, requests, self.engine.cancel, timeout, then)

    def _cancel(
        self,
        entries: Sequence[Entry],
        requests: Sequence[GearmanJobRequest],
        method: Callable[..., Wait],
        timeout: float | None = None,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        for entry in entries:
            entry.is_cancelled = True
        name = f"cancel {[entry.number for entry in entries]}"
        call = Call(self, name, timeout, requests, entries, then)
        return self.start_call(call, method, requests)

    def _cancel_abandoned(self, call: Call) -> None:
        """Cancel the requests that `call` has left in flight.

        Requests with a unique of the application, and those of other calls, go on.
        """
        has_returned = not call.is_given_up and call.error is None
        others = {
            entry
            for each in self.calls
            if not isinstance(each.wait, CancelWait)
            for entry in each.entries
        }
        entries = [
            entry
            for entry, request in zip(call.entries, call.requests)
            if request._gm_link is not None
            and entry.unique is None
            and entry not in others
            and (request.timed_out or not has_returned)
        ]
        method = functools.partial(self.engine.cancel_abandoned, has_returned=has_returned)
        self._cancel(entries, call.requests, method)

    def statuses(
        self, requests: Sequence[GearmanJobRequest], *, timeout: float | None = None, **options: Any
    ) -> Call:
        """Ask for the status of requests.

        Args:
            requests: Requests of an earlier call of this client, which have a handle or a unique.
            timeout: Timeout in seconds of virtual time, or None.
            options: As for `status_queries`.
        """
        call = Call(self, "statuses", timeout, requests)
        there = self._known(requests)

        def over(call: Call) -> None:
            # A job that existed during the whole call must be reported as known.
            if call.wait is not None and call.wait.done and not call.timed_out and not call.error:
                for at, handle in there & self._known(requests):
                    if not requests[at].status.get("known"):
                        self.net.fail(f"{self.name} was not told of {handle!r}: {requests[at]!r}")

        call.then = over
        queries = status_queries(self.engine.pool, requests, **options)
        return self.start_call(call, self.engine.statuses, requests, queries)

    def _entry(self, request: GearmanJobRequest) -> Entry:
        """Return the books' entry of a request.

        Raises:
            ValueError: `request` was not submitted by this client.
        """
        entry = self._entries.get(id(request))
        if entry is None:
            raise ArgumentValueError(f"{request!r} is no request that {self.name} has submitted")
        return entry

    def _known(self, requests: Sequence[GearmanJobRequest]) -> set[tuple[int, bytes]]:
        """Return index and handle of each job on a server that matches a request by unique."""
        asked = [
            (at, (request.unique or "").encode())
            for at, request in enumerate(requests)
            if request.handle is None and request.connection is None
        ]
        servers = [each for each in self.servers.values() if isinstance(each, ServerNode)]
        jobs = [job for server in servers for job in server.engine.queue.jobs.values() if asked]
        return {(at, job.handle) for job in jobs for at, unique in asked if job.unique == unique}

    def forget(self, call: Call) -> None:
        """Release the requests of `call`, which is over."""
        for entry in call.entries:
            self._entries.pop(id(entry.request), None)
            entry.request = None
        call.requests = ()
        # The wait forms a reference cycle with the call. Break the cycle now: the time of a garbage
        # collection must not influence the run.
        call.wait = None

    def close(self) -> None:
        """Close all connections and end all calls."""
        self.note("ends")
        requests = [entry.request for entry in self._entries.values() if entry.request is not None]
        self.last_refusal: float = self.net.now
        states = [
            (each, each.state, bool(each._gm_waits))
            for each in requests
            if each._gm_link is not None
        ]
        super().close()
        for request, state, was_waited_for in states:
            if was_waited_for == (request.state == state):
                self.net.fail(f"{self.name} has ended, and with it {request!r}, which was {state}")
        for entry in self._entries.values():
            entry.request = None
        self._entries.clear()

    def _write(self, end: End) -> bool:
        wrote = super()._write(end)
        if end.link.connection.unanswered > _WINDOW:
            self.net.fail(f"{self.name} does not wait for answers any more")
        return wrote

    def start_call(self, call: Call, function: Callable[..., Any], *args: Any) -> Call:
        """Begin `call`, and check later that it does not wait for a silent server."""
        super().start_call(call, function, *args)
        if self._patience is not None and not self._is_watched:
            self._is_watched = True
            self.net.schedule(self.net.now + self._patience, self._check_silence)
        return call

    def _check_silence(self) -> None:
        net = self.net
        self._is_watched = bool(self.calls)
        if not self._is_watched or self._patience is None:
            return
        for end in self.ends.values():
            if isinstance(end.link, AdminLink):
                continue  # Its questions have deadlines.
            since = net.now - self._patience
            if not end.is_healthy():
                # A tunnel might still hold the written bytes. Allow the time to send them.
                since -= min(end.written, _HIDDEN) / HEALTHY
            is_silent = end.link.is_up and end.link.is_awaited() and not end.is_blocked
            is_late = self.was_frozen(since, net.now)
            last = max(end.heard_at, end.wrote_at, end.moved_at)
            if is_silent and last < since and not is_late:
                net.fail(f"{self.name} waits for {end.peer.node.name}, silent since {end.heard_at}")
        net.schedule(net.now + self._patience, self._check_silence)

    def _may_leave(self, end: End) -> bool:
        return self.engine.closed or isinstance(end.link, AdminLink)

    def is_busy(self) -> bool:
        """Return whether a call is pending, or the engine still has packets or jobs in flight."""
        is_asking = any(
            isinstance(link, AdminLink) and (link.asked is not None or not link.is_up)
            for link in self.ends
        )
        return (
            bool(self.calls)
            or is_asking
            or any(
                link.outbox or link.ahead or link.jobs or link.connection.unanswered
                for link in self.engine.pool.links()
            )
        )

    def _look(self, call: Call) -> None:
        wait = call.wait
        if not isinstance(wait, Subscription):
            self._return(call)
            return
        done = wait.done
        if call.name.startswith("updates"):
            for entry in call.entries:
                self.net.books.told(entry)
            wait.news = False
        elif isinstance(wait, ResultsWait):
            self._take(call, wait)
        else:
            while wait.take() is not None:
                pass
        if done:
            self._return(call)

    def returned(self, call: Call) -> None:
        """Compare the outcome of `call` with the books."""
        net = self.net
        wait = call.wait
        is_over = not (call.is_given_up or call.error or call.timed_out)
        if is_over and isinstance(wait, ResultsWait) and len(call.yielded) < call.size:
            net.fail(f"{call} is over, and has yielded only {len(call.yielded)} requests")
        for entry in call.entries:
            net.books.told(entry)
            request = entry.request
            if request is None or call.is_given_up or call.error is not None:
                continue
            if isinstance(wait, CancelWait):
                if not call.timed_out:
                    self._check_cancelled(entry)
                continue
            is_enough = request._gm_link is None or (
                getattr(wait, "accepted_only", False) and request.handle is not None
            )
            # Another call still waits for the request and has reset its `timed_out`.
            goes_on = call.timed_out and bool(request._gm_waits)
            if not (is_enough or request.timed_out or goes_on or self.engine.closed):
                net.fail(f"{call} is over, and {entry} is still under way: {request!r}")
        if call.cancel_if_abandoned:
            self._cancel_abandoned(call)

    def _check_cancelled(self, entry: Entry) -> None:
        """Check that nothing is left of a job after its cancellation."""
        books, key = self.net.books, entry.key
        if key is None:
            return
        server = self.servers[key[0]]
        if isinstance(server, ServerNode) and key[1].encode() in server.engine.queue.jobs:
            self.net.fail(f"{entry} was cancelled, and {server.name} still has its job {key[1]}")
        if entry.outcome is None and not entry.background and key in books.cancelled:
            self.net.fail(f"{entry} was cancelled, and is still under way")


class AdminNode(CallingNode):
    """An admin client.

    Args:
        net: The network.
        name: Its name.
        server: Its server.
        options: Passed to AdminEngine.
    """

    engine: AdminEngine

    def __init__(self, net: Simulation, name: str, server: Node, **options: Any) -> None:
        super().__init__(net, name, lambda node: AdminEngine(node.addresses, **options), [server])
        self.begin()

    def ask(
        self,
        command: Command[Any],
        *,
        timeout: float | None = 10.0,
        then: Callable[[Call], object] | None = None,
    ) -> Call:
        """Send a text command to the server.

        Args:
            command: A command of `gearman_proto.wire.text`.
            timeout: Timeout in seconds of virtual time, or None.
            then: Called with the call when it is over.

        Raises:
            TypeError: `command` is not a Command.
        """
        check_type("command", command, Command, "one of those in gearman_proto.text")
        call = Call(self, f"ask {command.line!r}", timeout, then=then)
        return self.start_call(call, self.engine.ask, command)

    def ping(self, *, timeout: float | None = 10.0) -> Call:
        """Ask whether the server responds; `timeout` is as for `ask`."""
        return self.start_call(Call(self, "ping", timeout), self.engine.ping)

    def give_up(self, call: Call) -> None:
        """Abandon `call`, which can close the connection."""
        self._may_close = True
        super().give_up(call)

    def value_of(self, call: Call) -> Any:
        """Return the reply, or raise the error."""
        return call.wait.value if call.wait is not None and call.wait.done else None  # type: ignore[attr-defined]

    def returned(self, call: Call) -> None:
        """Check that the client has not rejected a reply.

        The servers send only valid replies.
        """
        if isinstance(call.error, RemoteProtocolError):
            self.net.fail(f"{call} has raised {call.error!r}")
