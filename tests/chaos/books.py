"""Records of all submits, runs and outcomes, and a checker of their consistency.

The callers and the callbacks keep the records, independently of the library. The checker is that of
Jepsen's total-queue, with jobs instead of elements:

* **lost**: acknowledged background jobs that did not run to their end, although no event has
  happened after which docs/explanation/reliability.md allows a loss. None is allowed. A loss is
  permitted if a server ended that keeps its queue in memory, and on the server with changed bytes.
* **unexpected**: runs and results of jobs that were never submitted, results of other jobs, and
  outcomes that the worker did not send. None is allowed. On the server with changed bytes,
  recognised changes are counted separately. Intact but wrong data is unexpected there too, unless
  the size of a packet of its connection was changed (`of_another`).
* **duplicates**: additional runs of a job that was submitted once. They are allowed and counted.
* **late**: calls that returned after their timeout. None is allowed.
* **hung**: requests that did not end although nothing was left to wait for. None is allowed.
* **given up**: lost connections to the slow server. This server is only slow, so none is allowed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gearman_proto import constants

from .payloads import Job, unseal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

# Maximum age of a client's connection in seconds.
_CONNECTION = 20.0
# Number of problems to report in full.
_SHOWN = 10


@dataclass
class Entry:
    """The record of a submit, created before the call."""

    job: Job
    background: bool
    #: The surface and the number of the client.
    client: str
    #: When the call began.
    begun: float
    #: The server that has acknowledged the job.
    server: str | None = None
    #: True if a server has acknowledged the job.
    acknowledged: bool = False


@dataclass
class Run:
    """A run of a job by a worker."""

    number: int
    worker: str
    server: str
    when: float
    #: True if the callback has ended without being cancelled.
    finished: bool = False


@dataclass
class Books:
    """All records. Any thread can call any method."""

    #: The server with changed bytes.
    dirty: str
    entries: list[Entry] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    #: The times at which each server was killed or died.
    kills: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    #: Violations, as (kind, description).
    problems: list[tuple[str, str]] = field(default_factory=list)
    #: Intact results and data of other jobs, from the server with changed bytes: the beginning and
    #: the end of the request's time in flight, and a description.
    of_another: list[tuple[float, float, str]] = field(default_factory=list)
    #: Counts of permitted events.
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submitted(self, job: Job, client: str, *, background: bool) -> Entry:
        """Record a submit that is about to start."""
        entry = Entry(job, background, client, time.monotonic())
        with self._lock:
            self.entries.append(entry)
        return entry

    @contextlib.contextmanager
    def running(self, job: Job | None, worker: str, server: str) -> Iterator[None]:
        """Record a worker's run of a job inside the context. None means a job with changed data."""
        if job is None:
            self.changed(server, f"{worker} was given data that nobody has sent")
            yield
            return
        run = Run(job.number, worker, server, time.monotonic())
        with self._lock:
            self.runs.append(run)
        try:
            yield
        except Exception:
            run.finished = True
            raise
        run.finished = True

    def killed(self, server: str) -> None:
        """Record the end of a server, which has lost its queue."""
        with self._lock:
            self.kills[server].append(time.monotonic())

    def count(self, what: str, number: int = 1) -> None:
        """Count a permitted event."""
        with self._lock:
            self.counts[what] += number

    def problem(self, kind: str, text: str) -> None:
        """Record a violation, once if several requests report it."""
        with self._lock:
            if (kind, text) not in self.problems:
                self.problems.append((kind, text))

    def changed(self, server: str | None, text: str) -> None:
        """Record data that was recognised as changed."""
        if server == self.dirty:
            self.count("recognised as changed")
        else:
            self.problem("unexpected", f"{text} (from {server})")

    def _wrong(self, entry: Entry, server: str | None, text: str) -> None:
        """Record intact data that belongs to another job."""
        if server == self.dirty:
            with self._lock:
                self.of_another.append((entry.begun, time.monotonic(), text))
        else:
            self.problem("unexpected", text)

    # Outcomes for clients.

    def record_outcome(
        self, entry: Entry, request: Any, server: str | None, *, returned: bool
    ) -> None:
        """Record the state of a request at the end of a call.

        Args:
            entry: The record of the submit.
            request: The request.
            server: The request's current or last server.
            returned: True if the call returned, without being cancelled and without an exception.
        """
        state = request.state
        who = f"{entry.client}: {request!r} of {entry.job}"
        if state in (constants.JOB_CREATED, constants.JOB_COMPLETE):
            entry.acknowledged, entry.server = True, server
        self._parts(entry, request, server, who)
        if state == constants.JOB_COMPLETE:
            self._complete(entry, request, server, who)
        elif state == constants.JOB_FAILED:
            self._failed(entry, request, server, who)
        elif state == constants.JOB_UNKNOWN:
            self.count("requests lost with their connection")
            if request.timed_out:
                self.problem("unexpected", f"{who} is lost, and says that it has timed out")
            if request.error is None and returned:
                self.problem("unexpected", f"{who} is lost, and does not say why")
        elif returned and not request.complete and not request.timed_out:
            self.problem("unexpected", f"{who} was returned without an end, before its time")

    def _parts(self, entry: Entry, request: Any, server: str | None, who: str) -> None:
        while request.data_updates:
            text = unseal(request.data_updates.popleft())
            if text is None:
                self.changed(server, f"{who} got data that nobody has sent")
            elif not text.startswith(f"part {entry.job.number} "):
                self._wrong(entry, server, f"{who} got {text[:100]!r}")
            else:
                self.count("data before the end")

    def _complete(self, entry: Entry, request: Any, server: str | None, who: str) -> None:
        result = unseal(request.result or b"")
        if result is None:
            self.changed(server, f"{who} got a result that nobody has sent")
        elif entry.background or entry.job.kind == "fail" or result != unseal(entry.job.result):
            self._wrong(entry, server, f"{who} got {result[:100]!r}")
        else:
            self.count("right results")
            if not any(True for _ in self._runs_of(entry.job.number, server)):
                self.problem("unexpected", f"{who} got a result, and did not run at {server}")

    def _failed(self, entry: Entry, request: Any, server: str | None, who: str) -> None:
        if entry.job.kind == "fail":
            self.count("failures of workers")
        elif server == self.dirty:
            self.count("recognised as changed")
        else:
            self.problem("unexpected", f"{who} has failed, error {request.error!r}")

    def _runs_of(self, number: int, server: str | None) -> list[Run]:
        with self._lock:
            return [run for run in self.runs if run.number == number and run.server == server]

    # The final check.

    def check(self, sizes_changed: Iterable[float] = ()) -> None:
        """Check for lost jobs, unexpected events, and duplicates.

        Args:
            sizes_changed: The times at which the size of a packet from or to a client was changed.
                The receiver then treats the following packets as part of its payload. If that ends
                at the beginning of another packet, and the payload contained a JOB_CREATED, each
                later submit receives the JOB_CREATED of its successor. No client can detect that.
        """
        times = list(sizes_changed)
        for since, until, text in self.of_another:
            if any(since - _CONNECTION <= when <= until for when in times):
                self.count("results of other jobs behind a changed size")
            else:
                self.problem("unexpected", text)
        submits = Counter(entry.job.number for entry in self.entries)
        runs = Counter(run.number for run in self.runs)
        done = {(run.number, run.server) for run in self.runs if run.finished}
        for run in self.runs:
            if run.number not in submits:
                self.problem("unexpected", f"{run} is of no job")
        for entry in self.entries:
            must_run = entry.background and entry.acknowledged
            if must_run and (entry.job.number, entry.server) not in done:
                self._lost(entry)
        extra = [runs[number] - 1 for number in submits if runs[number] > 1 == submits[number]]
        self.count("jobs that ran more than once", len(extra))
        self.count("runs beyond the first", sum(extra))

    def _lost(self, entry: Entry) -> None:
        server = entry.server or ""
        if server == self.dirty:
            self.count("lost where bytes are changed")
        elif any(when >= entry.begun for when in self.kills[server]):
            self.count("lost with their server")
        else:
            self.problem("lost", f"{entry} was acknowledged, and never ran to its end")

    def report(self) -> str:
        """Return the statistics and the violations."""
        background = sum(entry.background for entry in self.entries)
        kinds = Counter(kind for kind, _ in self.problems)
        lines = [
            f"{len(self.entries):,} submits, {background:,} in background; {len(self.runs):,} runs",
            ", ".join(f"{kinds[kind]} {kind}" for kind in _kinds(kinds)),
            ", ".join(f"{number:,} {what}" for what, number in sorted(self.counts.items())),
        ]
        for kind in kinds:
            texts = [text for other, text in self.problems if other == kind]
            lines += [f"{kind.upper()}: {text}" for text in texts[:_SHOWN]]
            if len(texts) > _SHOWN:
                lines.append(f"{kind.upper()}: … and {len(texts) - _SHOWN} more")
        return "\n".join(lines)


def _kinds(found: Collection[str]) -> list[str]:
    return list(dict.fromkeys(["unexpected", "late", "lost", "hung", "leaks", "given up", *found]))
