"""Tier 2, the client: requests on their way to servers and back, decided without I/O.

One machine and its table of handlers fill this module.

Where a request is
    A request that is under way is in exactly one place, and `request.link` says on which link:

    ===========  ============================================  =================
    state        place                                         left by
    ===========  ============================================  =================
    PENDING      `link.outbox`: not sent                       `data_to_send`
    PENDING      the Connection's queue of the unanswered      JOB_CREATED, ERROR
    CREATED      `link.jobs[handle]`, if it is foreground      its terminal packet
    ===========  ============================================  =================

    Losing the link empties all three. What was not acknowledged is sent again, over another link,
    as long as its attempts last; what was, is JOB_UNKNOWN. It leaves by its `leave`.

    Nothing looks through these places for a request; each is reached from its packet.

What `link.jobs` has to do with one handle for several requests: see `foreground`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gearman_proto import constants
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.deadlines import deadline_of
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    InvalidClientState,
    LocalProtocolError,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.request import GearmanJobRequest, JobStatus
from gearman_proto.jobs.submitting import check_requests, submit_event
from gearman_proto.jobs.updates import MAX_UNREAD_UPDATES
from gearman_proto.names import to_wire
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.events import (
    Error,
    JobCreated,
    OptionReq,
    OptionRes,
    StatusRes,
    StatusResUnique,
    Unanswered,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearman_proto.wire.packets import Role, number

from .base import GONE, OPEN, Close
from .connecting import ConnectingEngine, OutgoingLink
from .foreground import ForegroundJobs, RequestRef
from .pool import Server, ServerPool
from .queries import Query, StatusWait, status_event
from .waits import RequestsWait, Stream, UpdateStream, Wait

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable, Iterator

    from gearman_proto.address import ServerAddress

# Bytes to make at a time. Enough to keep a server busy, little enough to start early.
_CHUNK_SIZE: Final = 65536
# Requests on one link that may wait for their answer. gearmand reads all that has come before it
# answers, so a client that sends without end is answered at the end, and each waits for the other.
# It is also what a lost link leaves in doubt.
_WINDOW: Final = 4096
# Uniques to make at a time.
_UNIQUES: Final = 1024
_W = TypeVar("_W", bound=Wait)
_R = TypeVar("_R", bound=RequestsWait)


class _Greeting:
    """Asks for exceptions; it is the first thing in a link's outbox."""

    event: Final = OptionReq(b"exceptions")


_GREETING: Final = _Greeting()


class ClientLink(OutgoingLink):
    """One connection to a server, or the attempt to make one.

    Attributes:
        engine: The engine that it belongs to.
        outbox: What is to be sent, in order.
        jobs: The foreground jobs that the server has acknowledged.
        waits: Those who wait for it to be open.
    """

    __slots__ = ("engine", "jobs", "outbox", "waits")

    def __init__(self, engine: ClientEngine, server: Server, max_packet_size: int) -> None:
        super().__init__(server, Role.CLIENT, max_packet_size)
        self.engine: ClientEngine = engine
        self.outbox: deque[GearmanJobRequest | Query | _Greeting] = deque()
        self.jobs: ForegroundJobs = ForegroundJobs(engine.dropped)
        self.waits: list[Wait] = []


class ClientEngine(ConnectingEngine[ClientLink]):
    """Everything that a Gearman client decides.

    See `base` for the transport side. The caller's side: each of `submit`, `wait_completed`,
    `as_completed`, `updates`, `statuses` and `connect` returns a Wait. The caller blocks until
    `wait.ready`, calls `release` in every case (also when it gives up early), and then
    `wait.raise_error()`. `submitting.prepare` has to be called before `submit`, where the encoder
    may run.

    Args:
        addresses: The servers.
        rng: Where chance comes from. After a fork two processes must not share its state, else
            they make the same uniques: `random.SystemRandom` has none.
        wall_clock: Returns seconds since 1970.
        routing: ``"random"`` or ``"unique"``; see ServerPool.
        unique_bytes: Random bytes in a unique that is made here, 1 to 31.
        exceptions: Whether to ask servers for WORK_EXCEPTION; without, they send WORK_FAIL.
        connect_timeout: Seconds to wait for a connection.
        max_packet_size: Bytes. A server that sends a larger packet is disconnected.
    """

    def __init__(
        self,
        addresses: Iterable[ServerAddress],
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        routing: str = "random",
        unique_bytes: int = 16,
        exceptions: bool = True,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> None:
        if not isinstance(unique_bytes, int):
            raise TypeError(f"random_unique_bytes is a number, not {unique_bytes!r}")
        if not 1 <= unique_bytes <= constants.MAX_UNIQUE_SIZE // 2:
            raise ValueError(
                f"random_unique_bytes is {unique_bytes}: servers take uniques of 2 to 62 hex digits"
            )
        super().__init__(connect_timeout)
        self.pool: ServerPool = ServerPool(addresses, rng, routing)
        #: True once `close` or `abandon` was called.
        self.closed: bool = False
        #: References to requests that nobody holds any more. Appended to from anywhere.
        self.dropped: deque[RequestRef] = deque()
        self._rng = rng
        self._wall_clock = wall_clock
        self._unique_bytes = unique_bytes
        self._exceptions = exceptions
        self._max_packet_size = max_packet_size
        self._waits: set[Wait] = set()
        self._watchers: set[Stream] = set()
        self._handlers: dict[Any, Callable[[ClientLink, Any], None]] = {
            JobCreated: self._on_job_created,
            WorkComplete: self._on_work_complete,
            WorkFail: self._on_work_fail,
            WorkException: self._on_work_exception,
            WorkData: self._on_work_data,
            WorkWarning: self._on_work_warning,
            WorkStatus: self._on_work_status,
            StatusRes: self._on_status_res,
            StatusResUnique: self._on_status_res,
            OptionRes: self._on_option_res,
            Error: self._on_error,
            Unanswered: self._on_unanswered,
        }

    # The caller's side.

    def submit(
        self,
        requests: Collection[GearmanJobRequest],
        now: float,
        wake: Callable[[], Any],
        *,
        accepted_only: bool = False,
        timeout: float | None = None,
    ) -> RequestsWait:
        """Submit those of `requests` that are JOB_UNKNOWN, and wait for all of them.

        Args:
            requests: They have been through `submitting.prepare`.
            now: The time.
            wake: Called once, when the wait is done.
            accepted_only: Whether to wait for JOB_CREATED only.
            timeout: Seconds to wait at most, or None; see `deadlines.to_seconds`.

        Raises:
            InvalidClientState: The engine is closed, or a request is another engine's.
            TypeError, ValueError: `timeout` is no number.
        """
        self._check_open()
        self._check_ours(requests)
        wait = RequestsWait(requests, deadline_of(now, timeout), wake, accepted_only=accepted_only)
        alone = wait.alone
        unsent = []
        for request in requests:
            # One that was lost only after `prepare` had looked at it has no payload, and is
            # returned as lost; one that is in `requests` twice has the wait already.
            if request.state != JOB_UNKNOWN or request.payload is None:
                self._join(request, wait)
            elif request.waits is not alone:
                if request.error or request.connection_attempts or request.handle is not None:
                    request.renew()
                request.waits = alone
                unsent.append(request)
        wait.unaccepted += len(unsent)
        wait.open += len(unsent)
        uniques = self._make_uniques(len(unsent))
        for request in unsent:
            if not request.unique:
                request.unique = request.generated_unique = next(uniques)
            self._assign(request, now)
        wait.check()
        return self._start(wait)

    def wait_completed(
        self,
        requests: Collection[GearmanJobRequest],
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = None,
    ) -> RequestsWait:
        """Wait until those of `requests` that are under way have ended. Else like `submit`."""
        return self._start(self._joined(RequestsWait(requests, deadline_of(now, timeout), wake)))

    def as_completed(
        self,
        requests: Collection[GearmanJobRequest],
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = None,
    ) -> Stream:
        """Like `wait_completed`; the Stream gives each request as it ends."""
        return self._start(self._joined(Stream(requests, deadline_of(now, timeout), wake)))

    def updates(
        self,
        request: GearmanJobRequest,
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = None,
    ) -> UpdateStream:
        """Wait for what comes of `request`."""
        return self._start(self._joined(UpdateStream(request, deadline_of(now, timeout), wake)))

    def watch(self, now: float, wake: Callable[[], Any], *, timeout: float | None = None) -> Stream:
        """Wait for anything to come from any server, or for a connection to be made or lost."""
        self._check_open()
        stream = Stream((), deadline_of(now, timeout), wake)  # It ends by its deadline only.
        self._watchers.add(stream)
        return self._start(stream)

    def connect(
        self,
        server: Server,
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = None,
    ) -> Wait:
        """Wait for a connection to `server`."""
        self._check_open()
        wait = Wait(deadline_of(now, timeout), wake)
        link = self._link_to(server, now)
        if link.is_up:
            wait.finish()
        else:
            link.waits.append(wait)
        return self._start(wait)

    def statuses(
        self,
        requests: Collection[GearmanJobRequest],
        now: float,
        wake: Callable[[], Any],
        *,
        by_unique: bool = False,
        timeout: float | None = None,
    ) -> StatusWait:
        """Ask for the status of `requests`.

        By handle (GET_STATUS) where there is one, else by unique (GET_STATUS_UNIQUE).

        Args:
            requests: They need not have been submitted here.
            now: The time.
            wake: Called once, when the wait is done.
            by_unique: Whether to ask by unique although there is a handle.
            timeout: Seconds to wait at most, or None.

        Raises:
            InvalidClientState: The engine is closed; a request has neither handle nor unique; or
                it is at a server that is not one of this client's.
            ValueError: A handle or unique is not one that servers take.
        """
        self._check_open()
        check_requests(requests)
        wait = StatusWait(requests, deadline_of(now, timeout), wake)
        asked = []
        for request in requests:
            query = Query(request, wait, status_event(request, by_unique))
            asked.append((query, self._servers_of(request)))
        for query, servers in asked:
            query.request.timed_out = False
            wait.queries.append(query)
            wait.open += 1
            query.open = max(len(servers), 1)
            for server in servers:
                self._enqueue(query, server, now)
            if not servers:
                query.fail(self._unavailable())
        wait.check()
        return self._start(wait)

    def release(self, wait: Wait, now: float) -> None:
        """The caller of `wait` is no longer blocked, for whatever reason."""
        if wait.deadline is not None:
            self._timers.cancel(wait)
        self._waits.discard(wait)
        if isinstance(wait, Stream):
            self._watchers.discard(wait)
        if isinstance(wait, RequestsWait) and wait.open:
            for request in wait.requests:
                if wait in request.waits:
                    request.waits = tuple(other for other in request.waits if other is not wait)

    def close(self, now: float) -> None:
        """Close all connections, as if they had been lost. Nothing can be submitted afterwards."""
        self.closed = True
        for server in self.pool.servers:
            if server.link is not None:
                self._close(server.link, ConnectionError("the client was shut down"), now)
        for wait in list(self._waits):
            wait.finish()

    def crash(self, error: Exception) -> None:
        """One of the calls raised, which is a bug: fail everybody who waits, with `error`.

        All connections are given up. What can be done with the engine afterwards is as good as the
        bug is small.
        """
        while self._waits:
            wait = self._waits.pop()
            wait.error = error
            wait.finish()
        for link in self._give_up_links(error):
            self._actions.append(Close(link))
        self._timers.clear()  # Nobody may be left to release what a signal has hit.

    def abandon(self, error: Exception) -> None:
        """Nobody will run this engine any more: its requests are lost, and nobody is told.

        For the child of a fork, whose engine the parent runs, and which has no other thread.
        """
        self.closed = True
        self._give_up_links(error)

    def _give_up_links(self, error: Exception) -> list[ClientLink]:
        links = self.pool.links()
        for link in links:
            here = [*link.outbox, *link.connection.unanswered_tokens(), *link.jobs.give_up()]
            link.outbox.clear()
            self._drop(link)
            for item in here:
                if isinstance(item, GearmanJobRequest):
                    item.waits = ()
                    item.leave(JOB_UNKNOWN, error)
        return links

    # The transport side, in.

    def receive_data(self, link: ClientLink, data: bytes, now: float) -> None:
        """The server of `link` has sent `data`."""
        if not link.alive:
            return
        if self.dropped:
            self._sweep()
        link.connection.receive_data(data)
        self._handle_events(link, now)
        for watcher in self._watchers:
            watcher.tell()

    # The transport side, out.

    def links_to_write(self) -> Iterable[ClientLink]:
        """The open links on which there is something to send, if the window allows it."""
        links = []
        for server in self.pool.servers:
            link: ClientLink | None = server.link
            if link is None or link.state is not OPEN or not link.outbox:
                continue
            if link.connection.unanswered < _WINDOW:
                links.append(link)
        return links

    def data_to_send(self, link: ClientLink, now: float) -> bytes:
        """Bytes to write on `link` now, or none: whole packets of about 64 KiB together."""
        if link.state is not OPEN:
            return b""
        packets: list[bytes] = []
        size = 0
        send = link.connection.send
        outbox = link.outbox
        room = _WINDOW - link.connection.unanswered
        unanswered = _WINDOW - room
        while room > 0 and size < _CHUNK_SIZE and outbox:
            room -= 1
            item = outbox.popleft()
            if isinstance(item, GearmanJobRequest):
                item.connection_attempts += 1
                try:
                    packet = send(submit_event(item), item)
                except (GearmanError, AttributeError, LookupError, TypeError, ValueError) as error:
                    if link.connection.unanswered != unanswered + len(packets):
                        raise  # It came behind that, from a signal handler.
                    self._unsendable(item, error)
                    continue
            else:
                packet = send(item.event, item)
            packets.append(packet)
            size += len(packet)
        return b"".join(packets)

    # Waits.

    def _check_open(self) -> None:
        if self.closed:
            raise InvalidClientState("this client has been shut down")

    def _check_ours(self, requests: Iterable[GearmanJobRequest]) -> None:
        """Make those JOB_UNKNOWN that another engine has lost; refuse those that it has.

        And those of our own that a signal's exception has hit where they left, before a `crash`:
        they are in no place any more.
        """
        for request in requests:
            link = request.link
            if link is None or (link.engine is self and link.state is not GONE):
                continue
            if link.engine is not self and not link.engine.closed:
                raise InvalidClientState(f"{request!r} is under way in another client")
            request.waits = ()
            request.leave(JOB_UNKNOWN)

    def _joined(self, wait: _R) -> _R:
        check_requests(wait.requests)
        self._check_ours(wait.requests)
        for request in dict.fromkeys(wait.requests):  # A stream yields each once.
            self._join(request, wait)
        wait.check()
        return wait

    def _start(self, wait: _W) -> _W:
        if self.dropped:
            self._sweep()
        if not wait.done:
            self._waits.add(wait)
            if wait.deadline is not None:
                self._timers.set(wait, wait.deadline, type(wait).expire)
        return wait

    @staticmethod
    def _join(request: GearmanJobRequest, wait: RequestsWait) -> None:
        """Have `request` tell `wait`, if it is under way."""
        request.timed_out = False
        if wait in request.waits:
            return  # It is in the list twice.
        if request.link is not None:
            wait.open += 1
            wait.unaccepted += request.state == JOB_PENDING
            request.waits = (*request.waits, wait)
        else:
            if request.state == JOB_PENDING:  # A signal has hit it between its states.
                request.waits = ()
                request.leave(JOB_UNKNOWN)
            wait.request_was_over(request)

    # Requests.

    def _make_uniques(self, count: int) -> Iterator[str]:
        size = self._unique_bytes
        if count == 1:
            yield self._rng.randbytes(size).hex()
            return
        while count > 0:
            some = min(count, _UNIQUES)
            text = self._rng.randbytes(some * size).hex()
            yield from [text[at : at + 2 * size] for at in range(0, len(text), 2 * size)]
            count -= some

    def _assign(self, request: GearmanJobRequest, now: float) -> None:
        """Give `request` to a server."""
        request.state = JOB_PENDING
        key = b""
        if self.pool.by_unique and request.unique:
            # On the wire "-" stands for the data.
            key = (request.payload or b"") if request.unique == "-" else to_wire(request.unique)
        server = None if self.closed else self.pool.choose(now, request.tried, key)
        if server is None:
            self._fail(request, self._unavailable())
            return
        link = server.link or self._link_to(server, now)
        link.outbox.append(request)
        request.link = link
        request.connection = server.address

    def _unavailable(self) -> ServerUnavailable:
        if self.closed:
            return ServerUnavailable("the client was shut down")
        return self.pool.unavailable()

    def _fail(self, request: GearmanJobRequest, error: Exception) -> None:
        """`request` will not be acknowledged, and its callers are going to raise `error`."""
        for wait in request.waits:
            wait.request_failed(error)
        request.leave(JOB_UNKNOWN, error)

    def _unsendable(self, request: GearmanJobRequest, error: Exception) -> None:
        """What it is made of was changed after it had been checked."""
        self._fail(request, LocalProtocolError(f"changed since it was submitted: {error!r}"))

    # Links.

    def _link_to(self, server: Server, now: float) -> ClientLink:
        link: ClientLink | None = server.link
        if link is None:
            link = self._connect(ClientLink(self, server, self._max_packet_size), now)
            if self._exceptions:
                link.outbox.append(_GREETING)
        return link

    def _opened(self, link: ClientLink, now: float) -> None:
        self._tell_waits(link, None)

    def _lost(self, link: ClientLink, error: Exception, now: float) -> None:
        server = link.server
        was_up = link.is_up
        self._drop(link)
        if not self.closed:
            server.failed(error, now, self._rng)
        outbox, link.outbox = link.outbox, deque()
        for request in link.jobs.give_up():
            request.leave(JOB_UNKNOWN)
        for item in link.connection.unanswered_tokens():
            if isinstance(item, GearmanJobRequest):
                self._lost_sent(item, server, error, now)
            elif isinstance(item, Query):
                self._lost_query(item, server, error, now, was_up=True)
        for item in outbox:
            if isinstance(item, GearmanJobRequest):
                self._lost_unsent(item, server, error, now, was_up=was_up)
            elif isinstance(item, Query):
                self._lost_query(item, server, error, now, was_up=was_up)
        self._tell_waits(link, error)

    def _lost_sent(
        self, request: GearmanJobRequest, server: Server, error: Exception, now: float
    ) -> None:
        """A submit was sent and not acknowledged; nobody knows whether it arrived."""
        if self.closed:
            self._fail(request, self._unavailable())
            return
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
        request.tried = ()
        request.forget_unique()
        if not request.unique:
            request.unique = request.generated_unique = next(self._make_uniques(1))
        self._assign(request, now)

    def _lost_unsent(
        self,
        request: GearmanJobRequest,
        server: Server,
        error: Exception,
        now: float,
        *,
        was_up: bool,
    ) -> None:
        """A submit was not sent, so sending it elsewhere is no new attempt."""
        request.tried = (*request.tried, server)
        if was_up and len(request.tried) >= len(self.pool.servers):
            # There is no elsewhere, but this server did take the connection.
            request.connection_attempts += 1
            self._lost_sent(request, server, error, now)
        else:
            self._assign(request, now)

    def _tell_waits(self, link: ClientLink, error: Exception | None) -> None:
        """Those who wait for a connection have it, or will not get it."""
        waits, link.waits = link.waits, []
        for wait in waits:
            if error is None:
                wait.finish()
            else:
                wait.fail(ConnectionError(f"no connection to {link.address}: {error}"))
        for watcher in self._watchers:
            watcher.tell()

    # Events.

    def _handle_events(self, link: ClientLink, now: float) -> None:
        handlers = self._handlers
        next_event = link.connection.next_event
        try:
            event = next_event()
            if event is not NEED_DATA:
                link.server.answered()
            while event is not NEED_DATA:
                handlers[type(event)](link, event)
                event = next_event()
        except RemoteProtocolError as error:
            self._close(link, error, now)

    def _on_option_res(self, link: ClientLink, event: OptionRes) -> None:
        """The server will send exceptions."""

    def _on_job_created(self, link: ClientLink, event: JobCreated) -> None:
        request: GearmanJobRequest = event.answers
        handle = event.handle
        request.handle = handle.decode("utf-8", "surrogateescape")
        if request.background:
            request.leave(JOB_CREATED)
            return
        request.payload = None
        request.tried = ()
        request.state = JOB_CREATED
        link.jobs.add(handle, request)
        for wait in request.waits:
            wait.request_accepted()

    def _on_error(self, link: ClientLink, event: Error) -> None:
        item = event.answers
        error = ServerError(
            event.code.decode("utf-8", "replace"),
            event.text.rstrip(b"\0").decode("utf-8", "replace"),
        )
        if isinstance(item, GearmanJobRequest):
            item.leave(JOB_FAILED, error)
        elif isinstance(item, Query):
            item.fail(error)

    def _on_unanswered(self, link: ClientLink, event: Unanswered) -> None:
        item = event.answers
        if isinstance(item, Query):
            item.fail(
                ServerError("UNANSWERED", f"{link.address} does not answer {event.packet.name}")
            )

    # Events of jobs.

    def _on_work_complete(self, link: ClientLink, event: WorkComplete) -> None:
        for request in link.jobs.end(event.handle):
            request.raw_result = event.data
            request.leave(JOB_COMPLETE)

    def _on_work_fail(self, link: ClientLink, event: WorkFail) -> None:
        for request in link.jobs.end(event.handle):
            request.leave(JOB_FAILED)

    def _on_work_exception(self, link: ClientLink, event: WorkException) -> None:
        for request in link.jobs.end(event.handle):
            request.raw_exception = event.data
            request.leave(JOB_FAILED)

    def _on_work_data(self, link: ClientLink, event: WorkData) -> None:
        for request in link.jobs.receivers(event):
            updates = request.all_updates()
            self._updated(link, request, event, updates.add(updates.data, event.data))

    def _on_work_warning(self, link: ClientLink, event: WorkWarning) -> None:
        for request in link.jobs.receivers(event):
            updates = request.all_updates()
            self._updated(link, request, event, updates.add(updates.warnings, event.data))

    def _on_work_status(self, link: ClientLink, event: WorkStatus) -> None:
        for request in link.jobs.receivers(event):
            status: JobStatus = {
                "handle": request.handle,
                "known": True,
                "running": True,
                "numerator": number(event.numerator),
                "denominator": number(event.denominator),
                "time_received": self._wall_clock(),
            }
            request.set_status(status)
            updates = request.all_updates()
            updates.add_progress(status["numerator"], status["denominator"])
            self._updated(link, request, event, True)

    def _updated(
        self, link: ClientLink, request: GearmanJobRequest, event: Any, few_unread: bool
    ) -> None:
        if not few_unread:
            link.jobs.remove(event.handle, request)
            error = GearmanError(
                f"the job has sent more than {MAX_UNREAD_UPDATES} bytes of updates that nobody read"
            )
            request.leave(JOB_FAILED, error)
            return
        for wait in request.waits:
            wait.request_updated()

    def _sweep(self) -> None:
        """Forget the requests that nobody holds any more."""
        while self.dropped:
            self.dropped.popleft().forget()

    # Statuses.

    def _servers_of(self, request: GearmanJobRequest) -> list[Server]:
        address = request.connection
        if address is None:
            return self.pool.servers
        server = self.pool.find(address)
        if server is None:
            raise InvalidClientState(
                f"{request!r} is at {address}, which is not one of this client's servers"
            )
        return [server]

    def _enqueue(self, query: Query, server: Server, now: float) -> None:
        link = self._link_to(server, now)
        link.outbox.append(query)

    def _on_status_res(self, link: ClientLink, event: StatusRes | StatusResUnique) -> None:
        query: Query = event.answers
        status: JobStatus = {
            "handle": query.request.handle,
            "known": number(event.known) != 0,
            "running": number(event.running) != 0,
            "numerator": number(event.numerator),
            "denominator": number(event.denominator),
            "time_received": self._wall_clock(),
        }
        if isinstance(event, StatusResUnique):
            status["client_count"] = number(event.clients)
        query.answer(status)

    def _lost_query(
        self, query: Query, server: Server, error: Exception, now: float, *, was_up: bool
    ) -> None:
        """Ask again, once: the connection may have been dead for long without anybody noticing."""
        if was_up and not query.answered and not self.closed and server not in query.retried:
            query.retried.add(server)
            self._enqueue(query, server, now)
        else:
            query.fail(ServerUnavailable(f"{server.address} did not answer: {error}"))
