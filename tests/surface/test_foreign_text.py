"""Text from a server is escaped in errors, in `repr` and in the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gearman_proto import AdminEngine, WorkerEngine, text
from gearman_proto.engines.base import Connect
from gearman_proto.errors import GearmanError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import Error, JobAssignUniq, JobCreated, WorkFail
from tests.engines.harness import World, raw
from tests.profiles import examples
from tests.support import hostile

from .test_in_memory import make_admin_client, make_worker, reverse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest


def messages(error: BaseException | None) -> list[str]:
    """Return the texts of an error that an application might print."""
    return [] if error is None else [str(error), repr(error)]


def raised(call: Callable[[], Any]) -> list[str]:
    """Return the messages of the GearmanError that `call` raises, if any."""
    try:
        call()
    except GearmanError as error:
        return messages(error)
    return []


def answers(one: bytes, two: bytes) -> Iterator[bytes]:
    """Generate possible replies to a submit or a query."""
    yield raw(Error(one, two))
    yield raw(JobCreated(one), WorkFail(one))
    yield one
    yield b"\0RES" + one
    for packet in (JobCreated(one), JobCreated(two)):
        yield raw(packet) + one


@given(hostile.BYTES, hostile.BYTES, st.integers(0, 5))
@settings(examples(4))
def test_a_client(one: bytes, two: bytes, which: int) -> None:
    answer = list(answers(one, two))[which]
    world = World()
    request = world.request()
    submit = world.submit(request)
    status = world.statuses(GearmanJobRequest.from_unique("u"))
    connect = world.engine.connect(world.now, lambda: None, world.engine.pool.servers[0])
    server = world.serve()
    server.take()
    server.send_raw(answer)
    if server.link.alive:
        server.lose(OSError(one.decode("utf-8", "surrogateescape")))
    # The client repeats the query.
    world.act()
    for peer in world.peers:
        if peer.link.alive:
            peer.refuse(OSError(two.decode("utf-8", "surrogateescape")))
    again = world.submit(world.request())
    world.serve().lose(OSError(one.decode("utf-8", "surrogateescape")))
    found = [repr(request), repr(request.job), *messages(request.error)]
    for wait in (submit, status, connect, again):
        assert wait.done
        found += raised(wait.raise_error)
    assert [line for line in found if not hostile.is_harmless(line)] == []


@given(hostile.BYTES, hostile.BYTES, st.integers(0, 6))
@settings(examples(4, suppress_health_check=[HealthCheck.function_scoped_fixture]))
def test_a_worker(caplog: pytest.LogCaptureFixture, one: bytes, two: bytes, which: int) -> None:
    assigned = JobAssignUniq(one, b"a", two, b"")
    answer: bytes = [
        raw(Error(one, two)),
        raw(Error(one, two), Error(two, one)),
        raw(assigned, Error(one, two)),
        raw(assigned) + two,
        one,
        b"\0RES" + one,
        b"",
    ][which]
    worker = make_worker(["one:1"])
    worker.register_task("a", reverse)
    engine = worker._gm_driver.engine
    worker._gm_driver.run(WorkerEngine.work)
    action = engine.next_action()
    assert isinstance(action, Connect)
    link = action.link
    engine.connected(link, 0.0)
    while engine.data_to_send(link, 0.0):
        pass
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "gearman"):
        engine.receive_data(link, answer, 0.0)
        while (job := engine.next_job(0.0)) is not None:
            worker._gm_log()
            logging.getLogger("gearman").warning("%r", job)
        engine.connection_lost(link, OSError(one.decode("utf-8", "surrogateescape")), 0.0)
        worker._gm_log()
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert [line for line in lines if not hostile.is_harmless(line)] == []


COMMANDS = [text.status, text.workers, text.show_jobs, text.show_unique_jobs, text.version]


@given(st.sampled_from(COMMANDS), hostile.BYTES, hostile.BYTES, st.integers(0, 5))
@settings(examples(4))
def test_an_admin_client(command: Any, one: bytes, two: bytes, which: int) -> None:
    answer = [
        b"ERR " + one + b" " + two + b"\r\n",
        one + b"\r\n",
        one + b"\t1\t2\t3\n" + two + b"\n.\n",
        b"12 ::1 " + one + b" : " + two + b"\n.\n",
        raw(Error(one, two)),
        one,
    ][which]
    client = make_admin_client(["one:1"])
    engine = client._gm_driver.engine
    question = client._gm_driver.run(AdminEngine.ask, command())
    ping = client._gm_driver.run(AdminEngine.ping)
    link = engine.next_action().link
    engine.connected(link, 0.0)
    while engine.data_to_send(link, 0.0):
        pass
    engine.receive_data(link, answer, 0.0)
    engine.data_to_send(link, 0.0)
    engine.receive_data(link, answer, 0.0)
    engine.connection_lost(link, OSError(one.decode("utf-8", "surrogateescape")), 0.0)
    found = [repr(question), repr(ping)]
    for each in (question, ping):
        found += raised(each.raise_error)
        if each.done and each.error is None:
            found.append(repr(each.value))
    assert [line for line in found if not hostile.is_harmless(line)] == []
