"""The checker detects each kind of violation."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import GearmanJob, GearmanJobRequest, constants

from .books import Books
from .payloads import TASK, Job, seal, unseal

if TYPE_CHECKING:
    from .books import Entry

CLEAN, DIRTY = "gearmand", "dirty"
JOB = Job(1, "ok", 0)


@pytest.fixture
def books() -> Books:
    return Books(DIRTY)


def request(**fields: Any) -> GearmanJobRequest:
    made = GearmanJobRequest(GearmanJob(None, None, TASK, None, b""))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def tell(
    books: Books,
    server: str = CLEAN,
    job: Job = JOB,
    *,
    background: bool = False,
    returned: bool = True,
    **fields: Any,
) -> Entry:
    entry = books.submitted(job, "client", background=background)
    made = request(background=background, **fields)
    books.record_outcome(entry, made, server, returned=returned)
    return entry


def complete(books: Books, result: bytes, **options: Any) -> None:
    tell(books, state=constants.JOB_COMPLETE, _gm_raw_result=result, **options)


def created(books: Books, **options: Any) -> None:
    tell(books, background=True, state=constants.JOB_CREATED, **options)


def ran(books: Books, job: Job | None, server: str) -> None:
    with books.running(job, "worker", server):
        pass


def kinds(books: Books) -> list[str]:
    books.check()
    return [kind for kind, _ in books.problems]


# Payloads.


@pytest.mark.parametrize("job", [JOB, Job(2, "parts", 5, 1000), Job(3, "fail", 0)])
def test_job_is_unpacked_unchanged(job: Job) -> None:
    assert Job.unpack(job.pack()) == job


def test_every_change_of_a_byte_is_recognised() -> None:
    sealed = JOB.pack()
    for at in range(len(sealed)):
        for mask in (0x01, 0x80, 0xFF):
            changed = sealed[:at] + bytes([sealed[at] ^ mask]) + sealed[at + 1 :]
            assert unseal(changed) is None
        assert unseal(sealed[:at]) is None
    assert unseal(sealed + sealed) is None


# Outcomes for clients.


def test_right_result_is_accepted(books: Books) -> None:
    ran(books, JOB, CLEAN)
    complete(books, JOB.result)
    assert kinds(books) == []
    assert books.counts["right results"] == 1


def test_result_of_another_job_is_unexpected(books: Books) -> None:
    ran(books, JOB, CLEAN)
    complete(books, Job(2, "ok", 0).result)
    assert kinds(books) == ["unexpected"]


def test_intact_result_of_another_job_is_unexpected_on_the_dirty_server(books: Books) -> None:
    ran(books, JOB, DIRTY)
    complete(books, Job(2, "ok", 0).result, server=DIRTY)
    assert kinds(books) == ["unexpected"]


def test_result_without_a_run_is_unexpected(books: Books) -> None:
    ran(books, JOB, DIRTY)
    complete(books, JOB.result)
    assert kinds(books) == ["unexpected"]


@pytest.mark.parametrize(
    ("server", "ago", "expected"),
    [(CLEAN, 0, ["unexpected"]), (DIRTY, 0, []), (DIRTY, 100, ["unexpected"])],
)
def test_result_of_another_job_after_a_changed_size_is_counted(
    books: Books, server: str, ago: float, expected: list[str]
) -> None:
    changed = time.monotonic() - ago
    ran(books, JOB, server)
    complete(books, Job(2, "ok", 0).result, server=server)
    books.check([changed])
    assert [kind for kind, _ in books.problems] == expected


@pytest.mark.parametrize(("server", "expected"), [(CLEAN, ["unexpected"]), (DIRTY, [])])
def test_changed_result_is_unexpected_except_on_the_dirty_server(
    books: Books, server: str, expected: list[str]
) -> None:
    complete(books, JOB.result[:-1] + b"!", server=server)
    assert kinds(books) == expected


@pytest.mark.parametrize("job", [JOB, Job(1, "fail", 0)])
@pytest.mark.parametrize("server", [CLEAN, DIRTY])
def test_failure_is_unexpected_unless_sent(books: Books, job: Job, server: str) -> None:
    tell(books, server, job, state=constants.JOB_FAILED)
    assert kinds(books) == (["unexpected"] if job is JOB and server == CLEAN else [])


def test_result_of_a_failing_job_is_unexpected(books: Books) -> None:
    failing = Job(1, "fail", 0)
    ran(books, failing, CLEAN)
    complete(books, failing.result, job=failing)
    assert kinds(books) == ["unexpected"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"error": None}, ["unexpected"]),
        ({"timed_out": True}, ["unexpected"]),
    ],
)
def test_lost_request_needs_a_reason(
    books: Books, fields: dict[str, Any], expected: list[str]
) -> None:
    tell(books, **{"state": constants.JOB_UNKNOWN, "error": OSError("lost"), **fields})
    assert kinds(books) == expected


@pytest.mark.parametrize("state", [constants.JOB_PENDING, constants.JOB_CREATED])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, ["unexpected"]), ({"timed_out": True}, []), ({"returned": False}, [])],
)
def test_request_without_an_end_is_hung(
    books: Books, state: str, fields: dict[str, Any], expected: list[str]
) -> None:
    tell(books, state=state, **fields)
    assert kinds(books) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (JOB.parts[0], []),
        (Job(2, "parts", 0).parts[0], ["unexpected"]),
        (JOB.parts[0][:-1], ["unexpected"]),
    ],
)
def test_data_before_the_end_is_checked(books: Books, data: bytes, expected: list[str]) -> None:
    made = SimpleNamespace(
        state=constants.JOB_CREATED,
        timed_out=True,
        complete=False,
        has_updates=True,
        data_updates=deque([data]),
    )
    entry = books.submitted(JOB, "client", background=False)
    books.record_outcome(entry, made, CLEAN, returned=True)
    assert kinds(books) == expected


# Runs.


def test_acknowledged_job_without_a_run_is_lost(books: Books) -> None:
    created(books)
    assert kinds(books) == ["lost"]


@pytest.mark.parametrize(("error", "expected"), [(ValueError, []), (KeyboardInterrupt, ["lost"])])
def test_interrupted_run_does_not_count(
    books: Books, error: type[BaseException], expected: list[str]
) -> None:
    """The server knows that an interrupted run has not ended."""
    created(books)
    with contextlib.suppress(error), books.running(JOB, "worker", CLEAN):
        raise error
    assert kinds(books) == expected


def test_job_that_ran_at_another_server_is_lost(books: Books) -> None:
    created(books)
    ran(books, JOB, "blocking")
    assert kinds(books) == ["lost"]


def test_job_lost_with_its_server_is_counted(books: Books) -> None:
    created(books)
    books.killed(CLEAN)
    assert kinds(books) == []
    assert books.counts["lost with their server"] == 1


def test_job_of_a_server_killed_before_is_lost(books: Books) -> None:
    books.killed(CLEAN)
    created(books)
    assert kinds(books) == ["lost"]


def test_job_lost_on_the_dirty_server_is_counted(books: Books) -> None:
    created(books, server=DIRTY)
    assert kinds(books) == []
    assert books.counts["lost where bytes are changed"] == 1


def test_unacknowledged_job_is_not_lost(books: Books) -> None:
    tell(books, background=True, state=constants.JOB_PENDING, timed_out=True)
    assert kinds(books) == []


def test_run_without_a_submit_is_unexpected(books: Books) -> None:
    ran(books, JOB, CLEAN)
    assert kinds(books) == ["unexpected"]


@pytest.mark.parametrize(("server", "expected"), [(CLEAN, ["unexpected"]), (DIRTY, [])])
def test_run_of_changed_data_is_unexpected_except_on_the_dirty_server(
    books: Books, server: str, expected: list[str]
) -> None:
    ran(books, Job.unpack(b"changed"), server)
    assert kinds(books) == expected


def test_duplicates_are_counted(books: Books) -> None:
    created(books)
    for _ in range(3):
        ran(books, JOB, CLEAN)
    # A job that was submitted twice can run twice.
    twice = Job(2, "ok", 0)
    for _ in range(2):
        created(books, job=twice)
        ran(books, twice, CLEAN)
    assert kinds(books) == []
    assert books.counts["jobs that ran more than once"] == 1
    assert books.counts["runs beyond the first"] == 2


def test_problem_of_several_requests_is_noted_once(books: Books) -> None:
    for _ in range(2):
        books.problem_once("given up", "the server has been silent")
    assert books.problems == [("given up", "the server has been silent")]


def test_report_lists_figures_and_violations(books: Books) -> None:
    created(books)
    books.check()
    report = books.report()
    assert "1 submits, 1 in background; 0 runs" in report
    assert "0 unexpected, 0 late, 1 lost, 0 hung, 0 leaks, 0 given up" in report
    assert "LOST: Entry(" in report


def test_sealed_text_is_unsealed() -> None:
    assert unseal(seal("")) == ""
    assert unseal(b"") is None
