"""Mutants: faults put into the packages one at a time, to see whether the suite notices.

    pip install pytest-cov
    python -m pytest -n 2 --dist loadfile --cov=gearman_proto --cov=gearman_sync \\
        --cov=gearman_anyio --cov-context=test --cov-report= --cov-fail-under=0
    python tests/mutants.py --data .coverage

A mutant is a piece of text that stands once in all packages (blanks and line breaks count as one),
and what stands there instead. Each goes into a copy of the tree, never into the checkout; then the
tests that the coverage data knows to run through the changed lines are run, the quickest first, up
to `--limit` seconds. A mutant is killed by the first test that fails with it and passes without it,
and by one that hangs. Where no test is known, as in code that only other processes run, the tests
in the package's own directory are.

    python tests/mutants.py --under gearman_proto/engines \\
        --with "python -m fuzz.simulate --seconds 20 --seed 0 --as-is"

Another program may judge in place of the tests: it kills a mutant by an exit status other than 0.
What only an application can see that does what it must not (`NOT_ON_THE_WIRE`) is not for it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES: Final = ("gearman_proto", "gearman_sync", "gearman_anyio")
# The directories of tests from the quick to the slow, behind a mutant's own and the core's.
_LATER: Final = ("contract", "sync", "anyio", "cli", "peers")
# Where an adapter's own tests are; all others are the core's.
_HOMES: Final = {"gearman_sync/cli": "cli", "gearman_sync": "sync", "gearman_anyio": "anyio"}
_NOT_COPIED: Final = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"
)
# Tests of one process of pytest: few enough for its command line.
_BATCH: Final = 400
# Seconds without a test's end after which a test hangs: no test takes so long.
_HANG: Final = 45.0
# Bytes that a process may have, so that a mutant without end does not take the machine with it.
_MEMORY: Final = 6 * 1024**3
_PYTEST: Final = (sys.executable, "-m", "pytest", "-x", "-v")
# The status of a pytest that hangs.
_HANGS: Final = -1
# How much longer than some tests all the tests of directories may take.
_WHOLE_DIRECTORIES: Final = 5

# A group for each package; a mutant stays in its group when its code moves to another.
MUTANTS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "gearman_proto": (
        (
            "if held + len(self._tail) < size or self._apart is not None:",
            "if held + len(self._tail) <= size or self._apart is not None:",
        ),
        ("return held + at + 1", "return held + at"),
        ("self._scanned = held + len(self._tail)", "self._scanned = held + len(self._tail) + 1"),
        ("if plain > row.enough or body.count(", "if plain > row.enough and body.count("),
        ("and first not in _SUBMIT_ERRORS", "and first in _SUBMIT_ERRORS"),
        ("in _WORK_ERRORS and self._is_worker", "in _WORK_ERRORS"),
        ("buffer.start += HEADER_SIZE + size", "buffer.start += HEADER_SIZE"),
        ("if len(line) + len(ending) >", "if len(line) + len(ending) >="),
        ('line += b"\\r"', 'line += b""'),
        ("self._room -= len(line) + _LINE_OVERHEAD", "self._room -= len(line)"),
        ("begun.clear()", "pass"),
        ("if len(wire) > limit:", "if len(wire) >= limit:"),
        ("float(max(poll_timeout, 0))", "float(poll_timeout)"),
        ("if not 0 < port < 65536:", "if not 0 < port < 65537:"),
        ('if spec.count(":") == 1:', 'if spec.count(":") >= 1:'),
        (
            "if self.background and self.state == JOB_CREATED:",
            "if self.background or self.state == JOB_CREATED:",
        ),
        (
            "if not self.background and self.unique == self.generated_unique:",
            "if self.unique == self.generated_unique:",
        ),
        ("self.data.unread + self.warnings.unread <=", "self.data.unread <="),
        ("self._taken += entry.size", "pass"),
        ("entry.is_raw = False", "pass"),
        ("math.ceil(run_at)", "math.floor(run_at)"),
        ("now + delay * rng.uniform(0.5, 1.0)", "now"),
        ("return self.cool_until if self.failures > 1 else 0.0", "return 0.0"),
        ("at=server.retry_at() if again else 0.0", "at=server.retry_at()"),
        ("now - self.opened_at >= _LASTING", "True"),
        ("if event.function in link.registered:", "if True:"),
        (
            "if best is None or server.cool_until < best.cool_until:",
            "if best is None or server.cool_until > best.cool_until:",
        ),
        ("if deadline is None or deadline > now:", "if deadline is None or deadline >= now:"),
        ("if len(self._heap) > _MIN_COMPACT:", "if False:"),
        ("if not self._count % _MIN_COMPACT:", "if False:"),
        ("replaced[2] = replaced[3] = None", "pass"),
        ("entry[2] = entry[3] = None", "pass"),
        (
            "raise type(self.error)(str(self.error), self.requests)",
            "raise type(self.error)(str(self.error), [])",
        ),
        ("(not self.open and self.error is None)", "not self.open"),
        ("while last < _WINDOW and size < _CHUNK_SIZE", "while size < _CHUNK_SIZE"),
        ("if found != head or 0 in handle:", "if found != head:"),
        ("or request.priority is not priority", "or False"),
        (
            "wait.requests_over(alike) waits, alike = request.waits, []",
            "waits, alike = request.waits, []",
        ),
        ("if done: self.job_done(job, now)", "if True: self.job_done(job, now)"),
        (
            "if was_up and len(request.tried) >= len(self.pool.servers):",
            "if was_up and len(request.tried) > len(self.pool.servers):",
        ),
        (
            "if request.connection_attempts >= request.max_connection_attempts:",
            "if request.connection_attempts > request.max_connection_attempts:",
        ),
        ("if not self.job.requests and self.job.key is None:", "if not self.job.requests:"),
        ("self.shared.pop(job.key, None)", "pass"),
        ("request.connection_attempts += self.was_sent", "pass"),
        ("if job.since + seconds <= now", "if job.since < now"),
        ("heartbeat.heard, heartbeat.asked = now, None", "heartbeat.heard = now"),
        ("if heartbeat.asked is not None: link.delivery.taken(now)", "pass"),
        ("or self._late == self.heard", ""),
        ("query.open = max(len(servers), 1)", "query.open = 1"),
        ("if now - link.since < _AT_ONCE else 0", "if now - link.since > _AT_ONCE else 0"),
        ("self._max_jobs - len(self._jobs) - self._grabs", "self._max_jobs - len(self._jobs)"),
        ("share = -(-free // (len(self._turns) + 1))", "share = free"),
        ("min(2 * link.next_grabs, MOST_GRABS)", "2 * link.next_grabs"),
        ("link.next_grabs = 1\n", "pass\n"),
        ("self._wait_on(link, now, _ASKING[link.phase])", "pass"),
        ("held = any(job.wire_task == function for job in link.jobs)", "held = False"),
        ("self._timers.set(server, server.cool_until, self._connect_to)", "pass"),
        ("self._untried.discard(server)", "pass"),
        ("if not job.wanted and job.state is not RUNNING:", "if not job.wanted:"),
        ("job.losses > self._job_retries", "job.losses >= self._job_retries"),
        ("self.memory -= job.size", "pass"),
        ("if limit and function.total >= limit:", "if limit and function.total > limit:"),
        ("job.listeners[link] += 1", "pass"),
        ("counts[NORMAL] += function.delayed", "pass"),
        ('return (data,) if data else b""', "return data"),
        ("if 0xDC80 <= number <= 0xDCFF:", "if False:"),
        ("return shown(super().__str__())", "return super().__str__()"),
        ("shown(notices.popleft())", "notices.popleft()"),
        ("with checking(): server = self.pool.find(server)", "pass"),
        ("tuple(requests)", "requests"),
        ("link.server not in self.pool.servers", "False"),
        ("follow_wrapped=False", "follow_wrapped=True"),
        ("len(port) >= _PORT_DIGITS and", ""),
        # From here on, what the simulated network was tried on as well.
        (
            "self._timers.set(wait, wait.deadline, self._expire)",
            "self._timers.set(wait, wait.deadline + 0.00001, self._expire)",
        ),
        ("self._close(link, ConnectionError(dead), now)", "pass"),
        ("outbox, link.outbox = link.outbox, deque()", "outbox, link.outbox = deque(), deque()"),
        ("request.forget_tried() request.forget_unique()", "request.forget_tried()"),
        ("request.leave(JOB_COMPLETE)", "request.leave(JOB_FAILED)"),
        ("if isinstance(event, StatusRes) and not known:", "if isinstance(event, StatusRes):"),
        ("self.unaccepted -= len(requests)", "pass"),
        ("self.shared[submit.key] = job", "pass"),
        ("self._jobs.discard(job) job.over = True", "job.over = True"),
        ("link.confirmed = link.grabbed_after", "link.confirmed = link.results"),
        ('self._send(link, EchoReq(b""))', "pass"),
        ("del registered[function] self._send(link, CantDo(function))", "del registered[function]"),
        ("self._left -= 1 self._wake(link)", "self._left -= 1"),
        ("if link.asleep and link.ready:", "if False:"),
        (
            "self._timers.set(job, now + seconds, self._take_away)",
            "self._timers.set(job, now + seconds + 0.00001, self._take_away)",
        ),
        ("job.limited = False self._timers.cancel(job)", "job.limited = False"),
        ("self.queue.memory -= link.writing", "pass"),
        ("if job.worker is link: self._take_away(job, now)", "pass"),
        ("look_at = now + min(seconds, _LOOK_AT_CLOCK)", "look_at = now + seconds"),
        ("former[job.handle] = None if len(former)", "if len(former)"),
        ("if background: job.background = True", "if background: pass"),
        ("rank = job.rank = job.priority * _RANKS + order", "rank = job.rank = order"),
        ("if self.next_job is None or rank < self.next_job.rank:", "if self.next_job is None:"),
        ("job.attached -= job.listeners.pop(link)", "job.listeners.pop(link)"),
        ("self._namesakes.setdefault(key, {})[name] = job", "pass"),
        ("job.function.delayed -= 1 job.epoch = 0", "job.epoch = 0"),
        (
            "link.ready[function] = None return [link for link in",
            "pass\n        return [link for link in",
        ),
        (
            "self._timers.set(link, link.connect_by, self._on_connect_timeout)",
            "pass",
        ),
        ("self._under_way -= 1 self._ask_next()", "self._ask_next()"),
        ("self._timers.set(question, question.deadline, self._expire)", "pass"),
        ("link.asked = link.sent = None link.answered += 1", "link.answered += 1"),
        ("self._grabs -= link.phase is GRABBING", "pass"),
        ("link.unsent_size -= len(data) delivery.handed", "delivery.handed"),
        ("self._timers.set(_POLL,", "self._timers.set(_OUTAGE,"),
        (
            "for request in item.requests: job = jobs.attach",
            "for request in item.requests[:1]: job = jobs.attach",
        ),
        ("if not item.waits: item.strand()", "if item.waits: item.strand()"),
        ("self._timers.set(link, now + seconds, self._too_long[link.phase])", "pass"),
        (
            "self._grabs += link.grabs * ((phase is GRABBING) - (link.phase is GRABBING))",
            "self._grabs += link.grabs * (phase is GRABBING)",
        ),
        ("link.jobs[job] = None self._jobs.add(job)", "self._jobs.add(job)"),
        ("elif link.jobs: self._enter(link, RESTING, now)", "elif False: pass"),
        ("self._send(link, PreSleep())", "pass"),
        ("self._send(link, NoJob) return", "return"),
        ("self._queue(link, link.connection.send_args(JobCreated, (job.handle,)))", "pass"),
        (
            "self._tell(job, kind, args[:1] if kind is WorkFail else args) self._leave_worker(job)",
            "self._leave_worker(job)",
        ),
        ("queue.listen(job, link) link.listening[job] = None", "queue.listen(job, link)"),
        (
            "job, _ = link.listening.popitem() self.queue.stop_listening(job, link)",
            "link.listening.popitem()",
        ),
        ("del self.by_key[job.key]", "pass"),
        ("function.running += 1", "pass"),
        ("jobs.accept(handle, item, now)", "pass"),
        ("self._waits.discard(wait) if isinstance(wait, Stream):", "if isinstance(wait, Stream):"),
        ("self.open -= 1 if not self.open: self.check()", "if not self.open: self.check()"),
        (
            "request.timed_out = True super().expire(now) def raise_error",
            "pass\n        super().expire(now)\n\n    def raise_error",
        ),
    ),
    "gearman_sync": (
        ("self._race.won(self._winner)", "pass"),
        ("self.deadline = self._race.next_start", "self.deadline = None"),
        ("memoryview(data)[sent:] if sent < len(data) else _NOTHING", "_NOTHING"),
        ("isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0", "False"),
        ("if self.followers and self.leader is None:", "if False:"),
        ("min(max(deadline - _clock(), 0.0), LONGEST_SLEEP)", "LONGEST_SLEEP"),
        ("min(max(deadline - _clock(), 0.0), LONGEST_SLEEP)", "max(deadline - _clock(), 0.0)"),
        ("if error.errno in _NO_RESOURCES:", "if error.errno not in _NO_RESOURCES:"),
        ("if self._listen_at <= now:", "if False:"),
        ("if not was_closed:", "if was_closed:"),
        ("for driver in list(_drivers):", "for driver in ():"),
        (
            "(changed or self._turns.is_done or self._next_deadline() < until)",
            "(changed or self._turns.is_done)",
        ),
        (
            "if was_blocked and link not in self._writable:",
            "if was_blocked:",
        ),
        (
            "if self.is_mine(): return",
            "if False: return",
        ),
        (
            "return self._leading is not None and self._leading.ready",
            "return False",
        ),
        ("if not self.is_over:", "if True:"),
        ("elif done: stream.raise_error() return", "elif done: return"),
        ("if time.monotonic() >= deadline: return False", "if False: return False"),
        ("address if address.uses_tls else replaced(", "replaced("),
        (
            "env={**os.environ, **environment}, start_new_session=True",
            "env={**os.environ, **environment}, start_new_session=False",
        ),
        ("while self._errors_size - len(self.errors[0]) >= MAX_ERRORS:", "while False:"),
        (
            "if request.complete and request.state != JOB_FAILED:",
            "if request.complete:",
        ),
        ('self._bars.write(b"\\n")', "pass"),
    ),
    "gearman_anyio": (
        ("while self._under_way:", "while False:"),
        ("with self._lock: self._is_over = True", "with self._lock: pass"),
        ("function = function.func", "break"),
        ("deadline is not None and deadline < alarm.deadline:", "False:"),
        ("wire.scope.cancel()", "pass"),
        ("self._listening.cancel()", "pass"),
        ("self._timers.set(link, now + _LAST_WORDS, self._on_last_words)", "pass"),
        (
            "is_cancellation and anyio.current_effective_deadline() != -math.inf:",
            "is_cancellation:",
        ),
        ("self._event is None or self._event.is_set():", "self._event is None:"),
        ("self._driver.release_soon(self._call.wait)", "pass"),
        ("_wrap(stream, context, address.host)", "_wrap(stream, context, '')"),
        ("if self._others and turn < _TURNS_IN_PROCESS:", "if False:"),
        ("elif not self._sockets or not self._poll.poll(0):", "else:"),
        ("self._poll.unregister(number)", "pass"),
        ("async with self._sending:", "if True:"),
        (
            "return error if str(error) else ConnectionError",
            "return error if True else ConnectionError",
        ),
        ("self._group.cancel_scope.cancel()", "pass"),
        ("elif not isinstance(error, anyio.get_cancelled_exc_class()):", "else:"),
        ("anyio.CapacityLimiter(self._max_jobs)", "anyio.CapacityLimiter(1)"),
        (
            "if errors: raise errors[0] call.wait.raise_error()",
            "call.wait.raise_error()",
        ),
        ("stream.extra(SocketAttribute.raw_socket).fileno()", "-1"),
        (
            "if self._driver.is_running or self._driver.engine.closed:",
            "if self._driver.is_running:",
        ),
        ("if self.wait.ready:", "if False:"),
        (
            "if self._tasks is not None and threading.get_ident() != self._thread:",
            "if False:",
        ),
    ),
}


# What only an application sees that passes a wrong argument, or changes what it has passed.
NOT_ON_THE_WIRE: Final = frozenset(
    {
        "raise type(self.error)(str(self.error), self.requests)",
        "with checking(): server = self.pool.find(server)",
        "tuple(requests)",
        "link.server not in self.pool.servers",
        "or request.priority is not priority",
        # What other servers and clients do than those of this library.
        "if event.function in link.registered:",
        "job.listeners[link] += 1",
        "self._under_way -= 1 self._ask_next()",
        # How often something is asked that changes nothing.
        "if job.since + seconds <= now",
        "if now - link.since < _AT_ONCE else 0",
    }
)


@dataclass(frozen=True)
class Mutant:
    """A fault, and where it is."""

    number: int
    package: str
    path: Path  # in the tree
    lines: range  # those that change, from 1 on
    anchor: str
    text: str  # the module with the fault


def find_mutants(root: Path) -> list[Mutant]:
    """The table's mutants, in the tree; ValueError for one that does not stand there once."""
    sources = {
        path.relative_to(root): path.read_text()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    mutants: list[Mutant] = []
    for package, entries in MUTANTS.items():
        for anchor, replacement in entries:
            pattern = re.compile(r"\s+".join(map(re.escape, anchor.split())))
            found = [
                (path, match) for path, text in sources.items() for match in pattern.finditer(text)
            ]
            if len(found) != 1:
                raise ValueError(f"{anchor!r} stands {len(found)} times in the packages, not once")
            [(path, match)] = found
            text = sources[path]
            first, last = (text.count("\n", 0, at) + 1 for at in match.span())
            changed = text[: match.start()] + replacement + text[match.end() :]
            lines = range(first, last + 1)
            mutants.append(Mutant(len(mutants) + 1, package, path, lines, anchor, changed))
    return mutants


def find_tests(mutant: Mutant, root: Path, data: coverage.CoverageData) -> list[str]:
    """The tests that run through the lines of a mutant; else the directories of its package's."""
    tests: set[str] = set()
    for measured in data.measured_files():
        if measured.endswith(f"/{mutant.path}"):
            contexts = data.contexts_by_lineno(measured)
            for line in mutant.lines:
                tests.update(context.rpartition("|")[0] for context in contexts.get(line, ()))
    home = next((_HOMES[package] for package in _HOMES if mutant.path.is_relative_to(package)), "")
    known = [test for test in tests if test and (root / test.partition("::")[0]).exists()]
    if known:
        return sorted(known, key=lambda test: (_rank(test.split("/")[1], home), test))
    if home:
        return [f"tests/{home}"]
    core = (path.parent.name for path in (root / "tests").glob("*/__init__.py"))
    return [f"tests/{name}" for name in core if name not in _LATER]


def _rank(directory: str, home: str) -> int:
    if "::" in directory:
        return len(_LATER) + 1  # What is in no directory runs the examples and the pages.
    return _LATER.index(directory) + 1 if directory in _LATER and directory != home else 0


def judge(mutant: Mutant, root: Path, tests: list[str], limit: float) -> tuple[bool, str]:
    """Put a mutant into a copy of the tree and run tests there.

    Returns:
        Whether it was killed; and by what, or how many tests it has outlived.
    """
    if "::" not in tests[0]:
        limit *= _WHOLE_DIRECTORIES
    end = time.monotonic() + limit
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(root, tree, ignore=_NOT_COPIED)
        module = tree / mutant.path
        original = module.read_text()
        left = tests
        flaky: list[str] = []
        passed = 0
        while left and (seconds := end - time.monotonic()) > 0:
            module.write_text(mutant.text)
            spared = [f"--deselect={test}" for test in flaky]
            code = _run(tree, ["--cache-clear", *spared, *left[:_BATCH]], seconds)
            module.write_text(original)
            if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                left = left[_BATCH:]
                passed += _passed(tree)
            elif code == _HANGS:
                return True, "a test that hangs"
            elif code is None:
                passed += _passed(tree)
            else:
                failed = _last_failed(tree)
                if _run(tree, failed or ["--collect-only", *left[:_BATCH]], limit) == 0:
                    return True, failed[0] if failed else "an import that fails"
                if not failed:
                    raise RuntimeError((tree.parent / "log").read_text())
                flaky += failed
    return False, f"{passed} tests" + (", and then the time was over" if left else "")


def judge_by(command: list[str], mutant: Mutant, root: Path, limit: float) -> tuple[bool, str]:
    """Put a mutant into a copy of the tree and run a program there. Returns as `judge` does."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(root, tree, ignore=_NOT_COPIED)
        (tree / mutant.path).write_text(mutant.text)
        code = _run(tree, [], limit, command)
        said = (tree.parent / "log").read_text().splitlines() or [""]
    if code == 0:
        return False, "the program"
    return True, "a program that hangs" if code in (None, _HANGS) else said[-1][:200]


def _run(
    tree: Path, args: list[str], seconds: float, command: Sequence[str] = _PYTEST
) -> int | None:
    """Run pytest in a tree: its exit status, or _HANGS, or None when the time is over."""
    log = tree.parent / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *args],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    began = changed = time.monotonic()
    size = 0
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            now = time.monotonic()
            if log.stat().st_size != size:
                size, changed = log.stat().st_size, now
            if now - changed > _HANG:
                return _HANGS
            if now - began > seconds:
                return None
    finally:
        # Its tests have started servers and workers, which are in sessions of their own.
        for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(patience)


def _passed(tree: Path) -> int:
    return (tree.parent / "log").read_text().count(" PASSED ")


def _last_failed(tree: Path) -> list[str]:
    path = tree / ".pytest_cache/v/cache/lastfailed"
    return list(json.loads(path.read_text())) if path.exists() else []


def main() -> int:
    """Judge the mutants that the command line asks for; 1 when one lives."""
    parser = argparse.ArgumentParser(description="Put faults into the packages, and run the tests.")
    parser.add_argument("--root", type=Path, default=Path(), help="the tree with the packages")
    parser.add_argument("--data", default=".coverage", help="coverage data with a context per test")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers of mutants")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at once")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of tests for a mutant")
    parser.add_argument("--under", default="", metavar="PATH", help="only mutants of what is there")
    parser.add_argument("--with", dest="command", metavar="COMMAND", help="what judges, for tests")
    options = parser.parse_args()
    root = options.root.resolve()
    mutants = [m for m in find_mutants(root) if not options.only or m.number in options.only]
    mutants = [mutant for mutant in mutants if mutant.path.is_relative_to(options.under)]
    totals = {package: [0, 0] for package in MUTANTS}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        if options.command is not None:
            command = shlex.split(options.command)
            mutants = [mutant for mutant in mutants if mutant.anchor not in NOT_ON_THE_WIRE]
            verdicts = pool.map(
                judge_by, repeat(command), mutants, repeat(root), repeat(options.limit)
            )
        else:
            data = coverage.CoverageData(options.data)
            data.read()
            chosen = [find_tests(mutant, root, data) for mutant in mutants]
            verdicts = pool.map(judge, mutants, repeat(root), chosen, repeat(options.limit))
        for mutant, (is_dead, why) in zip(mutants, verdicts, strict=True):
            place = f"{mutant.path}:{mutant.lines[0]}"
            end = f"killed by {why}" if is_dead else f"has outlived {why}"
            print(f"{mutant.number:3}  {place:36}  {mutant.anchor}\n     {end}", flush=True)
            totals[mutant.package][not is_dead] += 1
    for package, (killed, alive) in totals.items():
        print(f"{package}: {killed} of {killed + alive} killed")
    return int(any(alive for _, alive in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
