"""The books of a simulated network: a verified record of all submits, executions and outcomes.

The nodes and the watched job servers report to the books. The books know nothing of how engines
work. They check these invariants:

* **Nothing out of nothing.** Every executed job was submitted. Every result and every update was
  sent by an execution of that same job. Every request has the handle of its own job.
* **One outcome.** A finished request never changes. A job is executed again only if its worker's
  connection was lost or its time limit has passed.
* **Only cancelled jobs are cancelled.** A request fails without a failed execution only if its job
  was cancelled. A client cancels only the jobs of requests that its application has cancelled.
* **Nothing is lost.** If a server has acknowledged a background job and has not died since, the job
  is executed to its end. A foreground job either ends, or its request reports how it was lost. A
  request reports a loss only if a connection was lost.
* **On time.** A call with a timeout returns by its deadline, to the microsecond, and never reports
  a timeout earlier.
  A `grab` takes up to a second longer, as its server might still answer with a job.
* **Every wait ends** once faults have stopped.
* **Healthy connections stay.** A connection is healthy if no fault has hit it, it carries at least
  20 kB a second, and both ends read. No engine gives up such a connection. A stopping worker closes
  it only after its results have reached the server.

The key of a job is its server and its handle. A restarted server might reuse the handles of its
previous life. An execution from either life is accepted then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.request import next_update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobUpdate

#: Tolerance of deadlines in seconds, as sums of floats are not exact.
EPSILON: Final = 1e-6
_LOST: Final = (ConnectionError, ServerUnavailable, ExceededConnectionAttempts)


class Place:
    """The part of a node that the books need.

    Attributes:
        name: The name in the trace and in faults.
        servers: The nodes that it can connect to, by name.
        is_up: True while the process runs; False after a crash or an exit.
        life: The number of restarts.
        last_loss: Time at which a connection last ended.
        last_refusal: Time of the last failed attempt to connect.
        deaths: The times at which the process has died. Each time, it lost its state.
        may_give_up: True if the node, a server, gives up a job after losing its workers too often.
    """

    def __init__(self, name: str, servers: Mapping[str, Place]) -> None:
        self.name: str = name
        self.servers: Mapping[str, Place] = servers
        self.is_up: bool = True
        self.life: int = 0
        self.last_loss: float = -1.0
        self.last_refusal: float = -1.0
        self.deaths: list[float] = []
        self.may_give_up: bool = True


class Entry:
    """A submit.

    Attributes:
        request: The request; None after the application has released it.
        updates: The updates received for its job.
        outcome: The outcome; None until the request has ended.
        is_cancelled: True once the application has cancelled it.
    """

    def __init__(self, number: int, node: Place, request: GearmanJobRequest, now: float) -> None:
        self.number = number
        self.node = node
        self.life: int = node.life
        self.request: GearmanJobRequest | None = request
        self.at = now
        self.function: str = request.task
        self.payload: Any = request._gm_payload
        #: The unique that the application chose, or None.
        self.unique: str | None = request.unique
        self.background: bool = request.background
        self.updates: list[JobUpdate] = []
        self.outcome: tuple[Any, ...] | None = None
        self.is_cancelled: bool = False
        #: The server and the handle; None until the submit was acknowledged.
        self.key: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"request {self.number} of {self.node.name}"

    @property
    def is_held(self) -> bool:
        """True if the submitting process still runs and still holds the request."""
        return self.request is not None and self.node.is_up and self.node.life == self.life


@dataclass(eq=False)
class Execution:
    """A job that was assigned to a worker.

    Attributes:
        key: The server and the handle.
        data: The data of the job.
        worker: The worker.
        is_lost: Returns whether the server knows that the connection has ended.
        at: Time of the assignment.
        limit: The job's time limit in seconds, or None.
        sent: The updates that the worker has sent.
        end: The kind of the final packet, once sent: complete, fail or exception.
        value: The data of the final packet.
    """

    key: tuple[str, str]
    data: bytes
    worker: Place
    is_lost: Callable[[], bool]
    at: float
    limit: float | None
    sent: list[JobUpdate] = field(default_factory=list)
    end: str | None = None
    value: bytes | None = None

    def may_be_again(self, now: float) -> bool:
        """Return whether the server might have assigned the job to another worker by now."""
        return self.is_lost() or (self.limit is not None and now >= self.at)


class Books:
    """The record of a run.

    Args:
        fail: Called with a description of each violation; raises.
        is_calm: Returns whether no fault has happened so far.
    """

    def __init__(self, fail: Callable[[str], NoReturn], is_calm: Callable[[], bool]) -> None:
        self.entries: list[Entry] = []
        #: The pending entries, and perhaps some that have ended.
        self.open: dict[Entry, None] = {}
        self.executions: dict[tuple[str, str], list[Execution]] = defaultdict(list)
        #: True if any worker has a time limit per job.
        self.is_limited = False
        #: Statistics: the number of occurrences of each legal event.
        self.counts: Counter[str] = Counter()
        #: The jobs whose final packet has reached the server, by server and handle.
        self.arrived: set[tuple[str, str]] = set()
        #: The cancelled jobs, by server and handle.
        self.cancelled: set[tuple[str, str]] = set()
        self._submitted: dict[tuple[str, Any], set[str | None]] = defaultdict(set)
        self.is_calm = is_calm
        # The uniques that client engines have generated.
        self._uniques: set[bytes] = set()
        self._fail = fail

    # Clients.

    def submitted(self, node: Place, request: GearmanJobRequest, now: float) -> Entry:
        """Record a request that is about to be submitted. It has passed `prepare`."""
        entry = Entry(len(self.entries), node, request, now)
        self.entries.append(entry)
        self.open[entry] = None
        self._submitted[entry.function, entry.payload].add(entry.unique)
        return entry

    def told(self, entry: Entry) -> None:
        """Compare the request with the record, after a call has returned or during a check."""
        request = entry.request
        if request is None:
            return
        while (update := next_update(request)) is not None:
            entry.updates.append(update)
        state = request.state
        key = None
        if request.handle is not None and request.connection is not None:
            key = entry.key = request.connection.host, request.handle
        if entry.outcome is None and state in (JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN):
            self._ended(entry, request, key)
        outcome = (state, request.handle, request.result, request.exception, request.error)
        if entry.outcome is None:
            if request._gm_link is None:
                entry.outcome = outcome
                self.open.pop(entry, None)
                if state == JOB_PENDING or (state == JOB_CREATED and not entry.background):
                    self._fail(f"{entry} is under way nowhere, and has not ended: {request!r}")
        elif outcome != entry.outcome:
            is_reason = outcome[:-1] == entry.outcome[:-1] and entry.outcome[-1] is None
            if not (is_reason and self._was_cancelled(entry, key, request)):
                self._fail(f"{entry} had ended with {entry.outcome}, and is now {outcome}")
            # WORK_FAIL has arrived before the answer to the cancellation.
            entry.outcome = outcome
        if key is not None:
            self._check_handle(entry, key)
        if key is not None and not entry.background:
            self._check_updates(entry, key, state)

    def _check_handle(self, entry: Entry, key: tuple[str, str]) -> None:
        """Check that a request has the handle of its own job, or of a job with its unique."""
        for each in self.executions.get(key, ()):
            uniques = self._submitted.get((entry.function, each.data), set())
            is_joined = entry.unique is not None and entry.unique in uniques
            if each.data != entry.payload and not is_joined:
                self._fail(f"{entry} has the handle of another job, {key[1]}")

    def _ended(self, entry: Entry, request: GearmanJobRequest, key: tuple[str, str] | None) -> None:
        state, error = request.state, request.error
        self.counts[f"requests {state.lower()}"] += 1
        if state == JOB_COMPLETE:
            if entry.background or key is None or error is not None:
                self._fail(f"{entry} has a result, although no call waits for it: {request!r}")
            if not self._was_given(key, "complete", request.result):
                self._fail(
                    f"{entry} has the result {request.result!r}, which no execution of it gave"
                )
        elif state == JOB_FAILED:
            if isinstance(error, ServerError):
                self.counts["requests refused"] += 1
            elif self._was_cancelled(entry, key, request):
                self.counts["requests cancelled"] += 1
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

    def _was_cancelled(
        self, entry: Entry, key: tuple[str, str] | None, request: GearmanJobRequest
    ) -> bool:
        """Return whether a cancellation explains the failure of a request."""
        error = request.error
        if request.exception is not None or (error is not None and type(error) is not GearmanError):
            return False
        if key is None:
            return entry.is_cancelled and error is not None  # It was not sent.
        return key in self.cancelled and (
            error is None
            or any(
                each.is_cancelled and each.node is entry.node and each.key in (None, key)
                for each in self.entries
            )
        )

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
        """Return whether a server might drop a job after losing its worker or on a timeout."""
        return server.may_give_up and (
            self.is_limited or not self.is_calm() or self.counts["workers' losses"] > 0
        )

    def _check_updates(self, entry: Entry, key: tuple[str, str], state: str) -> None:
        """Check that the client received a prefix of each execution's updates, in order.

        If the job is complete, the last execution's updates must all have been received.
        """
        got = entry.updates
        # A request can join a job that another client has submitted before. A worker that exceeds
        # its time limit can be assigned the same job again and execute it twice at once.
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
        """Check a foreground submit that a server has received.

        A submit that is sent again after a lost connection has a new unique. The server might still
        have the abandoned job, and would join the new submit to it.
        """
        if self._submitted.get((function.decode(), data)) == {None}:
            if unique in self._uniques:
                self._fail(f"{server.name} was sent {unique!r} again, which was lost")
            self._uniques.add(unique)

    def cancels(self, client: str, server: Place, job: tuple[str, str, str, bytes]) -> None:
        """Record that a server has received ``cancel job`` for one of its jobs.

        Args:
            client: The name of the node that has sent it. If it has never submitted a job, such as
                an admin client, it may cancel any job.
            server: The server.
            job: Its handle, its function, its unique, and its data.
        """
        handle, function, unique, data = job
        key = server.name, handle
        mine = [each for each in self.entries if each.node.name == client]
        if mine and not any(
            each.is_cancelled
            and each.key in (None, key)
            and each.function == function
            and (each.payload == data or each.unique == unique)
            for each in mine
        ):
            self._fail(f"{client} has cancelled {handle}, which its application has not")
        self.cancelled.add(key)
        self.counts["jobs cancelled"] += 1

    # Workers.

    def started(
        self,
        worker: Place,
        server: Place,
        is_lost: Callable[[], bool],
        job: tuple[str, str, str | None, bytes],
        now: float,
        limit: float | None,
    ) -> Execution:
        """Record that a worker was assigned a job.

        Args:
            worker: The worker.
            server: The server that sent the job.
            is_lost: Returns whether the server knows that the connection has ended.
            job: Its handle, its function, its unique (None if the server did not send one), and its
                data.
            now: The time.
            limit: The job's time limit in seconds, or None.
        """
        handle, function, unique, data = job
        uniques = self._submitted.get((function, data))
        if uniques is None:
            self._fail(f"{worker.name} was given a job that was not submitted: {job}")
        if unique is not None and unique not in uniques and None not in uniques:
            self._fail(f"{worker.name} was given a job of another unique: {job}")
        key = server.name, handle
        for other in self.executions[key]:
            # A job received on a connection that the server has lost was assigned before the loss.
            if not is_lost() and not other.may_be_again(now):
                self._fail(
                    f"{worker.name} was given {handle}, which {other.worker.name} has had since "
                    f"{other.at:.6f} and has not lost"
                )
            self.counts["executions again"] += 1
            if self.is_calm() and not self.is_limited:
                self._fail(f"{worker.name} was given {handle} again, and nothing had happened")
        execution = Execution(key, data, worker, is_lost, now, limit)
        self.executions[key].append(execution)
        self.counts["executions"] += 1
        return execution

    def ended(self, server: Place, handle: bytes) -> None:
        """Record that a server has received the final packet of a job."""
        self.arrived.add((server.name, handle.decode()))

    def not_arrived(self, executions: list[Execution]) -> list[Execution]:
        """Return the executions whose final packet has not reached the server."""
        return [each for each in executions if each.key not in self.arrived]

    def check_arrived(self, worker: Place, executions: list[Execution]) -> None:
        """Check that a worker that closes a healthy connection has delivered all `executions`."""
        left = [each.key[1] for each in self.not_arrived(executions)]
        if left:
            self._fail(
                f"{worker.name} closes a connection before its last result has arrived: {left}"
            )

    # The end of the run.

    def check(self, servers: Mapping[str, Place]) -> None:
        """Check at the end of a run that nothing was lost and no outcome has changed."""
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
        elif key in self.cancelled:
            self.counts["background jobs cancelled"] += 1
        elif any(when >= entry.at for when in servers[key[0]].deaths):
            self.counts["background jobs lost with their server"] += 1
        elif self._may_be_given_up(servers[key[0]]):
            self.counts["background jobs given up"] += 1
        else:
            self._fail(f"{entry}, a background job, was acknowledged as {key}, and is lost")
