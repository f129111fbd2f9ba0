"""Lying doubles that violate one invariant each, and the simulated network's check for it."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
)
from gearman_proto.engines.base import Close
from gearman_proto.engines.server.jobqueue import JobState
from gearman_proto.engines.timers import Timers
from gearman_proto.engines.waits import Stream, Wait
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.updates import JobData
from gearman_proto.testing import Fault, Faults, Network, ServerNode, SimulationError
from gearman_proto.testing.books import Execution
from gearman_proto.wire import text
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import PreSleep, Role, SubmitJobBg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def work(job: Any) -> Generator[Any, None, bytes]:
    yield 1.0
    yield JobData(b"some")
    yield 1.0
    return b"result"


class Cast:
    """A server, a worker, a client and an admin client, with one submit in flight."""

    def __init__(
        self, *faults: Fault, bandwidth: tuple[float, float] | None = None, **options: Any
    ) -> None:
        self.net = net = Network(
            random.Random, seed=1, faults=Faults(bandwidth=bandwidth), replay=faults
        )
        self.server: ServerNode = net.server(**options)
        self.worker = net.worker([self.server], {"work": work})
        self.client = net.client([self.server])
        self.admin = net.admin(self.server)

    def submit(self, **options: Any) -> Any:
        return self.client.submit([{"task": "work", "data": b"data"}], **options)

    @property
    def call(self) -> Any:
        """The client's only pending call."""
        (call,) = self.client.calls
        return call

    def told(self, call: Any) -> None:
        (entry,) = call.entries
        try:
            self.net.books.told(entry)
        finally:  # Otherwise, the next check would report the entry again.
            entry.request = None

    def run(self, seconds: float) -> None:
        self.net.run(self.net.now + seconds)


def doing(limit: float | None = None) -> Cast:
    """Return a cast whose worker is executing a job."""
    cast = Cast()
    if limit is not None:
        cast.worker.limit = limit
        cast.worker.register("work")
    cast.submit()
    cast.run(0.5)
    return cast


def found(do: Callable[[], object], problem: str) -> None:
    with pytest.raises(SimulationError, match=problem):
        do()


def lie(request: Any, **values: Any) -> None:
    """Overwrite attributes of a request, as a faulty engine would."""
    for name, value in values.items():
        setattr(request, name, value)


# Requests.


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"state": JOB_COMPLETE, "_gm_raw_result": b"result"}, "which no execution of it gave"),
        ({"state": JOB_FAILED}, "which no execution of it did"),
        ({"state": JOB_FAILED, "_gm_raw_exception": b"no"}, "which no execution of it did"),
        ({"state": JOB_FAILED, "error": GearmanError("why")}, "request 0 of client1 has failed"),
        ({"state": JOB_UNKNOWN, "error": GearmanError("why")}, "is lost, and says GearmanError"),
        ({"state": JOB_UNKNOWN, "error": ConnectionError("reset")}, "no connection was"),
        ({"state": JOB_PENDING, "_gm_link": None}, "under way nowhere"),
    ],
)
def test_running_job_reported_with_a_wrong_state_fails(
    values: dict[str, Any], problem: str
) -> None:
    cast = doing()
    lie(cast.call.requests[0], **values)
    found(lambda: cast.told(cast.call), problem)


@pytest.mark.parametrize("unique", [None, "mine"])
def test_request_with_the_handle_of_another_job_fails(unique: str | None) -> None:
    cast = Cast()
    first = cast.submit()
    other = cast.client.submit([{"task": "work", "data": b"other", "unique": unique}])
    cast.run(0.5)
    other.requests[0].job.handle = first.requests[0].job.handle
    found(lambda: cast.told(other), "has the handle of another job")


def test_background_job_with_a_result_fails() -> None:
    cast = Cast()
    call = cast.submit(background=True)
    cast.run(5.0)
    lie(call.requests[0], state=JOB_COMPLETE, _gm_raw_result=b"result")
    call.entries[0].outcome = None
    found(lambda: cast.told(call), "nobody waited for one")


def test_submit_refused_by_a_full_queue_passes() -> None:
    cast = Cast(max_queue_size=1)
    first, second = cast.submit(), cast.submit()
    cast.net.check()
    assert isinstance(second.requests[0].error, ServerError)
    assert first.requests[0].state == JOB_COMPLETE


def test_request_lost_although_servers_were_reachable_fails() -> None:
    cast = Cast(Fault(0.4, "reset", "client1>server1"))
    cast.run(0.3)
    call = cast.submit()
    cast.run(0.2)
    call.entries[0].outcome = None
    lie(call.requests[0], state=JOB_UNKNOWN, error=ServerUnavailable("none"))
    found(lambda: cast.told(call), "all servers were reached")


def test_request_that_ends_twice_fails() -> None:
    cast = Cast()
    call = cast.submit()
    cast.run(5.0)
    lie(call.requests[0], state=JOB_FAILED)
    found(cast.net.check, "had ended with")


def test_request_that_never_ends_fails() -> None:
    cast = Cast()
    call = cast.submit()
    cast.run(5.0)
    call.entries[0].outcome = None
    lie(call.requests[0], _gm_link=object())
    cast.net.books.open.clear()
    found(cast.net.check, "request 0 of client1 has not ended")


@pytest.mark.parametrize("unique", [None, "mine"])
def test_update_that_no_execution_sent_fails(unique: str | None) -> None:
    cast = Cast()
    call = cast.client.submit([{"task": "work", "data": b"data", "unique": unique}])
    cast.run(5.0)
    call.entries[0].updates.append(("JobData", b"more"))
    found(cast.net.check, "has the updates")


def test_update_that_is_missing_fails() -> None:
    cast = Cast()
    call = cast.submit()
    cast.run(5.0)
    call.entries[0].updates.clear()
    found(cast.net.check, "has the updates")


def test_background_job_that_is_lost_fails() -> None:
    cast = Cast()
    cast.submit(background=True)
    cast.run(5.0)
    ((execution,),) = cast.net.books.executions.values()
    execution.end = None
    found(cast.net.check, "was acknowledged .* and is lost")


def test_background_job_without_retries_may_be_dropped() -> None:
    cast = Cast(Fault(0.5, "reset", "worker1>server1"), job_retries=0)
    cast.submit(background=True)
    cast.run(1.0)
    cast.net.check()
    assert cast.net.books.counts["background jobs given up"] == 1


def test_submit_repeated_with_the_same_unique_fails() -> None:
    cast = doing()
    unique = cast.call.requests[0].unique.encode()
    found(lambda: cast.net.books.seen(cast.server, b"work", unique, b"data"), "sent .* again")


def test_job_executed_twice_without_a_fault_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.run(5.0)
    ((key, executions),) = cast.net.books.executions.items()
    executions[0]._is_lost = lambda: True
    job = (key[1], "work", None, b"data")
    found(
        lambda: cast.net.books.started(cast.worker, cast.server, lambda: True, job, 6.0, None),
        "and nothing had happened",
    )


def test_execution_of_a_job_never_submitted_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.net.books._submitted.clear()
    found(cast.net.check, "that nobody has submitted")


def test_execution_with_another_unique_fails() -> None:
    cast = Cast()
    cast.client.submit([{"task": "work", "data": b"data", "unique": "mine"}])
    cast.net.books._submitted["work", b"data"] = {"yours"}
    found(cast.net.check, "of another unique")


def test_job_assigned_to_two_workers_fails() -> None:
    cast = doing()
    ((key, (first,)),) = cast.net.books.executions.items()
    job = (key[1], "work", None, b"data")
    found(
        lambda: cast.net.books.started(cast.worker, cast.server, first._is_lost, job, 0.6, None),
        "has had since .* and has not lost",
    )
    late = Execution(key, b"data", cast.worker, first._is_lost, 0.5, 1.5)
    assert not late.may_be_again(0.4)
    assert late.may_be_again(0.6)


def test_job_of_a_stopped_worker_may_run_again() -> None:
    """Allow a second execution: the server may keep the connection until its output is flushed."""
    cast = doing()
    ((execution,),) = cast.net.books.executions.values()
    assert not execution.may_be_again(0.6)
    (end,) = cast.worker.ends.values()
    end.peer.has_ended = True
    assert execution.may_be_again(0.6)


@pytest.mark.parametrize(("seconds", "losses"), [(59.9, 0), (60.1, 1)])
def test_stopping_worker_gives_up_after_a_minute(seconds: float, losses: int) -> None:
    cast = doing()
    (end,) = cast.worker.ends.values()
    cast.net.leaving.add("worker1")
    end.link.connection.receive_data(b"\0RES")
    end.link.since = cast.net.now - seconds
    cast.worker._forget(end, closes=True)
    assert cast.net.books.counts["workers' losses"] == losses


def test_worker_with_more_jobs_than_slots_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.submit()
    cast.worker.max_jobs = 0
    found(cast.net.check, "it wants 0")


def test_job_of_a_closed_connection_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.submit()
    cast.run(0.5)
    (run,) = cast.worker.runs
    cast.worker.ends.clear()
    found(lambda: cast.worker._start(run.job), "of a connection that is no more")


def test_connected_worker_that_reports_a_loss_fails() -> None:
    cast = doing()

    def send(*args: Any, **options: Any) -> Wait:
        return Wait(None, lambda: None).refuse(ConnectionError("lost"))

    cast.worker.engine.send = send  # type: ignore[method-assign]
    found(cast.net.check, "although it is connected")


def test_ability_unknown_to_the_server_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.worker.registered["more"] = None
    found(cast.net.check, "which server1 does not know")


def test_worker_that_does_not_report_failed_connects_fails() -> None:
    cast = Cast(Fault(0.0, "crash", "server1", 30.0))
    cast.worker.engine._untried.add(object())  # type: ignore[union-attr, arg-type]
    found(lambda: cast.run(1.0), "in vain, and does not say so")


def test_worker_that_does_not_poll_fails() -> None:
    cast = Cast()
    cast.worker.engine._look_again = 1000.0
    cast.run(1.0)
    found(cast.net.check, "has not looked for jobs since")


def test_worker_that_neither_sleeps_nor_grabs_fails() -> None:
    cast = Cast()
    cast.server.engine._handlers[PreSleep] = lambda *args: None
    cast.run(2.0)
    cast.submit()
    found(lambda: cast.run(1.0), "neither sleeps nor asks again")


def test_worker_that_closes_before_its_result_arrives_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.run(2.003)
    while cast.worker.runs:
        cast.run(0.0001)
    (link,) = cast.worker.ends
    cast.worker.stop()
    cast.worker.engine._close(link, ConnectionError("bye"), cast.net.now)
    found(cast.worker.pump, "before its last result has arrived: .'H:server1-0:")


# Healthy connections.

SLOW = (20_000.0, 20_000.0)


def given_up(cast: Cast, node: Any) -> None:
    """Make the engine of `node` close its first connection."""
    end = next(iter(node.ends.values()))
    node.engine._actions.append(Close(end.link))
    node.pump()


@pytest.mark.parametrize("name", ["client", "worker", "server"])
@pytest.mark.parametrize("kind", [None, "throttle"])
def test_engine_that_closes_a_healthy_connection_fails(name: str, kind: str | None) -> None:
    faults = [Fault(0.2, kind, "client1>server1", 9.0)] if kind else []
    cast = Cast(*faults, bandwidth=SLOW)
    cast.submit()
    cast.run(0.5)
    found(lambda: given_up(cast, getattr(cast, name)), f"{name}1 gives up .* last heard at 0.0")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(0.2, "stall", "client1>server1", 0.1),
        Fault(0.2, "freeze", "server1", 0.1),
        Fault(0.2, "freeze", "client1", 0.1),
        Fault(0.2, "crash", "server1", 9.0),
        Fault(0.5, "hang-up", "client1>server1"),
    ],
    ids=str,
)
def test_engine_may_close_a_connection_after_a_fault(fault: Fault) -> None:
    cast = Cast(fault, bandwidth=SLOW)
    cast.submit()
    cast.run(0.1)
    (end,) = cast.client.ends.values()
    assert end.is_healthy()
    cast.run(0.4)
    assert not end.is_healthy()


def test_engine_may_close_a_slow_connection() -> None:
    cast = Cast(bandwidth=(19_999.0, 19_999.0))
    cast.submit()
    cast.run(0.5)
    given_up(cast, cast.client)


def test_engine_may_close_healthy_connections_at_its_end() -> None:
    cast = Cast(bandwidth=SLOW)
    cast.submit()
    cast.run(0.5)
    cast.client.close()
    assert not cast.client.ends
    cast.admin.ask(text.shutdown(graceful=False))
    cast.run(1.0)
    assert not [end for end in cast.server.ends.values() if end.link.is_up]


# Ends of the workers' `work` calls.


def end(cast: Cast, error: Exception | None) -> None:
    stream = cast.worker.stream
    assert stream is not None
    stream.error = error
    stream.finish()
    cast.worker.pump()


def test_work_that_returns_without_stop_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    found(lambda: end(cast, None), "was not told to")


def test_work_that_raises_an_unexpected_error_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    found(lambda: end(cast, GearmanError("bug")), "has ended its work with")


def test_work_that_returns_before_its_jobs_fails() -> None:
    cast = doing()
    cast.worker.stop()
    found(lambda: end(cast, None), "and has 1 jobs")


def test_work_that_never_returns_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.worker.engine.stop = lambda now, timeout=None: None  # type: ignore[method-assign, misc]
    found(cast.net.check, "worker1 does not stop")


def test_work_that_never_returns_after_a_clock_fault_fails() -> None:
    cast = Cast(Fault(0.1, "clock", "server1", 1.0))
    cast.run(0.5)
    cast.worker.engine.stop = lambda now, timeout=None: None  # type: ignore[method-assign, misc]
    found(cast.net.check, "worker1 does not stop")


# Calls.


def test_call_with_a_late_deadline_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = Cast()
    cast.run(0.5)
    monkeypatch.setattr(
        Timers, "next_deadline", lambda self: (self._heap and self._heap[0][0] + 0.1) or None
    )
    cast.submit(timeout=1.0)
    found(cast.net.check, "should have been over at 1.5")


def test_call_that_returns_late_fails() -> None:
    cast = Cast()
    call = cast.submit(timeout=1.0)
    cast.client._wake = lambda: False  # type: ignore[method-assign]
    cast.run(1.0)
    cast.net.now = 1.5
    found(lambda: cast.client._return(call), "seconds too late")


@pytest.mark.parametrize(("timeout", "problem"), [(1.0, "too early"), (None, "has no timeout")])
def test_call_that_times_out_early_fails(timeout: float | None, problem: str) -> None:
    cast = Cast()
    call = cast.submit(timeout=timeout)
    cast.run(0.5)
    call.wait.expire(cast.net.now)
    found(cast.client.pump, problem)


def test_call_that_returns_before_its_request_ends_fails() -> None:
    cast = doing()
    cast.call.wait.finish()
    found(cast.client.pump, "is still under way")


def test_call_that_never_returns_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.client._make = lambda node: cast.client.engine
    call = cast.submit()
    call.wait.wake = lambda: None
    found(lambda: cast.net.check(patience=10.0), "not everything ends: .*submit")


def test_job_without_a_worker_fails() -> None:
    cast = Cast()
    cast.client.submit([{"task": "nothing", "data": b""}])
    found(
        lambda: cast.net.check(patience=10.0), r"not everything ends: .* \[request 0 of client1\]"
    )


def test_admin_client_that_rejects_a_valid_reply_fails() -> None:
    cast = Cast()
    call = cast.admin.ask(text.version())
    assert call.wait is not None
    call.wait.fail(RemoteProtocolError("nonsense"))
    found(cast.admin.pump, "has raised .*nonsense")


def test_admin_client_that_closes_a_working_connection_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.admin.receive = lambda end, data: None  # type: ignore[method-assign]
    cast.admin.ask(text.version(), timeout=1.0)
    found(lambda: cast.run(2.0), "admin1 closes a connection")


def test_client_that_ignores_a_known_status_fails() -> None:
    cast = Cast()
    cast.client.submit([{"task": "work", "data": b"data", "unique": "mine"}], background=True)
    cast.run(0.5)

    class Deaf(GearmanJobRequest):
        _gm_status: Any = property(lambda self: None, lambda self, status: None)

    cast.client.statuses([Deaf.from_unique("mine")])
    found(lambda: cast.run(0.5), "was not told of")


def test_client_that_closes_with_an_abandoned_request_fails() -> None:
    cast = doing()
    call = cast.call
    cast.client.give_up(call)
    close = partial(lie, call.requests[0], state=JOB_UNKNOWN)
    cast.client.engine.close = lambda now: close()  # type: ignore[method-assign]
    found(cast.client.close, "has ended, and with it")


def test_client_that_exceeds_its_window_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.engines.client.engine._WINDOW", 10_000)
    cast = Cast()
    jobs = [{"task": "work", "data": b"%d" % number} for number in range(5000)]
    cast.client.submit(jobs, background=True)
    found(lambda: cast.run(1.0), "does not wait for")


def test_client_that_closes_without_a_fault_fails() -> None:
    cast = doing()
    (link,) = cast.client.ends
    cast.client.engine._close(link, ConnectionError("why not"), 0.5)
    found(cast.client.pump, "and nothing has happened")


def test_client_that_waits_for_a_silent_server_fails() -> None:
    cast = Cast(Fault(0.5, "freeze", "server1", 200.0))
    client = cast.net.client([cast.server], heartbeat=2.0)
    client.submit([{"task": "work", "data": b"data"}])
    client.engine._heartbeat = 100.0
    found(lambda: cast.run(60.0), "silent since")


# Nodes.


def test_node_that_writes_to_a_lost_connection_fails() -> None:
    cast = Cast(Fault(0.5, "reset", "client1>server1"))
    cast.submit()
    cast.run(0.4)
    send = cast.client.engine.data_to_send
    cast.client.engine.data_to_send = (  # type: ignore[method-assign]
        lambda link, now: send(link, now) or (b"" if link.alive else b"more")
    )
    found(lambda: cast.run(1.0), "writes on .* which is no more")


def test_node_that_closes_a_connection_twice_fails() -> None:
    cast = doing()
    (link,) = cast.client.ends
    cast.client.ends.clear()
    cast.client.engine._tell_close(link)
    found(cast.client.pump, "which it has closed, or was lost")


def test_node_that_spins_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.client.engine.next_deadline = lambda: 0.0  # type: ignore[method-assign]
    cast.client.pump()
    found(lambda: cast.run(1.0), "client1 spins")


def test_node_that_reconnects_without_a_delay_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = Cast(Fault(0.5, "crash", "server1", 30.0))
    monkeypatch.setattr(
        "gearman_proto.engines.servers.Server.failed", lambda self, error, now, rng: None
    )
    found(lambda: cast.run(20.0), "worker1 tries to connect again and again")


def test_network_whose_time_stands_still_fails() -> None:
    net = Network(random.Random)
    node = Cast().client
    node.net = net

    def again() -> None:
        net.steps += 1000
        net.schedule(net.now, again)

    net.schedule(1.0, again)
    found(net.run, "no time passes any more")


# Audits of the server engine.


def of_server(cast: Cast) -> Any:
    return cast.server.engine


def with_job(cast: Cast) -> tuple[Any, Any]:
    """Return the server's engine and its only job."""
    (job,) = cast.server.engine.queue.jobs.values()
    return cast.server.engine, job


def test_submit_that_is_not_coalesced_fails() -> None:
    cast = Cast()
    job = {"task": "work", "data": b"data", "unique": "mine"}
    cast.client.submit([job], background=True)
    cast.run(0.5)
    of_server(cast).queue.by_key.clear()
    cast.client.submit([job], background=True)
    found(lambda: cast.run(0.5), "was not joined to")


def test_worker_that_is_not_woken_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    of_server(cast)._wake = lambda link: None
    cast.submit()
    found(lambda: cast.run(0.5), "sleeps on although")


def test_worker_refused_an_available_job_fails() -> None:
    cast = Cast()
    cast.submit()
    of_server(cast).queue.next_job = lambda link: None
    found(lambda: cast.run(1.0), "was let sleep|was given")


def test_pre_sleep_accepted_with_jobs_queued_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.submit()
    cast.submit()
    cast.run(0.5)
    engine = of_server(cast)
    engine.queue.next_job = lambda link: None
    (link,) = [link for link in engine.links if link.abilities]
    found(lambda: engine._on_pre_sleep(link, None, (), 1.0), "was let sleep although")


def test_job_assigned_out_of_order_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.submit()
    cast.submit()
    cast.run(1.0)
    queue = of_server(cast).queue
    cast.client.submit([{"task": "work", "data": b"3", "priority": PRIORITY_HIGH}])
    cast.run(0.5)
    waiting = [job for job in queue.jobs.values() if job.state is JobState.QUEUED]
    queue.next_job = lambda link: waiting[0]
    found(lambda: cast.run(5.0), "which is next")


@pytest.mark.parametrize(
    ("seconds", "problem"), [(0.5, "after 0.5 seconds|after 0.49"), (2.5, "seconds too late")]
)
def test_job_timed_out_too_early_or_late_fails(seconds: float, problem: str) -> None:
    cast = doing(limit=1.5)
    engine, job = with_job(cast)
    since, limit = engine._begun[job]
    assert limit == 1.5
    found(lambda: engine._take_away(job, since + seconds), problem)


def test_job_dropped_before_its_retries_are_used_fails() -> None:
    cast = doing()
    engine, job = with_job(cast)
    engine._job_retries = 0
    job.worker.state = None
    found(lambda: engine._take_away(job, 0.6), "was lost 1 times, and is ENDED")


def test_job_in_an_unreported_state_fails() -> None:
    cast = doing()
    engine, job = with_job(cast)
    job.state = JobState.QUEUED
    found(engine.check, "which nobody was told")
    job.state = JobState.DELAYED
    found(engine.check, "is DELAYED since")


def test_submit_coalesced_with_another_job_fails() -> None:
    cast = Cast()
    job = {"task": "work", "data": b"data", "unique": "mine"}
    cast.client.submit([job], background=True)
    cast.run(0.5)
    engine, there = with_job(cast)
    engine.queue.find = lambda name, key: there
    cast.submit(background=True)
    found(lambda: cast.run(0.5), "was joined to another job")


def test_submits_without_a_unique_are_not_coalesced() -> None:
    cast = Cast()
    cast.run(0.5)
    engine = of_server(cast)
    link = engine.accept("stranger", 99, 0.5)
    packet = Connection(Role.CLIENT).send(SubmitJobBg(b"more", b"", b"data"))
    engine.receive_data(link, packet * 2, 0.5)
    assert len(engine.queue.jobs) == 2


def test_queue_longer_than_its_limit_fails() -> None:
    cast = Cast()
    of_server(cast)._most = 1
    cast.submit()
    cast.submit()
    found(lambda: cast.run(0.5), "more than 1")


def test_worker_not_woken_for_a_new_function_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.client.submit([{"task": "more", "data": b""}])
    cast.run(0.5)
    engine = of_server(cast)
    (link,) = [link for link in engine.links if link.abilities]
    engine._wake = lambda link: None
    found(lambda: engine._add_ability(link, b"more", 0), "to do for it now")


def test_running_job_requeued_on_cant_do_fails() -> None:
    cast = doing()
    engine, job = with_job(cast)
    found(lambda: engine._on_cant_do(job.worker, None, (b"work",), 0.5), "gearmand takes it away")


def test_timeout_that_causes_a_worker_error_fails() -> None:
    cast = doing(limit=1.5)
    engine, job = with_job(cast)
    engine._leave_before_its_end = engine._leave_worker
    since, limit = engine._begun[job]
    found(lambda: engine._take_away(job, since + limit), "would get an error")


def test_wrong_job_count_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.client.submit([{"task": "work", "data": b"2", "priority": PRIORITY_HIGH}])
    cast.run(0.5)
    right = cast.admin.ask(text.prioritystatus())
    cast.run(0.5)
    assert right.value[0].high == 0
    (function,) = of_server(cast).queue.functions.values()
    function.delayed += 1
    cast.admin.ask(text.prioritystatus())
    found(lambda: cast.run(0.5), "there wait")


# Leftover state.


def test_engine_with_wrong_accounting_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.run(5.0)
    cast.server.engine.queue.memory += 1
    found(cast.net.check, "AssertionError")


def test_engine_with_a_leftover_watcher_fails() -> None:
    cast = Cast()
    cast.run(0.5)
    cast.client.engine._watchers.add(Stream((), None, lambda: None))
    found(cast.net.check, "at the end: AssertionError")


def test_worker_without_functions_counts_as_connected() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.0, "flaky", "server1", 8.0)])
    worker = net.worker([net.server()], {"f": lambda job: b""})
    net.schedule(0.1, worker.stop)
    net.schedule(0.2, worker.unregister, "f")
    net.schedule(0.5, worker.work)
    net.schedule(3.0, worker.register, "f")
    net.run(until=20.0)
    net.check()
