"""Tests of the table of job outcomes, in memory.

`tests/contract/test_outcomes.py` has the rows of the table with both adapters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from pathlib import Path
from typing import Any, Final

import pytest

from gearman_proto import ServerAddress
from gearman_proto.engines.base import LinkState
from gearman_proto.engines.servers import Server
from gearman_proto.engines.worker.link import WorkerLink
from gearman_proto.engines.worker.outcomes import (
    OUTCOMES,
    CallbackResult,
    Ending,
    ForkGuard,
    NextStep,
    Reply,
    contain_errors,
    exc_info_of,
    leaves,
    to_send,
    what_was_raised,
)
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
    link = WorkerLink(Server(ServerAddress("h")), 1000, deque())
    return WorkerJob(link, b"H:1", b"f", None, b"in")


def test_documentation_contains_the_table() -> None:
    """If this test fails, replace the documented table with `table`."""
    table = ["| event | packets about the job | `work()` |", "| --- | --- | --- |"]
    table += [
        f"| {result.value} | {OUTCOMES[result].sent.value} | {OUTCOMES[result].then.value} |"
        for result in CallbackResult
    ]
    assert "\n".join(table) in PAGE.read_text()


# Exceptions of callbacks.


@pytest.mark.parametrize(
    ("error", "in_work", "is_ending", "result"),
    [
        (ValueError(), False, True, CallbackResult.RAISED),
        (ValueError(), True, True, CallbackResult.RAISED),
        (ExceptionGroup("", [ValueError()]), True, False, CallbackResult.RAISED),
        (Odd(), False, False, CallbackResult.RAISED_OTHER),
        (GeneratorExit(), True, False, CallbackResult.RAISED_OTHER),
        (asyncio.CancelledError(), True, False, CallbackResult.RAISED_OTHER),
        (BaseExceptionGroup("", [Odd(), ValueError()]), True, False, CallbackResult.RAISED_OTHER),
        (KeyboardInterrupt(), False, False, CallbackResult.EXITED_IN_THREAD),
        (SystemExit(3), False, False, CallbackResult.EXITED_IN_THREAD),
        (KeyboardInterrupt(), True, False, CallbackResult.EXITED),
        (SystemExit(3), True, True, CallbackResult.EXITED),
        (BaseExceptionGroup("", [ValueError(), SystemExit()]), True, False, CallbackResult.EXITED),
        (asyncio.CancelledError(), True, True, CallbackResult.CANCELLED),
        (GeneratorExit(), True, True, CallbackResult.CANCELLED),
    ],
    ids=repr,
)
def test_exception_is_classified(
    error: BaseException, in_work: bool, is_ending: bool, result: CallbackResult
) -> None:
    where: dict[str, Any] = {"in_work": in_work, "is_cancelled": lambda: is_ending}
    assert what_was_raised(error, **where) is result
    assert leaves(error, **where) is (OUTCOMES[result].then is NextStep.LEAVE)
    if not is_ending:
        assert what_was_raised(error, in_work=in_work) is result


def test_watch_raises_only_errors_that_leave_work() -> None:
    """All other errors go to the callback."""
    errors: list[BaseException] = []
    watch = contain_errors(lambda error: isinstance(error, KeyboardInterrupt), errors.append)
    with watch:
        pass
    for error in (ValueError(), GeneratorExit(), SystemExit()):
        with watch:
            raise error
        assert errors.pop() is error
    with pytest.raises(KeyboardInterrupt) as caught, watch:
        raise KeyboardInterrupt
    assert not errors
    assert exc_info_of(caught.value) == (KeyboardInterrupt, caught.value, caught.tb)


# Packets, without and with the option "exceptions".

SENT: dict[Reply, tuple[list[Any], list[Any]]] = {
    Reply.RESULT: ([WorkComplete(b"H:1", b"out")],) * 2,
    Reply.FAILURE: (
        [WorkWarning(b"H:1", b"ValueError: out"), WorkFail(b"H:1")],
        [WorkException(b"H:1", b"ValueError: out")],
    ),
    Reply.FAIL: ([WorkFail(b"H:1")],) * 2,
    Reply.NOTHING: ([], []),
    Reply.LATER: ([], []),
    Reply.GIVEN_UP: ([], []),
}


def test_deferred_job_stays_open_unless_its_callback_raises(job: WorkerJob) -> None:
    handles = [job.defer()]
    for result in (CallbackResult.RETURNED, CallbackResult.LEFT_OPEN):
        assert to_send(result, job, NoopEncoder, "out") == []
    failed = to_send(CallbackResult.RAISED, job, NoopEncoder, ValueError("out"))
    assert failed == SENT[Reply.FAILURE][0]
    assert len(handles) == 1


@pytest.mark.parametrize("exceptions", [False, True])
@pytest.mark.parametrize("result", CallbackResult)
def test_packets_of_each_outcome(result: CallbackResult, exceptions: bool, job: WorkerJob) -> None:
    sent = OUTCOMES[result].sent
    value = ValueError("out") if sent is Reply.FAILURE else "out"
    assert to_send(result, job, NoopEncoder, value, exceptions) == SENT[sent][exceptions]
    job.ended = True
    assert to_send(result, job, NoopEncoder, value, exceptions) == []


def test_unsendable_result_fails_its_job_with_a_reason_of_the_packet_size(job: WorkerJob) -> None:
    with pytest.raises(TypeError, match="the result of 'f' must be bytes or str, not int"):
        to_send(CallbackResult.RETURNED, job, NoopEncoder, 5)
    with pytest.raises(ValueError, match="the result of 'f' has 200 bytes") as caught:
        to_send(CallbackResult.RETURNED, job, NoopEncoder, bytes(200), True, 100)
    reason = f"ValueError: {caught.value}".encode()[:96]
    events = to_send(CallbackResult.UNENCODABLE, job, NoopEncoder, caught.value, True, 100)
    assert events == [WorkException(b"H:1", reason)]


# Hooks.

OPEN = (logging.ERROR, "%r was left without an end: it fails")
FAILED = (logging.ERROR, "a hook failed for %r")
LOST = (logging.WARNING, "%r: %s")
#: The exception of the hook, the state of its job, the packets, and the logged level and message.
HOOKS: dict[str, tuple[BaseException | None, str, list[Any], tuple[int, str] | None]] = {
    "ends the job": (None, "ended", [], None),
    "leaves the job open": (None, "open", [WorkFail], OPEN),
    "raises": (Odd(), "open", [WorkWarning, WorkFail], FAILED),
    "raises ConnectionError": (ConnectionError(), "open", [WorkWarning, WorkFail], FAILED),
    # The engine ends the job before it sends the end, which then fails.
    "detects the loss": (ConnectionError(), "ended", [], LOST),
    "detects the loss by an update": (ConnectionError(), "lost", [], LOST),
    "does not detect the loss": (None, "lost", [], None),
}


@pytest.mark.parametrize("what", HOOKS)
def test_end_of_a_job_with_hooks(what: str, job: WorkerJob, caplog: Any) -> None:
    error, state, kinds, logged = HOOKS[what]
    ending = Ending(job, LOGGER)
    if state == "lost":
        job._gm_link.transition(LinkState.GONE)
    job.ended = state == "ended"
    if error is not None:
        ending.hook_raised(error)
    assert [type(event) for event in ending.to_send(NoopEncoder, False)] == kinds
    records = [(record.levelno, record.msg) for record in caplog.records]
    assert records == ([logged] if logged else [])


def test_reason_of_a_hook_is_truncated_to_the_packet_size(job: WorkerJob) -> None:
    ending = Ending(job, LOGGER)
    ending.hook_raised(ValueError("x" * 200))
    (event,) = ending.to_send(NoopEncoder, True, 100)
    assert event == WorkException(b"H:1", b"ValueError: " + b"x" * 84)


# Forked children.


@pytest.mark.parametrize(
    ("error", "forks", "statuses", "is_logged"),
    [
        (None, False, [], False),
        (SystemExit(3), False, [], False),
        (None, True, [1], True),
        (ValueError("wrong"), True, [1], True),
        (KeyboardInterrupt(), True, [1], True),
        (SystemExit("no"), True, [1], True),
        (SystemExit(None), True, [0], False),
        (SystemExit(7), True, [7], False),
        # The child closes its copies of the parent's coroutines in garbage collection.
        (GeneratorExit(), True, [], False),
    ],
    ids=repr,
)
def test_fork_guard_ends_only_a_forked_child(
    job: WorkerJob,
    caplog: pytest.LogCaptureFixture,
    error: BaseException | None,
    forks: bool,
    statuses: list[int],
    is_logged: bool,
) -> None:
    pids, left = iter([1, 2] if forks else [1, 1]), list[int]()
    guard = ForkGuard(LOGGER, lambda: next(pids), left.append, job)
    with contextlib.suppress(BaseException), guard:
        if error is not None:
            raise error
    assert left == statuses
    assert len(caplog.records) == is_logged
    for record in caplog.records:
        assert "in a child that it has forked: the child ends here" in record.getMessage()
        assert bool(record.exc_info) == (error is not None)
