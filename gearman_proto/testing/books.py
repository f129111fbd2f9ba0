"""The books of a simulated network: each submit, each execution, each end, and whether that can be.

They are kept beside the engines, by those who call them and by those whom they call, and know
nothing of how engines work. What must be true:

* **Nothing out of nothing.** What is executed was submitted. A result, and each update, was given
  by an execution of that very job.
* **One end.** A request that has ended stays as it ended. A job is executed again only if its
  worker's connection was lost, or its time was over.
* **Nothing is lost.** A background job that a server has acknowledged, and that has not died since,
  is executed to its end. A foreground job ends, or its request says how it was lost; and that is
  only said where a connection was lost.
* **In time.** A call with a timeout is over at its deadline, to the microsecond, and never says
  before it that it has timed out.
* **Every wait ends**, when nothing breaks any more.
* **Healthy connections stay.** A connection is healthy if nothing has happened to it, it carries
  at least 20 kB a second, and both ends read. No engine gives up such a connection, and a worker
  that stops closes it only when its results have reached the server.

Jobs are known by server and handle. (Handles of a server that was started again may be those of its
last life; then an execution of either will do.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gearman_proto.jobs.request import GearmanJobRequest

#: Seconds by which a deadline may be missed: sums of floats are not exact.
EPSILON: Final = 1e-6
_LOST: Final = (ConnectionError, ServerUnavailable, ExceededConnectionAttempts)


class Place(Protocol):
    """What the books have to know of a node."""

    @property
    def name(self) -> str:
        """What it is known by."""

    @property
    def servers(self) -> Mapping[str, Place]:
        """The nodes that it connects to, by name."""

    #: Whether it runs, and in which life.
    is_up: bool
    life: int
    #: When one of its connections ended last; when it has died, and with it what it had.
    last_loss: float
    #: When it tried in vain to connect last.
    last_refusal: float
    deaths: list[float]
    #: Whether it gives up a job whose worker was lost too often.
    may_give_up: bool


class Buffers(Protocol):
    """The part of an end of a connection that the books report."""

    @property
    def unacknowledged(self) -> int:
        """The bytes that were written and have not arrived."""

    #: Time of the last byte received, and of the last acknowledgement.
    heard_at: float
    moved_at: float


class Entry:
    """A submit.

    Attributes:
        request: The request; None when the application does not hold it any more.
        updates: What has come of its job: a kind and a value each.
        outcome: How it ended, once it has.
    """

    def __init__(self, number: int, node: Place, request: GearmanJobRequest, now: float) -> None:
        self.number = number
        self.node = node
        self.life: int = node.life
        self.request: GearmanJobRequest | None = request
        self.at = now
        self.function: str = request.task
        self.payload: Any = request.payload
        #: What the application chose, if anything.
        self.unique: str | None = request.unique
        self.background: bool = request.background
        self.updates: list[tuple[str, Any]] = []
        self.outcome: tuple[Any, ...] | None = None
        #: The server and the handle, once it was acknowledged.
        self.key: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"request {self.number} of {self.node.name}"

    @property
    def is_held(self) -> bool:
        """Whether its application is there and has not given it away."""
        return self.request is not None and self.node.is_up and self.node.life == self.life


class Execution:
    """A job that a worker was given.

    Attributes:
        sent: What the worker has sent about it: a kind and a value each.
        end: The kind of its end, once that was sent: complete, fail or exception.
        value: The value of that.
    """

    def __init__(
        self,
        key: tuple[str, str],
        worker: Place,
        is_lost: Callable[[], bool],
        now: float,
        limit: float | None,
    ) -> None:
        self.key = key
        self.worker = worker
        self.at = now
        self.limit = limit
        self.sent: list[tuple[str, Any]] = []
        self.end: str | None = None
        self.value: bytes | None = None
        self._is_lost = is_lost

    def may_be_again(self, now: float) -> bool:
        """Whether its server may have given the job to somebody else by now."""
        return self._is_lost() or (self.limit is not None and now >= self.at)

    def say(self, kind: str, value: Any) -> None:
        """The worker sends an update."""
        self.sent.append((kind, value))

    def finish(self, kind: str, value: bytes | None) -> None:
        """The worker sends the end."""
        self.end, self.value = kind, value


class Books:
    """All that is written down.

    Args:
        fail: Gets what must not be, and raises.
        is_calm: Whether nothing has gone wrong until now.
    """

    def __init__(self, fail: Callable[[str], NoReturn], is_calm: Callable[[], bool]) -> None:
        self.entries: list[Entry] = []
        #: Those that have not ended, and some that have.
        self.open: dict[Entry, None] = {}
        self.executions: dict[tuple[str, str], list[Execution]] = defaultdict(list)
        #: Whether there is a worker that may not take any time for a job.
        self.is_limited = False
        #: How often each thing that is allowed has happened.
        self.counts: Counter[str] = Counter()
        #: The jobs whose end has arrived, by server and handle.
        self.arrived: set[tuple[str, str]] = set()
        self._submitted: dict[tuple[str, Any], set[str | None]] = defaultdict(set)
        self.is_calm = is_calm
        # Those that clients have made.
        self._uniques: set[bytes] = set()
        self._fail = fail

    # What clients do.

    def submitted(self, node: Place, request: GearmanJobRequest, now: float) -> Entry:
        """A request is about to be submitted; it has been through `prepare`."""
        entry = Entry(len(self.entries), node, request, now)
        self.entries.append(entry)
        self.open[entry] = None
        self._submitted[entry.function, entry.payload].add(entry.unique)
        return entry

    def told(self, entry: Entry) -> None:
        """A call is over, or somebody looks: compare the request with what has happened."""
        request = entry.request
        if request is None:
            return
        self._read_updates(entry, request)
        state = request.state
        key = None
        if request.handle is not None and request.connection is not None:
            key = entry.key = request.connection.host, request.handle
        if entry.outcome is None and state in (JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN):
            self._ended(entry, request, key)
        outcome = (state, request.handle, request.result, request.exception, request.error)
        if entry.outcome is None:
            if request.link is None:
                entry.outcome = outcome
                self.open.pop(entry, None)
                if state == JOB_PENDING or (state == JOB_CREATED and not entry.background):
                    self._fail(f"{entry} is under way nowhere, and has not ended: {request!r}")
        elif outcome != entry.outcome:
            self._fail(f"{entry} had ended with {entry.outcome}, and is now {outcome}")
        if key is not None and not entry.background:
            self._check_updates(entry, key, state)

    def _read_updates(self, entry: Entry, request: GearmanJobRequest) -> None:
        if not request.has_updates:
            return
        while (update := next_update(request)) is not None:
            if isinstance(update, JobProgress):
                entry.updates.append(("JobProgress", (update.numerator, update.denominator)))
            else:
                assert isinstance(update, (JobData, JobWarning))
                entry.updates.append((type(update).__name__, update.data))

    def _ended(self, entry: Entry, request: GearmanJobRequest, key: tuple[str, str] | None) -> None:
        state, error = request.state, request.error
        self.counts[f"requests {state.lower()}"] += 1
        if state == JOB_COMPLETE:
            if entry.background or key is None or error is not None:
                self._fail(f"{entry} has a result, and nobody waited for one: {request!r}")
            if not self._was_given(key, "complete", request.result):
                self._fail(
                    f"{entry} has the result {request.result!r}, which no execution of it gave"
                )
        elif state == JOB_FAILED:
            if isinstance(error, ServerError):
                self.counts["requests refused"] += 1
            elif key is None or error is not None:
                self._fail(f"{entry} has failed: {request!r}")
            elif not self._may_have_failed(entry, key, request.exception):
                self._fail(f"{entry} has failed, which no execution of it did: {request!r}")
        elif not isinstance(error, _LOST):
            self._fail(f"{entry} is lost, and says {error!r}")
        elif entry.node.last_loss < entry.at:
            self._fail(f"{entry} is lost, but no connection was: {error}")
        elif isinstance(error, ServerUnavailable) and entry.node.last_refusal < entry.at:
            self._fail(f"{entry} is lost, and all servers were reached: {error}")

    def _was_given(self, key: tuple[str, str], kind: str, value: Any) -> bool:
        return any(each.end == kind and each.value == value for each in self.executions[key])

    def _may_have_failed(self, entry: Entry, key: tuple[str, str], exception: Any) -> bool:
        if exception is not None:
            return self._was_given(key, "exception", exception)
        ends = {each.end for each in self.executions[key]}
        return bool(ends & {"fail", "exception"}) or self._may_be_given_up(
            entry.node.servers[key[0]]
        )

    def _may_be_given_up(self, server: Place) -> bool:
        """Whether a server may give up a job, as its worker was lost, or had it for too long."""
        return server.may_give_up and (
            self.is_limited or not self.is_calm() or self.counts["workers' losses"] > 0
        )

    def _check_updates(self, entry: Entry, key: tuple[str, str], state: str) -> None:
        """Of each execution, in order, the first so many; where it has ended, all."""
        got = entry.updates
        # A request may join a job that others have submitted before. And a worker may be given a
        # job again that it has had for too long, and do it twice at once.
        if entry.unique is not None or any(each.limit for each in self.executions[key]):
            given = Counter(update for each in self.executions[key] for update in each.sent)
            if not Counter(got) <= given:
                self._fail(f"{entry} has the updates {got}, some of which no execution of it gave")
            return
        places = {0}
        for each in self.executions[key]:
            sent = each.sent
            ends = state == JOB_COMPLETE and each.end == "complete"
            longest = len(sent)
            places = {
                at + count
                for at in places
                for count in (
                    (longest,) if ends and each is self.executions[key][-1] else range(longest + 1)
                )
                if got[at : at + count] == sent[:count]
            }
        if len(got) not in places:
            sent_all = [each.sent for each in self.executions[key]]
            self._fail(f"{entry} has the updates {got}; what was sent is {sent_all}")

    def seen(self, server: Place, function: bytes, unique: bytes, data: bytes) -> None:
        """A server has taken a foreground submit.

        One that is sent again, since its connection was lost, has another unique: the server may
        still have the job that nobody waits for any more, and would join it to that.
        """
        if self._submitted.get((function.decode(), data)) == {None}:
            if unique in self._uniques:
                self._fail(f"{server.name} was sent {unique!r} again, which was lost")
            self._uniques.add(unique)

    # What workers do.

    def started(
        self,
        worker: Place,
        server: Place,
        is_lost: Callable[[], bool],
        job: tuple[str, str, str | None, bytes],
        now: float,
        limit: float | None,
    ) -> Execution:
        """A worker was given a job.

        Args:
            worker: The worker.
            server: Which server it came from.
            is_lost: Whether the server knows that the connection has ended over which it came.
            job: Its handle, its function, its unique if the server told that, and its data.
            now: The time.
            limit: How many seconds it may take, or None.
        """
        handle, function, unique, data = job
        uniques = self._submitted.get((function, data))
        if uniques is None:
            self._fail(f"{worker.name} was given a job that nobody has submitted: {job}")
        if unique is not None and unique not in uniques and None not in uniques:
            self._fail(f"{worker.name} was given a job of another unique: {job}")
        key = server.name, handle
        for other in self.executions[key]:
            # What came over a connection that the server has lost was given before that.
            if not is_lost() and not other.may_be_again(now):
                self._fail(
                    f"{worker.name} was given {handle}, which {other.worker.name} has had since "
                    f"{other.at:.6f} and has not lost"
                )
            self.counts["executions again"] += 1
            if self.is_calm() and not self.is_limited:
                self._fail(f"{worker.name} was given {handle} again, and nothing had happened")
        execution = Execution(key, worker, is_lost, now, limit)
        self.executions[key].append(execution)
        self.counts["executions"] += 1
        return execution

    def ended(self, server: Place, handle: bytes) -> None:
        """A server has taken the end of a job from a worker."""
        self.arrived.add((server.name, handle.decode()))

    def not_arrived(self, executions: list[Execution]) -> list[Execution]:
        """Return those of `executions` whose end has not arrived at the server."""
        return [each for each in executions if each.key not in self.arrived]

    def check_arrived(self, worker: Place, executions: list[Execution]) -> None:
        """A worker closes a healthy connection, over which it has sent the ends of these jobs."""
        left = [each.key[1] for each in self.not_arrived(executions)]
        if left:
            self._fail(
                f"{worker.name} closes a connection before its last result has arrived: {left}"
            )

    # Connections.

    def given_up(self, node: Place, peer: str, end: Buffers) -> None:
        """The engine of `node` closes a healthy connection, for no reason of its application's."""
        self._fail(
            f"{node.name} gives up {peer} although it is healthy: it was last heard at "
            f"{end.heard_at:.6f}, it last acknowledged something at {end.moved_at:.6f}, and "
            f"{end.unacknowledged} bytes are on their way to it"
        )

    # At the end.

    def check(self, servers: Mapping[str, Place]) -> None:
        """Everything has come to its end: look for what is lost, and for what has changed."""
        for entry in self.entries:
            request = entry.request
            if entry.is_held and request is not None:
                self.told(entry)
                if entry.outcome is None:
                    self._fail(f"{entry} has not ended: {request!r}")
            if entry.background and entry.key is not None:
                self._check_done(entry, entry.key, servers)

    def _check_done(self, entry: Entry, key: tuple[str, str], servers: Mapping[str, Place]) -> None:
        executions = self.executions[key]
        if any(each.end is not None for each in executions):
            self.counts["background jobs done"] += 1
        elif any(when >= entry.at for when in servers[key[0]].deaths):
            self.counts["background jobs lost with their server"] += 1
        elif self._may_be_given_up(servers[key[0]]):
            self.counts["background jobs given up"] += 1
        else:
            self._fail(f"{entry}, a background job, was acknowledged as {key}, and is lost")
