"""The client engine (tier 2): the states of requests, without I/O.

The module `answers` processes the packets that servers send.

Places of a request
    A request in flight is in exactly one place of the link in `request._gm_link`:

    ===========  ============================================  =================
    state        place                                         left by
    ===========  ============================================  =================
    PENDING      `link.outbox`: not sent                       `data_to_send`
    PENDING      the Connection's queue of the unanswered      JOB_CREATED, ERROR
    CREATED      `link.jobs[handle]`, if it is foreground      its terminal packet
    ===========  ============================================  =================

    The jobs of a large call are in columns, without requests: see `link.batches` and the module
    `batch`. Background jobs are sent from the columns, and the requests of foreground jobs are
    added to the outbox, when that is empty. Before the engine drops a link or ends a call, it makes
    all requests of the call.

    Requests that share a unique chosen by the application also share a Submit in the first two
    places; see `foreground`.

    Losing the link empties all three places. The engine submits unacknowledged requests again on
    another link, as long as they have attempts left. Acknowledged requests become JOB_UNKNOWN: the
    engine calls `tracking.finish`.

    The engine never searches these places for a request: each packet leads to its request.

    When the application closes its client, requests without a waiting call keep their state and
    are orphaned.

Choice of a server
    The pool chooses a server. If its connection does not open soon, the engine also connects to
    another server and moves the request there, and so on. The first connection that opens takes
    over all waiting requests. RFC 8305 does the same with the addresses of one name. A request
    routed by its unique stays with its server until that connection has failed. The other
    connections are opened meanwhile, but do not take it over.

The module `heartbeat` detects dead servers. A limit bounds the backlog of a server that does not
answer: the engine gives a server no request while more than `max_abandoned` bytes of abandoned
calls are buffered for it. Bytes of calls that still wait do not count.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import chain
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from gearman_proto import constants
from gearman_proto.checks import check_count, check_packet_size, check_seconds, deadline_of
from gearman_proto.constants import JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.engines.admin import AdminEngine, AdminLink
from gearman_proto.engines.base import CONNECTING, OPEN, WAITING
from gearman_proto.engines.connecting import ConnectingEngine
from gearman_proto.engines.servers import Server, ServerPool
from gearman_proto.engines.waits import (
    RequestsWait,
    SingleSubscription,
    Subscription,
    UpdateSubscription,
    Wait,
    wake_nobody,
)
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    InvalidClientState,
    LocalProtocolError,
    RemoteProtocolError,
    ServerUnavailable,
)
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.jobs import tracking
from gearman_proto.jobs.batch import Batch, made, untouched
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import check_followed, check_requests, submit_event
from gearman_proto.names import to_wire
from gearman_proto.wire.packets import OptionReq

from .cancelling import (
    ANSWER_TIMEOUT,
    QUEUED,
    UNKNOWN,
    Cancel,
    CancelWait,
    check_cancelled,
    is_followed,
)
from .foreground import LoneRef, RequestRef, Submit
from .link import (
    ITEM_COST,
    LARGE,
    TRIAL,
    ClientLink,
    abandoned_size,
    requests_of,
    take_submits,
)
from .queries import Arrival, Asked, Probe, Query, StatusWait
from .replies import ReplyHandler
from .results import ResultsWait
from .unserved import UnservedFunctions

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from gearman_proto.address import ServerAddress

# Maximum number of bytes to encode at a time: large enough to keep a server busy, small enough to
# start sending early.
_CHUNK_SIZE: Final = 65536
# Maximum number of unanswered requests per link. gearmand reads all received data before it
# answers. It would answer a client that never pauses only at the end, and client and server would
# idle in turn. The limit also bounds the number of requests that a lost link leaves in doubt.
_WINDOW: Final = 4096
# Seconds before the client also connects to another server (RFC 8305, section 5).
_HEAD_START: Final = 0.25
_RACE: Final = "race"
# Maximum number of uniques to generate at a time.
_UNIQUES: Final = 1024
_MAX_NOTICES: Final = 100
#: A connection for jobs, or the admin connection to a server.
AnyLink: TypeAlias = ClientLink | AdminLink
_W = TypeVar("_W", bound=Wait)
_R = TypeVar("_R", bound=RequestsWait)


# Requests WORK_EXCEPTION packets. The first item in a link's outbox.
_GREETING: Final = Probe(OptionReq(b"exceptions"))


class ClientEngine(ConnectingEngine[AnyLink]):
    """The engine of a client.

    See `Engine` for the transport side. On the caller's side, `submit`, `wait_completed`,
    `as_completed`, `results`, `updates`, `cancel`, `statuses`, `connect` and `wait_for_servers`
    each return a Wait. The caller blocks until `wait.ready`, always calls `release` (even if it
    gives up early), and then calls `wait.raise_error()`. Before `submit`, it must call
    `submitting.prepare`, in a context where the application's encoder is allowed to run.

    Args:
        addresses: The addresses of the servers.
        rng: The random number generator. After a fork, two processes must not share its state, or
            they would generate the same uniques. `random.SystemRandom` has no state.
        wall_clock: Function that returns the seconds since 1970.
        routing: ``"random"`` or ``"unique"``; see ServerPool.
        unique_bytes: Number of random bytes in a generated unique, 1 to 31.
        exceptions: True to request WORK_EXCEPTION from servers, which otherwise send WORK_FAIL.
        connect_timeout: Seconds to wait for a connection.
        max_packet_size: Maximum size of a packet in bytes. If a server sends a larger one, the
            engine closes the connection.
        heartbeat: If the client waits for a server and the server is silent for this many seconds,
            the engine probes it. After the same time without an answer, the engine closes the
            connection. None disables the probes.
        max_abandoned: Maximum number of bytes buffered by abandoned calls for a server that does
            not answer. Above this size, the engine gives the server no further requests.
        warn_after: If nothing was heard of a job for this many seconds while a call waits, the
            engine asks its server for the workers of the function. Without any, it adds a message
            to `notices`. None disables this; see the module `unserved`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an invalid value.
    """

    def __init__(
        self,
        addresses: Iterable[ServerAddress],
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        routing: constants.Routing = "random",
        unique_bytes: int = 16,
        exceptions: bool = True,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        heartbeat: float | None = constants.DEFAULT_HEARTBEAT,
        max_abandoned: int = constants.DEFAULT_MAX_ABANDONED,
        warn_after: float | None = None,
    ) -> None:
        # The unique has two hex digits per byte.
        check_count("random_unique_bytes", unique_bytes, 1, constants.MAX_UNIQUE_SIZE // 2)
        check_packet_size(max_packet_size)
        super().__init__(connect_timeout)
        if heartbeat is not None:
            check_seconds("heartbeat", heartbeat, constants.MIN_HEARTBEAT)
        check_count("max_abandoned", max_abandoned, 0)
        if warn_after is not None:
            check_seconds("warn_after", warn_after, constants.MIN_WARN_AFTER)
        self.pool: ServerPool = ServerPool(addresses, rng, routing)
        #: True once `close` was called.
        self.closed: bool = False
        #: References to garbage-collected requests. Any thread can append to it at any time.
        self.dropped: deque[RequestRef | LoneRef] = deque()
        self._rng = rng
        self._unique_bytes = unique_bytes
        self._exceptions = exceptions
        self._max_packet_size = max_packet_size
        self._heartbeat = math.inf if heartbeat is None else heartbeat
        self._max_abandoned = max_abandoned
        # Upper bound of the bytes that abandoned calls have buffered for any one server.
        self._abandoned = 0
        self._watchers: set[Subscription] = set()
        # The engines of the admin connections, and the cancellations whose question was not sent.
        self._admins: dict[Server, AdminEngine] = {}
        self._cancels: list[Cancel] = []
        # The questions of `wait_for_servers` that have no answer.
        self._arrivals: dict[Server, Arrival] = {}
        # The requests that the current call has claimed for this engine.
        self._claimed: Sequence[GearmanJobRequest] = ()
        self._reply_handler = ReplyHandler(wall_clock)
        seconds = math.inf if warn_after is None else warn_after
        self._unserved = UnservedFunctions(seconds, self.notices)

    # The caller's side.

    def submit(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        *,
        accepted_only: bool = False,
        timeout: float | None = None,
    ) -> RequestsWait:
        """Submit those of `requests` that are JOB_UNKNOWN, and wait for all of them.

        Args:
            now: The time.
            wake: Called once, when the wait is done.
            requests: The requests, checked by `submitting.prepare`.
            accepted_only: True to wait only for JOB_CREATED.
            timeout: Maximum seconds to wait, or None for no limit.

        Returns:
            The Wait. If the engine is closed or another engine has one of the requests, the Wait is
            done and raises an error.

        Raises:
            TypeError, ValueError: `timeout` is not a valid number.
        """
        deadline = deadline_of(now, timeout)
        if self.closed:
            return RequestsWait((), deadline, wake).refuse(_shut_down())
        columns = untouched(requests) if type(requests) is Batch else None
        if columns is not None and columns.payloads and self._abandoned <= self._max_abandoned:
            servers = self.pool.choose_many(now, columns.size)
            if servers:
                wait = RequestsWait((), deadline, wake, accepted_only=accepted_only)
                wait.requests = requests
                wait.unaccepted = wait.remaining = columns.size
                links = [self._link_to(server, now) for server in servers[: columns.size]]
                for part, own in zip(columns.split(len(links)), links):
                    part.begin(own, self._rng.randbytes, self._unique_bytes)
                    own.batches[part] = wait
                return self._start(wait)
        wait = RequestsWait(requests, deadline, wake, accepted_only=accepted_only)
        try:
            self._claim(wait.members)
        except InvalidClientState as error:
            return wait.refuse(error)
        # All requests share this tuple. An attribute of `wait` would make a reference cycle.
        alone = (wait,)
        unsent = []
        for request in wait.members:
            # A request that was lost after `prepare` had checked it has no payload, and is
            # returned as lost. A request that is in the list twice already has this wait.
            if request.state != JOB_UNKNOWN or request._gm_payload is None:
                self._join(request, wait)
            elif request._gm_waits is not alone:
                if (
                    request.error is not None
                    or request.connection_attempts
                    or request.handle is not None
                ):
                    tracking.reset(request)
                request._gm_waits = alone
                unsent.append(request)
        wait.unaccepted += len(unsent)
        wait.remaining += len(unsent)
        uniques = self._make_uniques(len(unsent))
        full = self._full_servers() if self._abandoned > self._max_abandoned else ()
        link = self._only_link(now) if unsent and not full else None
        for request in unsent:
            if not request.unique:
                request.unique = request._gm_generated_unique = next(uniques)
            if link is None:
                if full:
                    request._gm_tried = full
                self._assign(request, now)
        if link is not None:
            link.put(unsent, now)
        wait.check()
        self._unclaim()
        return self._start(wait)

    def wait_completed(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        *,
        timeout: float | None = None,
    ) -> RequestsWait:
        """Wait for the end of those of `requests` that are in flight.

        See `submit` for the arguments and the Wait.
        """
        check_requests(requests)
        return self._start(self._joined(RequestsWait(requests, deadline_of(now, timeout), wake)))

    def as_completed(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        *,
        timeout: float | None = None,
    ) -> Subscription:
        """Wait like `wait_completed`, and yield each of `requests` as it ends."""
        check_requests(requests)
        return self._start(self._joined(Subscription(requests, deadline_of(now, timeout), wake)))

    def updates(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: GearmanJobRequest | Collection[GearmanJobRequest],
        *,
        timeout: float | None = None,
    ) -> UpdateSubscription:
        """Wait for each update of foreground requests, and for their ends.

        See `submit` for the other arguments and the Wait.

        Args:
            now: The time.
            wake: Called once, when the wait is done.
            requests: One request, or a collection of requests.
            timeout: Maximum seconds to wait, or None for no limit.

        Returns:
            A Wait whose `take` returns updates for one request, and pairs of request and update
            for a collection.
        """
        kind: type[UpdateSubscription] = UpdateSubscription
        if isinstance(requests, GearmanJobRequest):
            kind, requests = SingleSubscription, (requests,)
        check_followed(requests)
        return self._start(self._joined(kind(requests, deadline_of(now, timeout), wake)))

    def results(
        self, now: float, wake: Callable[[], Any], window: int, *, timeout: float | None = None
    ) -> ResultsWait:
        """Wait for the requests of a stream of jobs, which `add` submits one by one.

        See `submit` for the other arguments and the Wait, and the module `results`.

        Args:
            now: The time.
            wake: Called when a request has ended, and when the wait is done.
            window: Maximum number of requests that are in flight, or that the caller has not taken.
            timeout: Maximum seconds to wait, or None for no limit.
        """
        check_count("window", window, 1)
        wait = ResultsWait(window, deadline_of(now, timeout), wake)
        return self._start(wait.refuse(_shut_down()) if self.closed else wait)

    def add(
        self,
        now: float,
        wake: Callable[[], Any],
        wait: ResultsWait,
        request: GearmanJobRequest,
    ) -> ResultsWait:
        """Submit `request`, which was checked by `submitting.prepare`, for `wait`.

        If `wait` is done meanwhile, deliver the request unsent. Return `wait`.
        """
        wait.add(request)
        if wait.done:
            if wait.timed_out:
                request.timed_out = True
            else:
                request.error = wait.error or _shut_down()
                wait.request_failed(request.error)
            wait.request_already_ended(request)
            return wait
        submitting = self.submit(now, wake_nobody, [request])
        if submitting.error is not None:
            wait.request_failed(submitting.error)
        self._join(request, wait)
        self.release(submitting, now)
        wait.check()
        return wait

    def end_of_jobs(
        self,
        now: float,
        wake: Callable[[], Any],
        wait: ResultsWait,
        error: Exception | None = None,
    ) -> ResultsWait:
        """Finish `wait` when its requests in flight have ended. Return `wait`.

        Args:
            now: The time.
            wake: Not called.
            wait: The Wait of `results`.
            error: The error that ended the stream of jobs. `raise_error` raises it unchanged.
        """
        wait.end_of_jobs(error)
        return wait

    def watch(
        self, now: float, wake: Callable[[], Any], *, timeout: float | None = None
    ) -> Subscription:
        """Return a Subscription that wakes its caller when a link receives data, opens or ends.

        Only the timeout or `close` ends the Subscription. See `submit` for the arguments.
        """
        subscription = Subscription((), deadline_of(now, timeout), wake)
        if self.closed:
            return subscription.refuse(_shut_down())
        self._watchers.add(subscription)
        return self._start(subscription)

    def connect(
        self,
        now: float,
        wake: Callable[[], Any],
        server: Server,
        *,
        timeout: float | None = None,
    ) -> Wait:
        """Wait for a connection to `server`, one of the pool's servers.

        See `submit` for the other arguments and the Wait.
        """
        wait = Wait(deadline_of(now, timeout), wake)
        if self.closed:
            return wait.refuse(_shut_down())
        link = self._link_to(server, now)
        if link.is_up:
            wait.finish()
        else:
            link.waits.append(wait)
        return self._start(wait)

    def wait_for_servers(
        self, now: float, wake: Callable[[], Any], *, timeout: float | None = None
    ) -> Wait:
        """Wait until one of the servers answers. Meanwhile, retry to connect to each of them.

        See `submit` for the arguments and the Wait. Its `timed_out` is true if no server answered.
        """
        wait = Wait(deadline_of(now, timeout), wake)
        if self.closed:
            return wait.refuse(_shut_down())
        for server in self.pool.servers:
            link = self._link_to(server, now)
            arrival = self._arrivals.get(server)
            if arrival is None:
                arrival = self._arrivals[server] = Arrival(server, self._arrivals)
                link.outbox.append(arrival)
            arrival.waits.add(wait)
        if not self.pool.servers:
            wait.fail(self._unavailable())
        return self._start(wait)

    def cancel(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        *,
        timeout: float | None = None,
    ) -> CancelWait:
        """Cancel the jobs of requests. See the module `cancelling`, and `submit` for the arguments.

        Raises:
            InvalidClientState: A request was never submitted, or does not say which server has it.
            TypeError, ValueError: A request has an invalid handle or connection.
        """
        requests = list({id(request): request for request in requests}.values())
        check_cancelled(requests, self.pool)
        return self._cancel(requests, CancelWait(deadline_of(now, timeout), wake), now)

    def _cancel(
        self, requests: list[GearmanJobRequest], wait: CancelWait, now: float
    ) -> CancelWait:
        """Cancel different requests. One that can't be cancelled fails in `wait`."""
        if self.closed:
            return wait.refuse(_shut_down())
        wait.remaining = len(requests)
        removed = self._remove_unsent(requests, now)
        for request in requests:
            link = request._gm_link
            if id(request) in removed:
                text = "the job was cancelled by this client before it was sent"
                tracking.finish(request, JOB_FAILED, GearmanError(text))
                wait.cancelled(QUEUED)
                continue
            cancel = Cancel(request, wait, self._cancels.append)
            if request.state == JOB_PENDING and link is not None and link.engine is self:
                cancel.follow()
            else:
                self._cancels.append(cancel)
        if not requests:
            wait.finish()
        self._ask_servers(now)
        return self._start(wait)

    def cancel_abandoned(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        *,
        has_returned: bool = False,
        timeout: float | None = None,
    ) -> CancelWait:
        """Cancel the requests that a call of `submit` has left in flight. Its Wait was released.

        Skip requests whose unique the application has chosen, and those that another call waits
        for: others might need these jobs.

        Args:
            now: The time.
            wake: Called once, when the wait is done.
            requests: The requests of the call.
            has_returned: True if the call has raised no exception. Then only the requests that
                have timed out are abandoned.
            timeout: Maximum seconds to wait, or None for no limit.
        """
        abandoned = [
            request
            for request in {id(request): request for request in made(requests)}.values()
            if (link := request._gm_link) is not None
            and link.engine is self
            and request.unique == request._gm_generated_unique
            and not is_followed(request)
            and (request.timed_out or not has_returned)
        ]
        # A server can send a handle that no command can contain.
        return self._cancel(abandoned, CancelWait(deadline_of(now, timeout), wake), now)

    def _remove_unsent(self, requests: Iterable[GearmanJobRequest], now: float) -> set[int]:
        """Remove those of `requests` that were not sent. Return their ids."""
        by_link: dict[ClientLink, set[int]] = {}
        removed: set[int] = set()
        for request in requests:
            link = request._gm_link
            if request.state == JOB_PENDING and link is not None and link.engine is self:
                by_link.setdefault(link, set()).add(id(request))
        for link, ids in by_link.items():
            for columns in [*link.batches]:
                if columns.slices:  # The application has looked at requests.
                    link.unpack(columns, now)
            outbox, link.outbox = link.outbox, deque()
            for item in outbox:
                leaving = ids.intersection(map(id, requests_of(item)))
                removed |= leaving
                if isinstance(item, Submit) and leaving:
                    item.requests = [each for each in item.requests if id(each) not in leaving]
                    if item.requests:
                        link.outbox.append(item)
                    else:
                        link.jobs.answered(item, None)
                elif not leaving:
                    link.outbox.append(item)
        return removed

    def _ask_servers(self, now: float) -> None:
        """Send the questions of cancellations."""
        while self._cancels:
            cancel = self._cancels.pop(0)
            try:
                asked = cancel.ask(self.pool, now + ANSWER_TIMEOUT)
            except Exception as error:  # noqa: BLE001 - the application can put any object in it
                reraise_from_handler(error)
                cancel.wait.failed(_changed(error))
                continue
            if asked is None:
                cancel.wait.cancelled(UNKNOWN)
            else:
                server, question = asked
                self._admin(server).put(question, now)

    def _admin(self, server: Server) -> AdminEngine:
        """Return the engine of the admin connection to `server`."""
        admin = self._admins.get(server)
        if admin is None:
            admin = AdminEngine([server.address], connect_timeout=self._connect_timeout)
            self.share(admin)
            self._admins[server] = admin
        return admin

    def statuses(
        self,
        now: float,
        wake: Callable[[], Any],
        requests: Collection[GearmanJobRequest],
        asked: Sequence[Asked],
        *,
        timeout: float | None = None,
    ) -> StatusWait:
        """Ask for the status of requests, and wait for the answers.

        Args:
            now: The time.
            wake: Called once, when the wait is done.
            requests: The requests, for the `job_requests` of errors.
            asked: The packets and the servers, from `status_queries`.
            timeout: Maximum seconds to wait, or None for no limit.
        """
        wait = StatusWait([request for request, _, _ in asked], deadline_of(now, timeout), wake)
        wait.requests = requests
        if self.closed:
            return wait.refuse(_shut_down())
        full = self._full_servers() if self._abandoned > self._max_abandoned else ()
        for request, event, servers in asked:
            tracking.clear_timed_out(request)
            query = Query(request, wait, event)
            wait.queries.append(query)
            wait.remaining += 1
            query.remaining = max(len(servers), 1)
            for server in servers:
                if server in full:
                    query.fail(self._unavailable())
                else:
                    self._link_to(server, now).outbox.append(query)
            if not servers:
                query.fail(self._unavailable())
        wait.check()
        return self._start(wait)

    def release(self, wait: Wait, now: float) -> None:
        """Release `wait` after its caller has stopped waiting, even if the wait is not done."""
        if wait.deadline is not None:
            self._timers.cancel(wait)
        self._waits.discard(wait)
        if self._arrivals:
            for arrival in self._arrivals.values():
                arrival.waits.discard(wait)
        if isinstance(wait, Subscription):
            self._watchers.discard(wait)
        if isinstance(wait, ResultsWait):
            wait.finish()  # A job that its stream still yields must not be submitted.
        if isinstance(wait, RequestsWait) and wait.remaining:
            self._unpack_call(wait, now)
            for request in wait.members:
                if wait in request._gm_waits:
                    request._gm_waits = tuple(
                        other for other in request._gm_waits if other is not wait
                    )
                    self._abandoned += abandoned_size(request)
            if isinstance(wait, StatusWait):
                self._abandoned += wait.remaining * ITEM_COST

    def close(self, now: float) -> None:
        """Close all connections, and refuse further calls.

        All waiting calls end, and their requests become JOB_UNKNOWN. A request without a waiting
        call keeps its state.
        """
        self.closed = True
        error = ConnectionError("the client was shut down")
        for link in self.pool.links():
            self._unpack_all(link, now)
            self._tell_close(link)
            for item in self._empty(link):
                if isinstance(item, Probe):
                    item.fail(self._unavailable())
                elif not item._gm_waits:
                    tracking.orphan(item)
                elif item.state == JOB_PENDING:
                    self._fail(item, self._unavailable())
                else:
                    tracking.finish(item, JOB_UNKNOWN, error)
            self._tell_waits(link, error)
        for admin in self._admins.values():
            admin.close(now)
        for wait in list(self._waits):
            if isinstance(wait, ResultsWait):
                wait.shut_down()
            wait.finish()

    def abandon(self, error: Exception) -> list[Wait]:
        """End all calls and requests, from any state. See `Engine.abandon`.

        If the engine was interrupted, a request without a waiting call might be in none of its
        places. If the application uses that request again, `_claim` ends it.
        """
        for request in self._all_requests():
            link = request._gm_link
            # A PENDING request without a link was interrupted on its way to one.
            is_here = request.state is JOB_PENDING if link is None else link.engine is self
            if is_here:
                tracking.lose(request, error)
        self._unclaim()
        return super().abandon(error)

    def _all_requests(self) -> Iterator[GearmanJobRequest]:
        """Yield the requests of the current call, of all Waits, and of all links."""
        yield from self._claimed
        for wait in self._waits:
            if isinstance(wait, RequestsWait):
                yield from tuple(wait.members)
        for link in self.pool.links():
            for item in link.items():
                yield from requests_of(item)
            yield from link.jobs.give_up()
            for columns in link.batches:
                yield from chain.from_iterable([*columns.slices.values()])

    def _empty(self, link: ClientLink) -> list[GearmanJobRequest | Probe]:
        """Drop `link`, and return its requests and probes."""
        here: list[GearmanJobRequest | Probe] = []
        for item in link.items():
            here += (item,) if isinstance(item, Probe) else requests_of(item)
        here += link.jobs.give_up()
        link.outbox.clear()
        link.batches.clear()
        self._drop(link)
        return here

    # The transport side: input.

    def receive_data(self, link: AnyLink, data: bytes, now: float) -> None:
        """Process `data`, received from the server of `link`."""
        if not link.alive:
            return
        if type(link) is AdminLink:
            link.engine.receive_data(link, data, now)
            return
        if self.dropped:
            self._sweep()
        heartbeat = link.heartbeat
        heartbeat.heard, heartbeat.asked = now, None
        link.connection.receive_data(data)
        try:
            self._reply_handler.take(link)
        except RemoteProtocolError as error:
            self._close(link, error, now)
        if self._cancels:
            self._ask_servers(now)
        if self._unserved.is_idle and link.jobs:
            self._set_unserved_timer(self._unserved, now)
        for watcher in self._watchers:
            watcher.notify()

    def handle_timeout(self, now: float) -> None:
        """Process the deadlines that have passed at `now`."""
        super().handle_timeout(now)
        for admin in self._admins.values():
            admin.send_next(now)

    # The transport side: output.

    def _links(self) -> list[AnyLink]:
        links: list[AnyLink] = self.pool.links()
        for admin in self._admins.values():
            links += admin._links()
        return links

    def links_to_write(self) -> Iterable[AnyLink]:
        """Return the open links that have data to send and room in the window."""
        links: list[AnyLink] = []
        for server in self.pool.servers:
            link: ClientLink | None = server.link
            if link is None or link.state is not OPEN:
                continue
            waiting = link.outbox or (link.batches and link.unsent_batch())
            if link.ahead or (waiting and link.connection.unanswered < _WINDOW):
                links.append(link)
        if self._admins:
            for admin in self._admins.values():
                links += admin.links_to_write()
        return links

    def data_to_send(self, link: AnyLink, now: float) -> bytes:
        """Return the bytes to write on `link` now, or b"".

        The bytes are packets of about 64 KiB in total, or a piece of a large packet.
        """
        if link.state is not OPEN:
            return b""
        if type(link) is AdminLink:
            return link.engine.data_to_send(link, now)
        outbox, ahead, heartbeat = link.outbox, link.ahead, link.heartbeat
        if heartbeat.asked is not None:
            link.delivery.taken(now)
        if not outbox and not ahead and not link.batches:
            return b""
        unanswered = link.connection.unanswered
        if not unanswered and not link.jobs:
            heartbeat.heard = now  # The server owed no answer until now.
        packets: list[bytes] = []
        size = 0
        connection = link.connection
        send = connection.send_with_data_passthrough
        while ahead:
            question = ahead.popleft()
            if isinstance(question, memoryview):
                link.delivery.handed += len(question)
                return bytes(question)
            packets += send(question.event, question)
        last = unanswered + len(packets)
        while last < _WINDOW and size < _CHUNK_SIZE:
            if not outbox:
                columns = link.unsent_batch() if link.batches else None
                if columns is None:
                    break
                if columns.background:
                    sent = columns.sent
                    pieces = columns.send(connection, _WINDOW - last, _CHUNK_SIZE - size)
                    packets += pieces
                    size += sum(map(len, pieces))
                    last += columns.sent - sent
                else:
                    link.take(columns, now)
                continue
            if len(outbox) > 1 and (
                run := take_submits(outbox, _WINDOW - last, _CHUNK_SIZE - size)
            ):
                packet = connection.send_submits(*run)
                packets.append(packet)
                size += len(packet)
                last += len(run[-1])
                continue
            item = outbox.popleft()
            try:
                if isinstance(item, GearmanJobRequest):
                    item.connection_attempts += 1
                    pieces = send(submit_event(item), item)
                elif isinstance(item, Submit):
                    pieces = send(submit_event(item.requests[0]), item)
                    item.sent()
                else:
                    pieces = send(item.event, item)
            except Exception as error:
                reraise_from_handler(error)
                if connection.unanswered != last:
                    raise  # A signal handler raised it after the packet was encoded.
                self._unsendable(link, item, error)
                continue
            for piece in pieces:
                packets.append(piece)
                size += len(piece)
            last += 1
        if heartbeat.due is None and packets and self._heartbeat < math.inf:
            heartbeat.due = now + self._heartbeat
            self._timers.set(link, heartbeat.due, self._look)
        data = b"".join(packets) if size <= LARGE else link.in_pieces(packets)
        link.delivery.handed += len(data)
        # After a question of the heartbeat, `delivery` has to see that the data was written.
        link.has_more = bool(outbox or ahead or link.batches) or heartbeat.asked is not None
        return data

    # Waits.

    def _claim(self, requests: Sequence[GearmanJobRequest]) -> None:
        """Claim `requests` for this engine until `_unclaim` releases them.

        Requests of engines that have ended become JOB_UNKNOWN.

        Raises:
            InvalidClientState: Another engine has one of the requests. No request is changed.
        """
        are_stranded = False
        self._claimed = requests
        remaining = iter(requests)
        try:
            for request in remaining:
                # Engines can run in several threads. Deleting a missing attribute raises, and
                # CPython checks and deletes atomically, so only one thread succeeds.
                del request._gm_unclaimed
                link = request._gm_link
                if link is not None and link.engine is not self:
                    if not tracking.is_orphaned(request):
                        raise InvalidClientState(f"{request!r} is under way in another client")
                    are_stranded = True
        except BaseException as error:
            is_taken = isinstance(error, AttributeError)
            # A counter in the loop would take as long as the claims themselves.
            count = len(requests) - length_hint(remaining) - is_taken
            self._claimed = requests[:count]
            self._unclaim()
            if not is_taken:
                raise
            each = list({id(request): request for request in requests}.values())
            if len(each) == len(requests):
                raise InvalidClientState(f"{request!r} is under way in another client") from None
            self._claim(each)  # The list has a request twice.
            return
        if are_stranded:
            for request in requests:
                tracking.mark_lost(request)

    def _unclaim(self) -> None:
        """Let other engines claim the requests. `abandon` does this after an interruption."""
        for request in self._claimed:
            request._gm_unclaimed = True
        self._claimed = ()

    def _joined(self, wait: _R) -> _R:
        try:
            self._claim(wait.members)
        except InvalidClientState as error:
            return wait.refuse(error)
        # A subscription yields each request once. An application's subclass might not be hashable.
        alone = (wait,)
        for request in {id(request): request for request in wait.members}.values():
            if request._gm_waits or request._gm_link is None:
                self._join(request, wait)
                continue
            # As `_join` does, without a tuple for each of many requests.
            tracking.clear_timed_out(request)
            wait.remaining += 1
            wait.unaccepted += request.state == JOB_PENDING
            request._gm_waits = alone
        self._unclaim()
        wait.check()
        return wait

    def _start(self, wait: _W) -> _W:
        if self.dropped:
            self._sweep()
        if not wait.done:
            self._waits.add(wait)
            if wait.deadline is not None:
                self._timers.set(wait, wait.deadline, self._expire)
        return wait

    def _expire(self, wait: Wait, now: float) -> None:
        self._unpack_call(wait, now)
        wait.expire(now)

    @staticmethod
    def _join(request: GearmanJobRequest, wait: RequestsWait) -> None:
        """Let `request` notify `wait`, if it is in flight."""
        tracking.clear_timed_out(request)
        if wait in request._gm_waits:
            return  # The list has the request twice.
        if request._gm_link is not None:
            wait.remaining += 1
            wait.unaccepted += request.state == JOB_PENDING
            request._gm_waits = (*request._gm_waits, wait)
        else:
            wait.request_already_ended(request)

    # Requests.

    def _make_uniques(self, count: int) -> Iterator[str]:
        if count == 1:
            return map(bytes.hex, map(self._rng.randbytes, (self._unique_bytes,)))
        sizes = [min(_UNIQUES, count - made) for made in range(0, count, _UNIQUES)]
        return chain.from_iterable(map(self._some_uniques, sizes))

    def _some_uniques(self, count: int) -> list[str]:
        size = self._unique_bytes
        text = self._rng.randbytes(count * size).hex()
        return [text[at : at + 2 * size] for at in range(0, len(text), 2 * size)]

    def _assign(self, request: GearmanJobRequest, now: float, *, again: bool = False) -> None:
        """Assign `request` to a server.

        If `again` is true, a connection was lost during an attempt, and a new connection respects
        the server's cool-down.
        """
        routed_by = b""
        if self.pool.by_unique and request.unique:
            # On the wire, the unique "-" stands for the data.
            dash = request.unique == "-"
            routed_by = (request._gm_payload or b"") if dash else to_wire(request.unique)
        server = self.pool.choose(now, request._gm_tried, routed_by)
        if server is None:
            request.state = JOB_PENDING  # `finish` expects the state of an assigned request.
            self._fail(request, self._unavailable())
            return
        if self.pool.suspects:
            for other in self.pool.take_suspects():
                self._link_to(other, now).outbox.append(TRIAL)
        link = server.link
        if link is None or link.state is WAITING:
            link = self._link_to(server, now, at=server.retry_at() if again else 0.0)
        link.put((request,), now)

    @staticmethod
    def _put_one(request: GearmanJobRequest, link: ClientLink, now: float) -> None:
        link.put((request,), now)

    @staticmethod
    def _unpack_all(link: ClientLink, now: float) -> None:
        """Make a request for each job in columns on `link`."""
        for columns in [*link.batches]:
            link.unpack(columns, now)

    def _unpack_call(self, wait: Wait, now: float) -> None:
        """Make a request for each job of the call that waits for `wait`."""
        for link in self.pool.links():
            for columns, other in [*link.batches.items()]:
                if other is wait:
                    link.unpack(columns, now)

    def _only_link(self, now: float) -> ClientLink | None:
        """Return the link for all requests if the pool has only one server, else None."""
        if len(self.pool.servers) != 1:
            return None
        return self._link_to(self.pool.servers[0], now)

    def _unavailable(self) -> ServerUnavailable:
        if self.closed:
            return ServerUnavailable("the client was shut down")
        return self.pool.unavailable()

    def _fail(self, request: GearmanJobRequest, error: Exception) -> None:
        """Fail `request` before its acknowledgment. Its callers raise `error`."""
        for wait in request._gm_waits:
            wait.request_failed(error)
        tracking.finish(request, JOB_UNKNOWN, error)

    def _unsendable(self, link: ClientLink, item: Any, error: Exception) -> None:
        """Fail a request that can't be encoded, because it was changed after its check."""
        if not requests_of(item):
            raise error
        request = item
        if isinstance(item, Submit):
            request = item.requests.pop(0)
            if item.requests:
                link.outbox.appendleft(item)  # The other requests are unchanged.
            else:
                link.jobs.answered(item, None)
        self._fail(request, _changed(error))

    # Links.

    def _link_to(self, server: Server, now: float, *, at: float = 0.0) -> ClientLink:
        """Return the link to `server`. If it is missing or WAITING, open it at the time `at`."""
        link: ClientLink | None = server.link
        if link is None:
            link = ClientLink(
                self,
                server,
                max_packet_size=self._max_packet_size,
                heartbeat=self._heartbeat,
                dropped=self.dropped,
            )
            self._connect(link, now, at=at)
            if self._exceptions:
                link.outbox.append(_GREETING)
        elif link.state is WAITING and at <= now:
            self._begin(link, now)  # A caller is waiting, so don't wait for the cool-down.
        return link

    def _begin(self, link: Any, now: float) -> None:
        super()._begin(link, now)
        self._race(link, now)

    def _race(self, link: ClientLink, now: float) -> None:
        """Set the timer that starts another connection if CONNECTING `link` is slow to open."""
        servers = len(self.pool.servers)
        if servers > 1:
            # Start all connections within the connect timeout of one.
            head_start = min(_HEAD_START, self._connect_timeout / (servers + 1))
            self._timers.set((_RACE, link), now + head_start, self._on_slow_connect)

    def _on_slow_connect(self, race: tuple[str, ClientLink], now: float) -> None:
        """Connect to another server as well, and move the requests of the slow link there."""
        link = race[1]
        server = link.server
        # The pool prefers other servers until this one has answered or failed.
        server.cool_until = max(server.cool_until, now + self._connect_timeout)
        self._unpack_all(link, now)
        requests = link.waiting_requests()
        if requests and self.pool.by_unique:
            linked = [link.server for link in self.pool.links()]
            other = self.pool.choose(now, linked, b"")
            if other is not None:
                self._link_to(other, now)
                self._race(link, now)
            return
        link.drop_requests()
        for request in requests:
            self._retry_or_fail(self._move_on, request, link, now)

    def _move_on(self, request: GearmanJobRequest, link: ClientLink, now: float) -> None:
        """Move `request`, which waits for `link` to open, to a server that it has not tried."""
        tried = (*request._gm_tried, link.server)
        other = self.pool.choose(now, tried, b"")
        if other is not None:
            request._gm_tried = tried
            link = self._link_to(other, now)
        link.put((request,), now)

    def _opened(self, link: AnyLink, now: float) -> None:
        if isinstance(link, AdminLink):
            link.engine._opened(link, now)
            return
        if len(self.pool.servers) > 1:
            self._win_race(link, now)
        self._tell_waits(link, None)

    def _win_race(self, link: ClientLink, now: float) -> None:
        """Move requests that wait for other connections to `link`, which is now open.

        These are the requests of late links, and those that were moved away from `link`.
        """
        was_late = (_RACE, link) not in self._timers
        self._timers.cancel((_RACE, link))
        if was_late:
            link.server.cool_until = now
        if self.pool.by_unique:
            return
        for other in self.pool.links():
            if other.state is CONNECTING:
                is_late = (_RACE, other) not in self._timers
                requests = other.waiting_requests()
                other.drop_requests()
                for request in requests:
                    is_won = is_late or link.server in request._gm_tried
                    self._retry_or_fail(self._put_one, request, link if is_won else other, now)

    def _drop(self, link: AnyLink) -> None:
        self._timers.cancel((_RACE, link))
        super()._drop(link)

    def _lost(self, link: AnyLink, error: Exception, now: float) -> None:
        if isinstance(link, AdminLink):
            link.engine._lost(link, error, now)
            return
        server = link.server
        was_up = link.is_up
        self._unpack_all(link, now)
        self._drop(link)
        if link.has_lasted(now):
            server.served()
        server.failed(error, now, self._rng)
        outbox, link.outbox = link.outbox, deque()
        jobs = link.jobs.give_up()
        if jobs:
            lost = ConnectionError(
                f"lost the connection to {server.address} ({error}) after it had accepted the job; "
                "the job may still run"
            )
            for request in jobs:
                tracking.finish(request, JOB_UNKNOWN, lost)
        for item in link.connection.unanswered_tokens():
            for request in requests_of(item):
                self._retry_or_fail(self._lost_sent, request, server, error, now)
            if isinstance(item, Probe):
                self._ask_again(item, server, error, now, was_up=True)
        for item in outbox:
            for request in requests_of(item):
                self._retry_or_fail(self._lost_unsent, request, server, error, now, was_up=was_up)
            if isinstance(item, Probe):
                self._ask_again(item, server, error, now, was_up=was_up)
        self._tell_waits(link, error)

    def _ask_again(
        self, probe: Probe, server: Server, error: Exception, now: float, *, was_up: bool
    ) -> None:
        at = probe.lost(server, error, now, was_up=was_up)
        if at is not None:
            self._link_to(server, now, at=at).outbox.append(probe)

    def _retry_or_fail(
        self, step: Callable[..., None], request: GearmanJobRequest, *args: Any, **options: Any
    ) -> None:
        """Call `step` to move or retry `request`. If it raises, fail only this request."""
        try:
            step(request, *args, **options)
        except Exception as error:  # noqa: BLE001 - the application can put any object in it
            reraise_from_handler(error)
            self._fail(request, _changed(error))

    def _lost_sent(
        self, request: GearmanJobRequest, server: Server, error: Exception, now: float
    ) -> None:
        """Retry or fail `request`, which was sent but not acknowledged.

        The server might have received the submit.
        """
        if request.connection_attempts >= request.max_connection_attempts:
            times = request.connection_attempts
            self._fail(
                request,
                ExceededConnectionAttempts(
                    f"a submit was tried {times} time{'s' * (times != 1)} and each time lost "
                    f"before it was acknowledged, last by {server.address} ({error})"
                ),
            )
            return
        tracking.clear_tried(request)
        tracking.discard_unique(request)
        if not request.unique:
            request.unique = request._gm_generated_unique = next(self._make_uniques(1))
        self._assign(request, now, again=True)

    def _lost_unsent(
        self,
        request: GearmanJobRequest,
        server: Server,
        error: Exception,
        now: float,
        *,
        was_up: bool,
    ) -> None:
        """Assign `request`, which was not sent, to another server. This is no new attempt."""
        request._gm_tried = (*request._gm_tried, server)
        if was_up and len(request._gm_tried) >= len(self.pool.servers):
            # All servers were tried, but this one did accept the connection.
            request.connection_attempts += 1
            self._lost_sent(request, server, error, now)
        else:
            self._assign(request, now)

    def _look(self, link: ClientLink, now: float) -> None:
        """Check the server of `link`, and close the link if the server is dead."""
        if self.dropped:
            self._sweep()
        heartbeat = link.heartbeat
        heartbeat.due = None
        if not link.is_awaited():
            return  # `data_to_send` sets the timer again.
        dead = link.check(now)
        if dead is None:
            assert heartbeat.due is not None
            self._timers.set(link, heartbeat.due, self._look)
        else:
            self._close(link, ConnectionError(dead), now)

    def _set_unserved_timer(self, unserved: UnservedFunctions, now: float) -> None:
        unserved.is_idle = False
        self._timers.set(unserved, now + unserved.seconds, self._find_unserved)

    def _find_unserved(self, unserved: UnservedFunctions, now: float) -> None:
        """Ask servers about functions that might have no workers. See the module `unserved`."""
        if not self.notices.maxlen:  # Few clients have notices, and an empty deque takes 760 bytes.
            self.notices: deque[str] = deque(maxlen=_MAX_NOTICES)
            unserved.notices = self.notices
        links = self.pool.links()
        if self._waits:
            for server, question in unserved.questions(links, now):
                self._admin(server).put(question, now)
        if any(link.jobs for link in links) and not unserved.is_full():
            self._set_unserved_timer(unserved, now)
        else:
            unserved.is_idle = not unserved.is_full()

    def _full_servers(self) -> tuple[Server, ...]:
        """Return the servers whose backlog of abandoned calls exceeds the limit."""
        kept = {link.server: link.abandoned() for link in self.pool.links()}
        self._abandoned = max(kept.values(), default=0)
        full = [server for server, size in kept.items() if size > self._max_abandoned]
        for server in full:
            server.error = ConnectionError(
                f"it does not answer: {kept[server]} bytes are kept for it that no call waits for"
            )
        return tuple(full)

    def _tell_waits(self, link: ClientLink, error: Exception | None) -> None:
        """Finish the waits for the connection of `link`, or fail them if `error` is not None."""
        waits, link.waits = link.waits, []
        for wait in waits:
            if error is None:
                wait.finish()
            else:
                wait.fail(ConnectionError(f"no connection to {link.address}: {error}"))
        for watcher in self._watchers:
            watcher.notify()

    def _sweep(self) -> None:
        """Clean up after garbage-collected requests."""
        while self.dropped:
            self.dropped.popleft().forget()


def _shut_down() -> InvalidClientState:
    return InvalidClientState("this client has been shut down")


def _changed(error: Exception) -> LocalProtocolError:
    """Return the error for a request that was changed after its check."""
    # Formatting other exceptions can itself raise, for example for an int of ten thousand digits.
    reason = error if isinstance(error, GearmanError) else type(error).__name__
    return LocalProtocolError(f"changed since it was submitted: {reason}")
