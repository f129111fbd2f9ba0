"""The requests of one call, kept in columns until the application looks at them.

A call with many jobs keeps their data, uniques and handles in columns. This takes a fraction of the
time and memory of a request for each job. Requests are made in slices, when the application reads
one. The engine submits background jobs from the columns; for foreground jobs it makes the requests
of a slice when there is room for them on the wire.

States of `Columns`
    ===========  ==========  ===========================================================
    state        `address`   next
    ===========  ==========  ===========================================================
    new          None        `begin`: the engine submits the jobs; or `split`
    split        None        none: each server's columns have their own state
    in flight    the server  the last JOB_CREATED, or a request for each job (`unpack`)
    ended        the server  none
    ===========  ==========  ===========================================================

    A server answers submits in order. So for background jobs, two counters, `sent` and `accepted`,
    are the state of all jobs. Anything else (an error, a lost connection, a timeout, a request
    that the application looks at) makes the engine continue with requests; see `ClientLink.unpack`.

Threads
    Any thread can read a request at any time, without the engine's lock. It makes the requests of a
    slice in the state that it sees, and adds the slice. Of several threads that make the same slice
    at once, `dict.setdefault` lets one win. From then on, only the engine changes the requests. It
    continues with requests at the next answer, and so corrects those that were made from an earlier
    state. With the last answer, it also adds an empty slice for each missing one, because no next
    answer would correct a slice that is added later. A thread that finds such a slice
    makes final requests instead.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, final, overload

from gearman_proto.constants import JOB_PENDING, JOB_UNKNOWN
from gearman_proto.wire.packets import HEADER_SIZE

from .encoder import NoopEncoder
from .request import GearmanJobRequest
from .tracking import finish_background, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Self, TypeGuard

    from gearman_proto.address import ServerAddress
    from gearman_proto.constants import Priority
    from gearman_proto.wire.connection import Connection
    from gearman_proto.wire.packets import PlainSubmit

#: Number of requests to make at a time. One write has about as many submits.
SLICE: Final = 1024
# The value of `Columns.slices` that keeps threads from adding a slice. See "Threads".
_CLOSED: Final[list[Any]] = []


class Columns:
    """The jobs of one call.

    Args:
        kinds: The task and the priority of each job.
        data: The data of each job.
        uniques: The unique of each job, or None if the jobs have no uniques.
        background: If true, the submitter does not wait for the jobs' ends.
        attempts: Maximum number of attempts to submit each job.

    Attributes:
        size: The number of jobs.
        encoder, payloads: The encoder and the encoded data. `submitting.prepare` sets them; after
            the end, `payloads` is None again.
        submits: For each kind, the class of its packets and its function; also from `prepare`.
        sent: The number of sent jobs.
        accepted: The number of jobs that need no further step here: acknowledged background jobs,
            or foreground jobs whose requests are in the engine.
        slices: The requests made so far, by the number of their slice. Those that were made after
            the end have the number's complement, because an empty slice has the number.
        parts: If several servers have the jobs, the columns of each. They have the jobs in turn.
    """

    __slots__ = (
        *("_attempts", "_handles", "_link", "_make_bytes", "_packed", "_random", "_unique_bytes"),
        *("accepted", "address", "background", "data", "encoder", "kinds", "parts", "payloads"),
        *("__weakref__", "sent", "size", "slices", "submits", "uniques"),
    )

    def __init__(
        self,
        kinds: list[tuple[str, Priority]],
        data: list[Any],
        uniques: list[str | None] | None,
        background: bool,
        attempts: int,
    ) -> None:
        self.size: int = len(data)
        self.kinds: list[tuple[str, Priority]] = kinds
        self.data: list[Any] = data
        self.uniques: list[str | None] | None = uniques
        self.background: bool = background
        self._attempts = attempts
        self.encoder: Any = NoopEncoder
        self.payloads: list[bytes] | None = None
        self.submits: dict[tuple[str, Priority], tuple[type[PlainSubmit], bytes]] = {}
        self.address: ServerAddress | None = None
        self._link: Any = None
        self._make_bytes: Callable[[int], bytes] | None = None
        self._unique_bytes = 0
        # The random bytes of the generated uniques, by the index of the job.
        self._random = bytearray()
        # The handles of the accepted jobs. Each item has many, separated by NULs.
        self._packed: list[bytes] = []
        # The same handles one by one, if a request was made after the end.
        self._handles: list[bytes] = []
        self.sent: int = 0
        self.accepted: int = 0
        self.slices: dict[int, list[GearmanJobRequest]] = {}
        self.parts: list[Columns] = []

    # The engine's side.

    def split(self, count: int) -> list[Columns]:
        """Return the columns for each of `count` servers, which get the jobs in turn."""
        if count == 1:
            return [self]
        assert self.payloads is not None
        for first in range(count):
            mine = slice(first, None, count)
            uniques = None if self.uniques is None else self.uniques[mine]
            kinds, data = self.kinds[mine], self.data[mine]
            part = Columns(kinds, data, uniques, self.background, self._attempts)
            part.encoder, part.submits = self.encoder, self.submits
            part.payloads = self.payloads[mine]
            self.parts.append(part)
        self.payloads = None
        return self.parts

    def begin(self, link: Any, make_bytes: Callable[[int], bytes], unique_bytes: int) -> None:
        """Submit the jobs on `link`.

        Args:
            link: The engine's connection to the server.
            make_bytes: Returns random bytes for uniques.
            unique_bytes: Number of random bytes in a unique.
        """
        self._make_bytes, self._unique_bytes = make_bytes, unique_bytes
        self._link = link
        self.address = link.address
        for requests in [*self.slices.values()]:  # Other threads have made them meanwhile.
            self._start(requests, link)

    def send(self, connection: Connection, room: int, limit: int) -> list[bytes]:
        """Send the next background jobs, and return the bytes to write.

        Args:
            connection: The connection.
            room: Maximum number of submits.
            limit: Maximum number of bytes. A larger job is sent alone.
        """
        assert self.payloads is not None
        at = self.sent
        payloads = self.payloads[at : at + min(room, SLICE)]
        kinds = self.kinds[at : at + len(payloads)]
        if kinds.count(kinds[0]) == len(kinds):
            del kinds[1:]  # One for all.
        submits = [self.submits[kind] for kind in kinds]
        longest = max(len(function) for _, function in submits)
        overhead = HEADER_SIZE + longest + 2 + 2 * self._unique_bytes
        while (size := sum(map(len, payloads)) + overhead * len(payloads)) > limit:
            if len(payloads) == 1:
                break
            payloads = payloads[: max(1, len(payloads) * limit // size)]
        stop = at + len(payloads)
        if self.uniques is None or not all(self.uniques[at:stop]):
            assert self._make_bytes is not None
            self._random += self._make_bytes(stop * self._unique_bytes - len(self._random))
        uniques = self._wire_uniques(at, stop)
        if size > limit:
            kind, function = submits[0]
            event = kind(function, uniques[0], payloads[0])
            pieces = connection.send_with_data_passthrough(event, self)
        else:
            tokens = [self] * len(payloads)
            del submits[len(payloads) :]
            pieces = [connection.send_mixed_submits(submits, uniques, payloads, tokens)]
        self.sent = stop
        return pieces

    def accept(self, handles: list[bytes]) -> None:
        """Record the handles of the next background jobs."""
        self._packed.append(b"\0".join(handles))  # First, since other threads read `accepted`.
        self.accepted += len(handles)
        if self.accepted == self.size:
            for number in self._numbers():
                self._settle(self.slices.setdefault(number, _CLOSED), number * SLICE, self._link)
            self._end()

    def take(self) -> list[GearmanJobRequest]:
        """Return the requests of the next foreground jobs."""
        requests = self.slice(self.sent // SLICE)
        self._generate(requests)
        self.sent = self.accepted = self.sent + len(requests)
        if self.accepted == self.size:
            self._end()
        return requests

    def _end(self) -> None:
        # The application can keep the requests after its client is gone.
        self._link = self._make_bytes = self.payloads = None

    def unpack(self) -> list[GearmanJobRequest]:
        """Return a request for each job, in its present state."""
        requests = self.all()
        for number in self._numbers():  # Other threads can have made some from an earlier state.
            self._settle(self.slices[number], number * SLICE, self._link)
        self._generate(requests[self.sent :])
        self._end()
        return requests

    def unanswered_size(self) -> int:
        """Return the number of bytes of data that the server has not acknowledged."""
        return sum(map(len, (self.payloads or ())[self.accepted : self.sent]))

    # Requests.

    def all(self) -> list[GearmanJobRequest]:
        """Return all requests."""
        return [*itertools.chain.from_iterable(map(self.slice, self._numbers()))]

    def _numbers(self) -> range:
        return range((self.size + SLICE - 1) // SLICE)

    def request(self, at: int) -> GearmanJobRequest:
        """Return one request."""
        if self.parts:
            return self.parts[at % len(self.parts)].request(at // len(self.parts))
        return self.slice(at // SLICE)[at % SLICE]

    def slice(self, number: int) -> list[GearmanJobRequest]:
        """Return the requests of a slice."""
        if self.parts:
            start = number * SLICE
            return [*map(self.request, range(start, min(start + SLICE, self.size)))]
        found = self._kept(number, number)
        return found if found is not _CLOSED else self._kept(~number, number)

    def _kept(self, key: int, number: int) -> list[GearmanJobRequest]:
        """Return the slice that was added as `key`. Make a missing one first."""
        found = self.slices.get(key)
        if found is None:
            found = self.slices.setdefault(key, self._make(number * SLICE))
        return found

    def _make(self, start: int) -> list[GearmanJobRequest]:
        """Return new requests for the slice that begins at `start`."""
        stop = min(start + SLICE, self.size)
        # Make all objects before setting any up: the cycle collector scans young objects often, and
        # that is faster while they are empty.
        made = [*map(GearmanJobRequest.__new__, itertools.repeat(GearmanJobRequest, stop - start))]
        background, attempts, encoder = self.background, self._attempts, self.encoder
        payloads, data = self.payloads, self.data[start:stop]
        kinds = self.kinds[start:stop]
        coded: Iterable[bytes | None] = (
            itertools.repeat(None) if payloads is None else payloads[start:stop]
        )
        for request, (task, priority), each, payload in zip(made, kinds, data, coded):
            set_up(request, task, each, priority, background, attempts)
            request._gm_encoder = encoder
            request._gm_payload = payload
        if self.uniques is not None:
            for request, unique in zip(made, self.uniques[start:stop]):
                request.unique = unique
        if self.address is not None:
            link = self._link
            self._start(made, link)
            self._settle(made, start, link)
        return made

    def _start(self, requests: Iterable[GearmanJobRequest], link: Any) -> None:
        for request in requests:
            request.state = JOB_PENDING
            request.connection = self.address
            request._gm_link = link

    def _settle(self, requests: list[GearmanJobRequest], start: int, link: Any) -> None:
        """Record how far the jobs are, in those of `requests` that are in flight on `link`."""
        if not self.background or not requests:
            return  # The engine has the requests of foreground jobs.
        accepted = self.accepted
        stop = min(start + len(requests), self.sent)
        handles = self._wire_handles(accepted)[start : min(accepted, stop)]
        ended = []
        for at, (request, unique) in enumerate(zip(requests, self._wire_uniques(start, stop))):
            if request.state == JOB_UNKNOWN and request._gm_link is None:
                self._start((request,), link)  # It was made before `begin`.
            if request._gm_link is not link or request.state != JOB_PENDING:
                continue
            request.connection_attempts = 1
            if not request.unique:
                request.unique = request._gm_generated_unique = unique.decode()
            if start + at < accepted:
                request.handle = handles[at].decode("utf-8", "surrogateescape")
                ended.append(request)
        finish_background(ended)

    def _generate(self, requests: list[GearmanJobRequest]) -> None:
        """Generate a unique for each of `requests` that has none."""
        lacking = [request for request in requests if not request.unique]
        size = self._unique_bytes
        assert self._make_bytes is not None
        text = self._make_bytes(len(lacking) * size).hex()
        for at, request in enumerate(lacking):
            unique = text[at * 2 * size : (at + 1) * 2 * size]
            request.unique = request._gm_generated_unique = unique

    def _wire_uniques(self, start: int, stop: int) -> list[bytes]:
        """Return the uniques of sent jobs."""
        if stop <= start:
            return []
        given = None if self.uniques is None else self.uniques[start:stop]
        if given is not None and all(given):
            text = "\0".join(unique for unique in given if unique)
            return text.encode("utf-8", "surrogateescape").split(b"\0")
        size, random = self._unique_bytes, self._random
        if given is None:
            return random[start * size : stop * size].hex("\0", size).encode().split(b"\0")
        return [
            unique.encode("utf-8", "surrogateescape")
            if unique
            else random[at * size : (at + 1) * size].hex().encode()
            for at, unique in enumerate(given, start)
        ]

    def _wire_handles(self, accepted: int) -> list[bytes]:
        """Return at least the first `accepted` handles."""
        packed, handles = self._packed, self._handles  # In this order, see below.
        if len(handles) < accepted:
            handles = b"\0".join(packed).split(b"\0")
            if accepted == self.size:
                self._handles = handles
                self._packed = []
        return handles


@final  # So that code can compare its type: `isinstance` is slow with an ABC.
@functools.total_ordering
class Batch(MutableSequence[GearmanJobRequest]):
    """The requests of one call of `submit_multiple_jobs`, in the order of its jobs.

    A batch has the operations of a list. It makes a request when one is read for the first time,
    and keeps it, so ``batch[i] is batch[i]``. Slices, sums and copies are lists, and so is a batch
    that was pickled or copied.
    """

    __slots__ = ("_gm_columns", "_gm_list")

    def __init__(self, requests: Columns | list[GearmanJobRequest]) -> None:
        self._gm_columns = requests if isinstance(requests, Columns) else None
        # The requests, once all are made or the application has changed the batch.
        self._gm_list = [] if isinstance(requests, Columns) else requests

    def _gm_all(self) -> list[GearmanJobRequest]:
        """Make all requests, and return the list that the batch keeps from now on."""
        columns = self._gm_columns
        if columns is not None:
            self._gm_list = columns.all()
            self._gm_columns = None
        return self._gm_list

    def __len__(self) -> int:
        columns = self._gm_columns
        return len(self._gm_list) if columns is None else columns.size

    @overload
    def __getitem__(self, index: SupportsIndex) -> GearmanJobRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[GearmanJobRequest]: ...

    def __getitem__(
        self, index: SupportsIndex | slice
    ) -> GearmanJobRequest | list[GearmanJobRequest]:
        columns = self._gm_columns
        if columns is None:
            return self._gm_list[index]
        found = range(columns.size)[index]
        if isinstance(found, range):
            return [*map(columns.request, found)]
        return columns.request(found)

    def __iter__(self) -> Iterator[GearmanJobRequest]:
        columns = self._gm_columns
        if columns is None or len(columns.slices) * SLICE >= columns.size:
            return iter(self._gm_all())  # All are made.
        return self._gm_make_each()

    def _gm_make_each(self) -> Iterator[GearmanJobRequest]:
        at = 0
        while (columns := self._gm_columns) is not None and at < columns.size:
            for request in columns.slice(at // SLICE)[at % SLICE :]:
                yield request
                at += 1
                if self._gm_columns is None:
                    break
        requests = self._gm_all()  # All are made.
        while at < len(requests):
            yield requests[at]
            at += 1

    def __setitem__(self, index: Any, value: Any) -> None:
        self._gm_all()[index] = value

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        del self._gm_all()[index]

    def insert(self, index: SupportsIndex, value: GearmanJobRequest) -> None:
        """Insert a request before `index`."""
        self._gm_all().insert(index, value)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort the requests in place."""
        self._gm_all().sort(key=key, reverse=reverse)

    def copy(self) -> list[GearmanJobRequest]:
        """Return a list of the requests."""
        return [*self._gm_all()]

    def __add__(self, other: list[Any] | Batch) -> list[Any]:
        return [*self._gm_all(), *other] if _is_list(other) else NotImplemented

    def __radd__(self, other: list[Any]) -> list[Any]:
        return [*other, *self._gm_all()] if _is_list(other) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> list[GearmanJobRequest]:
        return self._gm_all() * count

    __rmul__ = __mul__

    def __imul__(self, count: SupportsIndex) -> Self:
        requests = self._gm_all()
        requests *= count
        return self

    __hash__: None = None  # type: ignore[assignment]  # as a list's

    def __eq__(self, other: object) -> bool:
        if not _is_list(other):
            return NotImplemented
        return len(self) == len(other) and self._gm_all() == [*other]

    def __lt__(self, other: list[Any] | Batch) -> bool:
        return self._gm_all() < [*other] if _is_list(other) else NotImplemented

    def __repr__(self) -> str:
        return repr(self._gm_all())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._gm_all(),)


def _is_list(value: object) -> TypeGuard[list[Any] | Batch]:
    return isinstance(value, (list, Batch))


def untouched(requests: Batch) -> Columns | None:
    """Return the columns of a batch, or None if a request was read or an engine has the jobs."""
    columns = requests._gm_columns
    if columns is None or columns.slices or columns.parts or columns.address is not None:
        return None
    return columns


def made(requests: Collection[GearmanJobRequest]) -> Iterable[GearmanJobRequest]:
    """Return the requests of a collection. Those of a batch that was not read do not exist."""
    columns = requests._gm_columns if type(requests) is Batch else None
    if columns is None:
        return requests
    slices = [[*each.slices.values()] for each in columns.parts or [columns]]
    return itertools.chain.from_iterable(itertools.chain.from_iterable(slices))
