"""A client's connection to one server, and the requests in flight on it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.constants import JOB_PENDING
from gearman_proto.engines.connecting import OutgoingLink
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.names import check_task
from gearman_proto.wire.packets import HEADER_SIZE, SUBMITS, Role

from .cancelling import is_followed
from .foreground import ForegroundJobs, Submit
from .heartbeat import Heartbeat
from .queries import TRIAL_EVENT, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gearman_proto.engines.base import BaseEngine
    from gearman_proto.engines.servers import Server
    from gearman_proto.engines.waits import RequestsWait, Wait
    from gearman_proto.jobs.batch import Columns
    from gearman_proto.wire.packets import PlainSubmit

    from .foreground import LoneRef, RequestRef

# Size of a piece of a large packet in bytes.
_PIECE: Final = 256 * 1024
#: Larger packets are sent in pieces, so that the engine can see whether the server accepts bytes.
LARGE: Final = 2 * _PIECE
#: Approximate cost of a submit or a question in bytes, without its data.
ITEM_COST: Final = 1024


#: Probe for a server that has failed.
TRIAL: Final = Probe(TRIAL_EVENT, is_awaited=True)


class ClientLink(OutgoingLink):
    """One connection to a server, or the attempt to make one.

    Attributes:
        engine: The engine of the link.
        outbox: Outgoing items, in order.
        batches: The calls whose jobs are in columns, in order. They are sent after the outbox. The
            answers to background jobs have the columns as their token.
        jobs: The foreground jobs that the server has acknowledged.
        waits: Calls that wait for the connection to open.
        ahead: Items to send before the outbox: first the rest of a large packet in pieces, then
            questions of the heartbeat.
        heartbeat: The checks of the server.
    """

    __slots__ = ("ahead", "batches", "engine", "heartbeat", "jobs", "outbox", "waits")

    def __init__(
        self,
        engine: BaseEngine,
        server: Server,
        *,
        max_packet_size: int,
        heartbeat: float,
        dropped: deque[RequestRef | LoneRef],
    ) -> None:
        super().__init__(server, Role.CLIENT, max_packet_size)
        self.engine: BaseEngine = engine
        self.outbox: deque[GearmanJobRequest | Submit | Probe] = deque()
        self.batches: dict[Columns, RequestsWait] = {}
        self.jobs: ForegroundJobs = ForegroundJobs(dropped)
        self.waits: list[Wait] = []
        self.ahead: deque[memoryview | Probe] = deque()
        self.heartbeat: Heartbeat = Heartbeat(
            heartbeat, self.jobs, self.delivery, self.ahead.append
        )

    def put(self, requests: Iterable[GearmanJobRequest], now: float) -> None:
        """Queue `requests`."""
        address, append = self.address, self.outbox.append
        for request in requests:
            request.state = JOB_PENDING
            request._gm_link = self
            request.connection = address
            if request.background or request.unique == request._gm_generated_unique:
                append(request)
            elif (item := self.jobs.share(request, now)) is not None:
                append(item)

    def unsent_batch(self) -> Columns | None:
        """Return the first columns that have unsent jobs, or None."""
        for columns in self.batches:
            if columns.sent < columns.size:
                return columns
        return None

    def take(self, columns: Columns, now: float) -> None:
        """Queue the requests of the next foreground jobs of `columns`."""
        wait = self.batches[columns]
        requests = columns.take()
        if columns.sent == columns.size:
            del self.batches[columns]
            wait.members = (*wait.members, *columns.all())
        _wait_for(requests, wait)
        self.put(requests, now)

    def accept(self, columns: Columns, handles: list[bytes]) -> None:
        """Record the acknowledgments of the next background jobs of `columns`."""
        columns.accept(handles)
        wait = self.batches[columns]
        if columns.accepted == columns.size:
            del self.batches[columns]
        wait.jobs_ended(len(handles))

    def unpack(self, columns: Columns, now: float, answered: int = 0) -> list[GearmanJobRequest]:
        """Continue the call of `columns` with a request for each job.

        Args:
            columns: The columns.
            now: The time.
            answered: The number of answers that were already removed from the connection's queue.

        Returns:
            The requests of the answers.
        """
        wait = self.batches.pop(columns)
        requests = columns.unpack()
        wait.members = (*wait.members, *requests)
        first = columns.accepted + answered
        _wait_for(requests[columns.accepted :], wait)
        self.connection.replace_token(columns, iter(requests[first : columns.sent]))
        self.put(requests[columns.sent :], now)
        return requests[columns.accepted : first]

    def in_pieces(self, packets: list[bytes]) -> bytes:
        """Return the first piece of `packets`, and add the others to `ahead`.

        The last of `packets` is a large payload of the application, which is not copied.
        """
        front, view = b"".join(packets[:-1]), memoryview(packets[-1])
        begun = _PIECE - len(front)
        self.ahead.extend(view[at : at + _PIECE] for at in range(begun, len(view), _PIECE))
        return front + view[:begun]

    def is_awaited(self) -> bool:
        """Return whether the client waits for anything from the server."""
        return bool(self.jobs) or any(
            not isinstance(item, Probe) or item.is_awaited for item in self.items()
        )

    def abandoned(self) -> int:
        """Return the approximate number of bytes buffered for the server by abandoned calls."""
        size = 0
        for item in self.items():
            size += sum(map(abandoned_size, requests_of(item)))
            if isinstance(item, Probe) and item.is_abandoned:
                size += ITEM_COST
        return size

    def check(self, now: float) -> str | None:
        """Check the server; see `Heartbeat.check`."""
        queued = sum(len(item) for item in self.ahead if isinstance(item, memoryview))
        unanswered = sum(
            len(request._gm_payload or b"")
            for item in self.connection.unanswered_tokens()
            for request in requests_of(item)[:1]
        ) + sum(columns.unanswered_size() for columns in self.batches)
        return self.heartbeat.check(
            now,
            queued=queued,
            unanswered=unanswered - queued,
            partial=self.connection.buffered,
        )

    def waiting_requests(self) -> list[GearmanJobRequest]:
        """Return the unsent requests."""
        return [request for item in self.outbox for request in requests_of(item)]

    def drop_requests(self) -> None:
        """Remove the requests of a link that is not open yet."""
        self.outbox = deque(item for item in self.outbox if not requests_of(item))
        self.jobs.give_up()

    def items(self) -> Iterator[Any]:
        """Yield the unanswered items, then the unsent ones."""
        yield from self.connection.unanswered_tokens()
        yield from self.outbox


def _wait_for(requests: list[GearmanJobRequest], wait: RequestsWait) -> None:
    # All requests share this tuple. An attribute of `wait` would make a reference cycle.
    alone = (wait,)
    for request in requests:
        # Another call can wait for a request that the application has looked at.
        request._gm_waits = (*request._gm_waits, wait) if request._gm_waits else alone


def take_submits(
    outbox: deque[Any], room: int, limit: int
) -> tuple[type[PlainSubmit], bytes, list[bytes], list[bytes], list[GearmanJobRequest]] | None:
    """Remove similar submits from the head of `outbox`, and count an attempt for each.

    Similar submits differ only in unique and data. Stop at a request that is large or that the
    application might have changed since its check: the caller has to send these one by one. All
    returned submits are valid.

    Args:
        outbox: The outgoing items.
        room: Maximum number of submits to remove.
        limit: Maximum number of bytes. The header and unique of the last submit can exceed it.

    Returns:
        The arguments of `Connection.send_submits`, with the requests as tokens, or None if the
        first item is not suitable.
    """
    first = outbox[0]
    if type(first) is not GearmanJobRequest:
        return None
    task, priority, background = first.task, first.priority, first.background
    if type(task) is not str or not (priority is None or type(priority) is str):
        return None
    kind = SUBMITS.get((priority, background is True))
    if kind is None:
        return None
    try:
        function = check_task(task)
    except ValueError:
        return None
    uniques: list[bytes] = []
    payloads: list[bytes] = []
    requests: list[GearmanJobRequest] = []
    overhead = HEADER_SIZE + len(function) + 2
    while room > len(requests) and limit > 0 and outbox:
        request = outbox[0]
        if (
            type(request) is not GearmanJobRequest
            or request.task is not task
            or (text := request.unique) is None
            or text is not request._gm_generated_unique
            or request.priority is not priority
            or request.background is not background
            or request.run_at is not None
            or request.reducer is not None
            or type(payload := request._gm_payload) is not bytes
            or len(payload) > limit
            or type(attempts := request.connection_attempts) is not int
        ):
            break
        request.connection_attempts = attempts + 1
        unique = text.encode()
        uniques.append(unique)
        payloads.append(payload)
        requests.append(request)
        limit -= overhead + len(unique) + len(payload)
        outbox.popleft()
    return (kind, function, uniques, payloads, requests) if requests else None


def requests_of(item: object) -> Sequence[GearmanJobRequest]:
    """Return the requests that `item`, queued or unanswered, submits."""
    if isinstance(item, GearmanJobRequest):
        return (item,)
    return item.requests if isinstance(item, Submit) else ()


def abandoned_size(request: GearmanJobRequest) -> int:
    """Return the approximate bytes buffered for `request` if no call waits for it, else 0."""
    if request.state != JOB_PENDING or is_followed(request):
        return 0
    return ITEM_COST + len(request._gm_payload or b"")
