"""Text from a server is escaped in errors, in `repr` and in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gearman_proto import AdminEngine, ClientEngine, WorkerEngine, text
from gearman_proto.errors import GearmanError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import finish
from gearman_proto.wire.packets import Error, JobAssignUniq, JobCreated, WorkFail
from tests.engines.harness import raw
from tests.profiles import examples
from tests.support import hostile

from .test_in_memory import make_admin_client, make_client, make_worker, reverse

if TYPE_CHECKING:
    import pytest

HOSTILE = st.tuples(hostile.BYTES, hostile.BYTES)


def talk(engine: Any, *answers: bytes) -> Any:
    """Connect the engine to a server that sends `answers`. Return the link.

    Before each answer, the engine sends all that it has to send.
    """
    link = engine.next_action().link
    engine.connected(link, 0.0)
    for answer in answers:
        while engine.data_to_send(link, 0.0):
            pass
        engine.receive_data(link, answer, 0.0)
    return link


def failure(text: bytes) -> OSError:
    return OSError(text.decode("utf-8", "surrogateescape"))


def messages(*waits: Any) -> list[str]:
    """Return the texts of calls that an application might print."""
    found = []
    for wait in waits:
        found.append(repr(wait))
        try:
            wait.raise_error()
        except GearmanError as error:
            found += [str(error), repr(error)]
    return found


def harmful(lines: list[str]) -> list[str]:
    return [line for line in lines if not hostile.is_harmless(line)]


@given(HOSTILE, st.integers(0, 5))
@settings(examples(4))
def test_a_client(told: tuple[bytes, bytes], which: int) -> None:
    one, two = told
    answer = [
        raw(Error(one, two)),
        raw(JobCreated(one), WorkFail(one)),
        one,
        b"\0RES" + one,
        raw(JobCreated(one)) + one,
        raw(JobCreated(two)) + one,
    ][which]
    client = make_client(["one:1"])
    request = finish(client._gm_requests_of([{"task": "t", "data": b""}], False, 1, {}))[0]
    finish(client._gm_prepare([request], None))
    submit = client._gm_driver.run(ClientEngine.submit, [request], accepted_only=False)
    query = client._gm_status_queries([GearmanJobRequest.from_unique("u")], None)
    status = client._gm_driver.run(ClientEngine.statuses, [], query)
    engine = client._gm_driver.engine
    engine.connection_lost(talk(engine, answer), failure(one), 0.0)
    # The client repeats the query.
    engine.connection_lost(talk(engine), failure(two), 0.0)
    found = [repr(request), repr(request.job), str(request.error), repr(request.error)]
    assert harmful([*found, *messages(submit, status)]) == []


@given(HOSTILE, st.integers(0, 6))
@settings(examples(4, suppress_health_check=[HealthCheck.function_scoped_fixture]))
def test_a_worker(caplog: pytest.LogCaptureFixture, told: tuple[bytes, bytes], which: int) -> None:
    one, two = told
    assigned = raw(JobAssignUniq(one, b"a", two, b""))
    answer: bytes = [
        raw(Error(one, two)),
        raw(Error(one, two), Error(two, one)),
        assigned + raw(Error(one, two)),
        assigned + two,
        one,
        b"\0RES" + one,
        b"",
    ][which]
    worker = make_worker(["one:1"])
    worker.register_task("a", reverse)
    engine = worker._gm_driver.engine
    worker._gm_driver.run(WorkerEngine.work)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "gearman"):
        link = talk(engine, answer)
        while (job := engine.next_job(0.0)) is not None:
            logging.getLogger("gearman").warning("%r", job)
        engine.connection_lost(link, failure(one), 0.0)
        worker._gm_driver.log_notices()
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert harmful(lines) == []


COMMANDS = [text.status, text.workers, text.show_jobs, text.show_unique_jobs, text.version]


@given(st.sampled_from(COMMANDS), HOSTILE, st.integers(0, 5))
@settings(examples(4))
def test_an_admin_client(command: Any, told: tuple[bytes, bytes], which: int) -> None:
    one, two = told
    answer = [
        b"ERR " + one + b" " + two + b"\r\n",
        one + b"\r\n",
        one + b"\t1\t2\t3\n" + two + b"\n.\n",
        b"12 ::1 " + one + b" : " + two + b"\n.\n",
        raw(Error(one, two)),
        one,
    ][which]
    client = make_admin_client(["one:1"])
    question = client._gm_driver.run(AdminEngine.ask, command())
    ping = client._gm_driver.run(AdminEngine.ping)
    engine = client._gm_driver.engine
    engine.connection_lost(talk(engine, answer, answer), failure(one), 0.0)
    values = [repr(each.value) for each in (question, ping) if each.done and each.error is None]
    assert harmful([*values, *messages(question, ping)]) == []
