"""The checker detects each kind of violation."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import constants

from .books import Books
from .payloads import Job, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Event = Callable[[Books], object]

CLEAN, DIRTY = "gearmand", "dirty"
JOB, OTHER, FAILING = Job(1, "ok", 0), Job(2, "parts", 5, 1000), Job(1, "fail", 0)
LOST = OSError("lost")


def told(
    state: str,
    job: Job = JOB,
    server: str = CLEAN,
    returned: bool = True,
    data: Sequence[bytes] = (),
    **fields: Any,
) -> Event:
    """Submit a job, and record its state at the end of a call."""

    def event(books: Books) -> None:
        entry = books.submitted(job, "client", background=fields.get("background", False))
        request = SimpleNamespace(
            **{"error": None, "result": None, "timed_out": False, "complete": False, **fields},
            state=state,
            data_updates=deque(data),
        )
        books.record_outcome(entry, request, server, returned=returned)

    return event


def complete(result: bytes, **options: Any) -> Event:
    return told(constants.JOB_COMPLETE, result=result, **options)


def queued(**options: Any) -> Event:
    return told(constants.JOB_CREATED, background=True, complete=True, **options)


def ran(
    job: Job | None = JOB, server: str = CLEAN, error: type[BaseException] | None = None
) -> Event:
    def event(books: Books) -> None:
        with contextlib.suppress(BaseException), books.running(job, "worker", server):
            if error is not None:
                raise error

    return event


def killed(books: Books) -> None:
    books.killed(CLEAN)


UNKNOWN, CREATED, PENDING = constants.JOB_UNKNOWN, constants.JOB_CREATED, constants.JOB_PENDING
FAILED = constants.JOB_FAILED
#: What happens, and the violations.
CASES: dict[str, tuple[list[Event], list[str]]] = {
    "a right result": ([ran(), complete(JOB.result)], []),
    "a result of another job": ([ran(), complete(OTHER.result)], ["unexpected"]),
    "one from the dirty server": (
        [ran(server=DIRTY), complete(OTHER.result, server=DIRTY)],
        ["unexpected"],
    ),
    "a result without a run": ([ran(server=DIRTY), complete(JOB.result)], ["unexpected"]),
    "a changed result": ([complete(JOB.result[:-1] + b"!")], ["unexpected"]),
    "one of the dirty server": ([complete(JOB.result[:-1] + b"!", server=DIRTY)], []),
    "a failure": ([told(FAILED)], ["unexpected"]),
    "one at the dirty server": ([told(FAILED, server=DIRTY)], []),
    "a failure of the worker": ([told(FAILED, FAILING)], []),
    "a result of a failing job": (
        [ran(FAILING), complete(FAILING.result, job=FAILING)],
        ["unexpected"],
    ),
    "a lost request": ([told(UNKNOWN, error=LOST)], []),
    "one without a reason": ([told(UNKNOWN, error=None)], ["unexpected"]),
    "one that has timed out": ([told(UNKNOWN, error=LOST, timed_out=True)], ["unexpected"]),
    "no end": ([told(CREATED)], ["unexpected"]),
    "no acknowledgement": ([told(PENDING)], ["unexpected"]),
    "no end in time": ([told(CREATED, timed_out=True), told(PENDING, timed_out=True)], []),
    "no end of a cancelled call": ([told(CREATED, returned=False)], []),
    "data": ([told(CREATED, timed_out=True, data=JOB.parts[:1])], []),
    "data of another job": (
        [told(CREATED, timed_out=True, data=OTHER.parts[:1])],
        ["unexpected"],
    ),
    "changed data": ([told(CREATED, timed_out=True, data=(JOB.parts[0][:-1],))], ["unexpected"]),
    "no run": ([queued()], ["lost"]),
    "a run that raised": ([queued(), ran(error=ValueError)], []),
    # The server knows that such a run has not ended.
    "an interrupted run": ([queued(), ran(error=KeyboardInterrupt)], ["lost"]),
    "a run at another server": ([queued(), ran(server="blocking")], ["lost"]),
    "no run, as the server died": ([queued(), killed], []),
    "no run, and the server had died before": ([killed, queued()], ["lost"]),
    "no run at the dirty server": ([queued(server=DIRTY)], []),
    "no run before an acknowledgement": ([told(PENDING, background=True, timed_out=True)], []),
    "a run without a submit": ([ran()], ["unexpected"]),
    "a run of changed data": ([ran(Job.unpack(b"changed"))], ["unexpected"]),
    "one at the dirty server, too": ([ran(None, DIRTY)], []),
    # A job that was submitted twice can run twice.
    "duplicates": ([queued(), ran(), ran(), ran(), *[queued(job=OTHER), ran(OTHER)] * 2], []),
}


@pytest.mark.parametrize("case", CASES)
def test_violation_is_detected(case: str) -> None:
    events, expected = CASES[case]
    books = Books(DIRTY)
    for event in events:
        event(books)
    books.check()
    assert [kind for kind, _ in books.problems] == expected
    assert books.counts["runs beyond the first"] == (2 if case == "duplicates" else 0)
    assert f"{len(expected)} {expected[0]}" in books.report() if expected else True


@pytest.mark.parametrize(
    ("server", "ago", "expected"),
    [(CLEAN, 0, ["unexpected"]), (DIRTY, 0, []), (DIRTY, 100, ["unexpected"])],
)
def test_result_of_another_job_after_a_changed_size_is_counted(
    server: str, ago: float, expected: list[str]
) -> None:
    books = Books(DIRTY)
    changed = time.monotonic() - ago
    ran(server=server)(books)
    complete(OTHER.result, server=server)(books)
    books.check([changed])
    assert [kind for kind, _ in books.problems] == expected


def test_every_change_of_a_byte_is_recognised() -> None:
    for job in (JOB, OTHER, FAILING):
        assert Job.unpack(job.pack()) == job
    sealed = JOB.pack()
    for at in range(len(sealed)):
        for mask in (0x01, 0x80, 0xFF):
            changed = sealed[:at] + bytes([sealed[at] ^ mask]) + sealed[at + 1 :]
            assert unseal(changed) is None
        assert unseal(sealed[:at]) is None
    assert unseal(sealed + sealed) is None
