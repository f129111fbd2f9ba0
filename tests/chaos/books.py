"""The books: what was submitted, what ran, what was told to whom; and whether that can be.

They are kept outside of the library, by those who call it and by those whom it calls. The checker
is that of Jepsen's total-queue, for jobs in place of elements:

* **lost**: jobs in the background that were acknowledged and did not run to their end, although
  nothing has happened that docs/explanation/reliability.md allows to lose them. There must be none.
  What may lose them is the end of a server that keeps its queue in memory; and on the server whose
  bytes are changed, anything.
* **unexpected**: runs and results of what nobody has submitted, results of other jobs, ends that
  the worker did not send. There must be none. On the server whose bytes are changed, what is
  recognised as changed is counted apart; what is whole and wrong is unexpected there, too, unless
  the size of a packet of its connection was changed (`of_another`).
* **duplicates**: runs beyond the first of a job that was submitted once. They are allowed, and
  counted.
* **late**: calls that have returned after their time. There must be none.
* **hung**: requests that had no end although nothing was left to wait for. There must be none.
* **given up**: connections to the slow server that were lost. Nothing is wrong there except that
  bytes take their time, so there must be none.
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

# Seconds that a client's connection lasts at most.
_CONNECTION = 20.0
# Problems that are shown in full.
_SHOWN = 10


@dataclass
class Entry:
    """A submit, from before the call that makes it."""

    job: Job
    background: bool
    #: The surface and the number of the client.
    client: str
    #: When the call began.
    begun: float
    #: The server that has acknowledged it.
    server: str | None = None
    #: Whether it was acknowledged.
    acknowledged: bool = False


@dataclass
class Run:
    """A job was given to a worker."""

    number: int
    worker: str
    server: str
    when: float
    #: Whether its callback has come to its end, and was not cancelled.
    finished: bool = False


@dataclass
class Books:
    """All that is written down. Every method may be called from any thread."""

    #: The server whose bytes are changed.
    dirty: str
    entries: list[Entry] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    #: When each server was killed or died.
    kills: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    #: What must not be: its kind, and what it is.
    problems: list[tuple[str, str]] = field(default_factory=list)
    #: Whole results and data of other jobs, from the server whose bytes are changed: since when the
    #: request was under way, until when, and what it is.
    of_another: list[tuple[float, float, str]] = field(default_factory=list)
    #: What is counted and allowed.
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submitted(self, job: Job, client: str, *, background: bool) -> Entry:
        """A job is about to be submitted."""
        entry = Entry(job, background, client, time.monotonic())
        with self._lock:
            self.entries.append(entry)
        return entry

    @contextlib.contextmanager
    def running(self, job: Job | None, worker: str, server: str) -> Iterator[None]:
        """A worker was given a job, and does it inside; None is one that is not what was sent."""
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
        """A server has ended, with all that it had queued."""
        with self._lock:
            self.kills[server].append(time.monotonic())

    def count(self, what: str, number: int = 1) -> None:
        """Count what is allowed."""
        with self._lock:
            self.counts[what] += number

    def problem(self, kind: str, text: str) -> None:
        """Something is that must not be."""
        with self._lock:
            self.problems.append((kind, text))

    def problem_once(self, kind: str, text: str) -> None:
        """Note a problem that several requests report."""
        with self._lock:
            if (kind, text) not in self.problems:
                self.problems.append((kind, text))

    def changed(self, server: str | None, text: str) -> None:
        """Something is not what was sent, and was recognised as such."""
        if server == self.dirty:
            self.count("recognised as changed")
        else:
            self.problem("unexpected", f"{text} (from {server})")

    def _wrong(self, entry: Entry, server: str | None, text: str) -> None:
        """Something is whole, and of another job."""
        if server == self.dirty:
            with self._lock:
                self.of_another.append((entry.begun, time.monotonic(), text))
        else:
            self.problem("unexpected", text)

    # What a client was told.

    def told(self, entry: Entry, request: Any, server: str | None, *, returned: bool) -> None:
        """A call is over: what it says of a request of this client.

        Args:
            entry: What was submitted.
            request: The request.
            server: The server that it is at, or was at last.
            returned: Whether the call has returned, and was not cancelled, and raised nothing.
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
        if not request.has_updates:
            return
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

    # At the end.

    def check(self, sizes_changed: Iterable[float] = ()) -> None:
        """Look for what is lost, for what is unexpected, and for duplicates.

        Args:
            sizes_changed: When the size of a packet was changed, on its way from or to a client.
                The packets behind it are then taken for its payload. If that ends where another
                packet begins, and a JOB_CREATED was among them, each submit behind it is answered
                by the JOB_CREATED of a later one, which no client can find out.
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
        """The figures, and what must not be."""
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
