"""Tests of the table of job outcomes, in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any, Final

import pytest

from gearman_proto import ServerAddress
from gearman_proto.engines.base import LinkState
from gearman_proto.engines.servers import Server
from gearman_proto.engines.worker.outcomes import (
    OUTCOMES,
    Ending,
    ForkGuard,
    Happened,
    Outcome,
    Sent,
    Then,
    Watch,
    exc_info_of,
    leaves,
    to_send,
    what_was_raised,
)
from gearman_proto.engines.worker.phases import WorkerLink
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import WorkerJob
from gearman_proto.wire.packets import WorkComplete, WorkException, WorkFail, WorkWarning

LOGGER: Final = logging.getLogger("gearman")
PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "worker.md"


class Odd(BaseException):
    """A BaseException that is no Exception."""


@pytest.fixture
def job() -> WorkerJob:
    link = WorkerLink(Server(ServerAddress("h")), 1000)
    return WorkerJob(link, b"H:1", b"f", None, b"in")


def lose(job: WorkerJob) -> None:
    job._gm_link.turn(LinkState.GONE)


# The table.


def test_table_has_a_row_for_each_event() -> None:
    assert set(OUTCOMES) == set(Happened)


def test_documentation_contains_the_table() -> None:
    """If this test fails, replace the documented table with the return value of `drawn`."""
    assert drawn() in PAGE.read_text()


def drawn() -> str:
    """Return the table in Markdown."""
    lines = ["| what happens | what is sent about the job | `work()` |", "| --- | --- | --- |"]
    lines += [
        f"| {happened.value} | {outcome.sent.value} | {outcome.then.value} |"
        for happened, outcome in OUTCOMES.items()
    ]
    return "\n".join(lines)


# Errors, with `in_work` and `is_ending` of each case.

RAISED: dict[Happened, list[tuple[BaseException, bool, bool]]] = {
    Happened.RAISED: [
        *[(ValueError(), in_work, ending) for in_work in (False, True) for ending in (False, True)],
        (ConnectionError(), True, False),
        (StopIteration(), True, False),
        (ExceptionGroup("", [ValueError()]), True, False),
    ],
    Happened.RAISED_OTHER: [
        *[(Odd(), in_work, False) for in_work in (False, True)],
        *[(GeneratorExit(), in_work, False) for in_work in (False, True)],
        *[(asyncio.CancelledError(), in_work, False) for in_work in (False, True)],
        (BaseExceptionGroup("", [Odd(), ValueError()]), True, False),
    ],
    Happened.EXITED_IN_THREAD: [
        (KeyboardInterrupt(), False, False),
        (SystemExit(3), False, False),
    ],
    Happened.EXITED: [
        (KeyboardInterrupt(), True, False),
        (SystemExit(3), True, True),
        (BaseExceptionGroup("", [ValueError(), KeyboardInterrupt()]), True, False),
        (BaseExceptionGroup("", [BaseExceptionGroup("", [SystemExit()])]), True, False),
    ],
    Happened.CANCELLED: [
        (asyncio.CancelledError(), True, True),
        (GeneratorExit(), True, True),
        (BaseExceptionGroup("", [asyncio.CancelledError()]), True, True),
    ],
}


@pytest.mark.parametrize("happened", RAISED)
def test_errors_are_classified(happened: Happened) -> None:
    for error, in_work, is_ending in RAISED[happened]:
        where: dict[str, Any] = {"in_work": in_work, "is_cancelled": lambda: is_ending}  # noqa: B023
        assert what_was_raised(error, **where) is happened
        assert leaves(error, **where) is (OUTCOMES[happened].then is Then.LEAVE)


def test_cancelled_error_without_cancellation_is_another_error() -> None:
    assert what_was_raised(asyncio.CancelledError(), in_work=True) is Happened.RAISED_OTHER


# Packets, without and with the option "exceptions".

SENT: dict[Sent, tuple[list[Any], list[Any]]] = {
    Sent.RESULT: ([WorkComplete(b"H:1", b"out")],) * 2,
    Sent.FAILURE: (
        [WorkWarning(b"H:1", b"ValueError: out"), WorkFail(b"H:1")],
        [WorkException(b"H:1", b"ValueError: out")],
    ),
    Sent.FAIL: ([WorkFail(b"H:1")],) * 2,
    Sent.NOTHING: ([], []),
    Sent.GIVEN_UP: ([], []),
}


@pytest.mark.parametrize("exceptions", [False, True])
@pytest.mark.parametrize("happened", Happened)
def test_packets_of_each_outcome(happened: Happened, exceptions: bool, job: WorkerJob) -> None:
    sent = OUTCOMES[happened].sent
    value = ValueError("out") if sent is Sent.FAILURE else "out"
    assert to_send(happened, job, NoopEncoder, value, exceptions) == SENT[sent][exceptions]
    job.ended = True
    assert to_send(happened, job, NoopEncoder, value, exceptions) == []


def test_unencodable_result_fails_the_job(job: WorkerJob) -> None:
    with pytest.raises(TypeError, match="the result of 'f' must be bytes or str, not int"):
        to_send(Happened.RETURNED, job, NoopEncoder, 5)
    assert OUTCOMES[Happened.UNENCODABLE] == OUTCOMES[Happened.RAISED]


@pytest.mark.parametrize("exceptions", [False, True])
def test_result_of_more_than_a_packet_fails_its_job_once(exceptions: bool, job: WorkerJob) -> None:
    with pytest.raises(ValueError, match="the result of 'f' has 200 bytes") as caught:
        to_send(Happened.RETURNED, job, NoopEncoder, bytes(200), exceptions, 100)
    events = to_send(Happened.UNENCODABLE, job, NoopEncoder, caught.value, exceptions, 100)
    kinds = [WorkException] if exceptions else [WorkWarning, WorkFail]
    assert [type(event) for event in events] == kinds
    reason: Any = events[0]
    assert reason.data == f"ValueError: {caught.value}".encode()[:96]


def test_ending_truncates_a_reason_to_the_packet_size(job: WorkerJob) -> None:
    ending = Ending(job, LOGGER)
    ending.hook_raised(ValueError("x" * 200))
    (event,) = ending.to_send(NoopEncoder, True, 100)
    assert event == WorkException(b"H:1", b"ValueError: " + b"x" * 84)


# Hooks.


def test_watch_raises_only_errors_that_leave_work() -> None:
    """The Watch reports all other errors to its callback."""
    errors: list[BaseException] = []
    watch = Watch(lambda error: isinstance(error, KeyboardInterrupt), errors.append)
    with watch:
        pass
    for error in (ValueError(), GeneratorExit(), SystemExit()):
        with watch:
            raise error
        assert errors.pop() is error
    with pytest.raises(KeyboardInterrupt), watch:
        raise KeyboardInterrupt
    assert not errors


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, Any, bool]]:
    """Return the level and message of each record, and True if it has a traceback."""
    return [(record.levelno, record.msg, bool(record.exc_info)) for record in caplog.records]


def test_hook_that_ends_the_job_needs_no_packet(
    job: WorkerJob, caplog: pytest.LogCaptureFixture
) -> None:
    job.ended = True
    assert Ending(job, LOGGER).to_send(NoopEncoder, False) == []
    assert not caplog.records


def test_hook_that_leaves_the_job_open_fails_it(
    job: WorkerJob, caplog: pytest.LogCaptureFixture
) -> None:
    assert Ending(job, LOGGER).to_send(NoopEncoder, True) == [WorkFail(b"H:1")]
    assert OUTCOMES[Happened.LEFT_OPEN].sent is Sent.FAIL
    assert logged(caplog) == [(logging.ERROR, "%r was left without an end: it fails", False)]


@pytest.mark.parametrize("error", [ValueError("out"), ConnectionError("out"), Odd("out")], ids=repr)
def test_hook_that_raises_fails_the_job(
    error: BaseException, job: WorkerJob, caplog: pytest.LogCaptureFixture
) -> None:
    ending = Ending(job, LOGGER)
    ending.hook_raised(error)
    warning, failed = ending.to_send(NoopEncoder, False)
    assert isinstance(warning, WorkWarning)
    assert warning.data.endswith(f"{type(error).__name__}: out".encode())
    assert failed == WorkFail(b"H:1")
    assert logged(caplog) == [(logging.ERROR, "a hook failed for %r", True)]


@pytest.mark.parametrize("is_known", [False, True])
def test_hook_of_a_lost_job_sends_nothing(
    is_known: bool, job: WorkerJob, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss was detected by a failed send, or no packet was sent since."""
    ending = Ending(job, LOGGER)
    if is_known:
        job.ended = True  # The engine sets this before it sends the end.
        ending.hook_raised(ConnectionError("gone"))
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
    else:
        lose(job)
    assert ending.to_send(NoopEncoder, False) == []
    assert OUTCOMES[Happened.LOST] == Outcome(Sent.GIVEN_UP, Then.GO_ON)
    assert len(caplog.records) == is_known


def test_exc_info() -> None:
    with pytest.raises(ValueError) as caught:
        raise ValueError
    assert exc_info_of(caught.value) == (ValueError, caught.value, caught.value.__traceback__)


# Forked children.


class Process:
    """A fake process that forks, for a ForkGuard."""

    def __init__(self, job: WorkerJob) -> None:
        self.pid = 1
        self.statuses: list[int] = []
        self._job = job

    def guard(self) -> ForkGuard:
        return ForkGuard(LOGGER, lambda: self.pid, self.statuses.append, self._job)

    def run(self, error: BaseException | None, *, forks: bool) -> None:
        with self.guard():
            if forks:
                self.pid = 2
            if error is not None:
                raise error


@pytest.mark.parametrize("error", [None, ValueError("wrong"), SystemExit(3), GeneratorExit()])
def test_fork_guard_without_a_fork_does_nothing(
    job: WorkerJob, caplog: pytest.LogCaptureFixture, error: BaseException | None
) -> None:
    process = Process(job)
    with contextlib.suppress(*([] if error is None else [type(error)])):
        process.run(error, forks=False)
    assert process.statuses == []
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [None, ValueError("wrong"), KeyboardInterrupt(), SystemExit("no")]
)
def test_fork_guard_ends_the_child_and_logs_the_reason(
    job: WorkerJob, caplog: pytest.LogCaptureFixture, error: BaseException | None
) -> None:
    process = Process(job)
    with contextlib.suppress(BaseException):
        process.run(error, forks=True)
    assert process.statuses == [1]
    (record,) = caplog.records
    assert "in a child that it has forked: the child ends here" in record.getMessage()
    assert record.levelno == logging.ERROR
    assert bool(record.exc_info) == (error is not None)


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (7, 7)])
def test_fork_guard_ends_the_child_with_its_exit_status(
    job: WorkerJob, caplog: pytest.LogCaptureFixture, code: int | None, status: int
) -> None:
    process = Process(job)
    with pytest.raises(SystemExit):
        process.run(SystemExit(code), forks=True)
    assert process.statuses == [status]
    assert not caplog.records


def test_fork_guard_of_a_collected_coroutine_does_nothing(job: WorkerJob) -> None:
    """The child has copies of the parent's coroutines, and closes them in garbage collection."""
    process = Process(job)
    with pytest.raises(GeneratorExit):
        process.run(GeneratorExit(), forks=True)
    assert process.statuses == []


def test_outcome_of_a_forked_child_is_exit() -> None:
    assert OUTCOMES[Happened.FORKED] == Outcome(Sent.NOTHING, Then.EXIT)
