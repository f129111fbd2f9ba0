"""Lying doubles that violate one invariant each, and the simulated network's check for it."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
)
from gearman_proto.engines.base import Close
from gearman_proto.engines.server.jobqueue import MOST_CANDIDATES, JobState
from gearman_proto.engines.timers import Timers
from gearman_proto.engines.waits import Subscription, Wait
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    RemoteProtocolError,
    ServerUnavailable,
)
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.updates import JobData
from gearman_proto.testing import Fault, Network, SimulationError
from gearman_proto.testing.books import Execution
from gearman_proto.wire import text
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import PreSleep, Role, SubmitJobBg

from .cast import Cast, reverse

MINE = {"unique": "mine"}
HIGH = {"priority": PRIORITY_HIGH}


@pytest.fixture
def idle() -> Cast:
    """All nodes are connected."""
    cast = Cast()
    cast.run(0.5)
    return cast


@pytest.fixture
def doing() -> Cast:
    """The worker executes a job."""
    cast = Cast()
    cast.submit()
    cast.run(0.5)
    return cast


@pytest.fixture
def done(doing: Cast) -> Cast:
    """The worker has executed a job."""
    doing.run(4.5)
    return doing


@pytest.fixture
def limited() -> Cast:
    """The worker executes a job with a time limit of 1.5 seconds."""
    cast = Cast()
    cast.worker.limit = 1.5
    cast.worker.register("slowly")
    cast.submit()
    cast.run(0.5)
    return cast


def lie(request: Any, **values: Any) -> None:
    """Overwrite attributes of a request, as a faulty engine would."""
    for name, value in values.items():
        setattr(request, name, value)


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing, in place of a method."""


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
    doing: Cast, values: dict[str, Any], problem: str
) -> None:
    lie(doing.request, **values)
    doing.fails(problem, partial(doing.books.told, doing.entry))


@pytest.mark.parametrize("unique", [None, "mine"])
def test_request_with_the_handle_of_another_job_fails(doing: Cast, unique: str | None) -> None:
    first = doing.request
    doing.submit(data=b"other", job={"unique": unique})
    doing.run(0.5)
    doing.request.job.handle = first.job.handle
    doing.fails("has the handle of another job", partial(doing.books.told, doing.entry))


def test_background_job_with_a_result_fails(idle: Cast) -> None:
    idle.submit(background=True)
    idle.run(5.0)
    lie(idle.request, state=JOB_COMPLETE, _gm_raw_result=b"result")
    idle.entry.outcome = None
    idle.fails("although no call waits", partial(idle.books.told, idle.entry))


def test_request_lost_although_servers_were_reachable_fails() -> None:
    cast = Cast("0.4 reset client1>server1 0.0")
    cast.run(0.3)
    cast.submit()
    cast.run(0.2)
    cast.entry.outcome = None
    lie(cast.request, state=JOB_UNKNOWN, error=ServerUnavailable("none"))
    cast.fails("all servers were reached", partial(cast.books.told, cast.entry))


def test_request_that_ends_twice_fails(done: Cast) -> None:
    lie(done.request, state=JOB_FAILED)
    done.fails("had ended with")


def test_request_that_never_ends_fails(done: Cast) -> None:
    done.entry.outcome = None
    lie(done.request, _gm_link=object())
    done.books.open.clear()
    done.fails("request 0 of client1 has not ended")


@pytest.mark.parametrize("job", [{}, MINE])
def test_update_that_no_execution_sent_fails(idle: Cast, job: dict[str, Any]) -> None:
    idle.submit(job=job)
    idle.run(5.0)
    idle.entry.updates.append(JobData(b"more"))
    idle.fails("has the updates")


def test_update_that_is_missing_fails(done: Cast) -> None:
    done.entry.updates.clear()
    done.fails("has the updates")


def test_failed_job_that_was_not_cancelled_fails(doing: Cast) -> None:
    doing.server.call(doing.engine.cancel, doing.job)
    doing.fails("which no execution of it did", 0.5)


def cancel(cast: Cast, by: str) -> None:
    """Cancel the only job at the server, as the node `by`."""
    link = next(link for link in cast.engine.links if link.peer == by)
    cast.engine.receive_data(link, b"cancel job " + cast.job.handle + b"\n", cast.net.now)
    cast.server.pump()


def test_client_that_cancels_a_job_by_itself_fails(doing: Cast) -> None:
    doing.fails("which its application has not", partial(cancel, doing, "client1"))


def test_admin_client_may_cancel_any_job(doing: Cast) -> None:
    doing.admin.ask(text.cancel_job(doing.job.handle))
    doing.net.check()
    assert doing.request.state == JOB_FAILED


@pytest.mark.parametrize(
    "values",
    [
        {"error": GearmanError("the job was cancelled by this client")},
        {"error": ConnectionError("reset")},
        {"error": GearmanError("why"), "job": None},
        {"_gm_raw_exception": b"no"},
    ],
    ids=str,
)
def test_request_that_was_not_cancelled_by_its_client_fails(
    doing: Cast, values: dict[str, Any]
) -> None:
    doing.books.cancelled.add(doing.execution.key)
    if "job" in values:
        values = {"error": values["error"], "_gm_handle": None}
    lie(doing.request, state=JOB_FAILED, **values)
    doing.fails("request 0 of client1 has failed", partial(doing.books.told, doing.entry))


def test_cancelled_request_that_changes_again_fails(doing: Cast) -> None:
    doing.client.cancel([doing.request])
    doing.run(0.5)
    lie(doing.request, error=GearmanError("another reason"))
    doing.fails("had ended with", partial(doing.books.told, doing.entry))


def test_reason_of_a_cancelled_request_may_follow_its_end(doing: Cast) -> None:
    doing.client.cancel([doing.request])
    doing.run(0.5)
    entry: Any = doing.entry
    *outcome, reason = entry.outcome
    entry.outcome = (*outcome, None)
    doing.net.check()
    assert entry.outcome[-1] is reason is not None


def test_cancelled_job_that_stays_at_its_server_fails(doing: Cast) -> None:
    doing.engine.cancel = nothing
    doing.client.cancel([doing.request])
    doing.fails("was cancelled, and server1 still has its job", 0.5)


def test_cancelled_request_that_stays_under_way_fails(
    doing: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gearman_proto.engines.client.cancelling.Cancel._end_job", nothing)
    doing.engine._tell = nothing
    doing.client.cancel([doing.request])
    doing.fails("was cancelled, and is still under way", 0.5)


def test_abandoned_job_of_another_call_that_is_cancelled_fails(
    doing: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gearman_proto.engines.client.engine.is_followed", lambda request: False)
    doing.submit(data=b"2", timeout=1.0, cancel_if_abandoned=True)
    doing.client.wait([doing.request])
    doing.fails("which its application has not", 2.0)


def test_background_job_that_is_lost_fails(idle: Cast) -> None:
    idle.submit(background=True)
    idle.run(5.0)
    idle.execution.end = None
    idle.fails("was acknowledged .* and is lost")


def test_background_job_without_retries_may_be_dropped() -> None:
    cast = Cast("0.5 reset worker1>server1 0.0", server={"job_retries": 0})
    cast.submit(background=True)
    cast.run(1.0)
    cast.net.check()
    assert cast.books.counts["background jobs given up"] == 1


def test_submit_repeated_with_the_same_unique_fails(doing: Cast) -> None:
    job = (b"slowly", (doing.request.unique or "").encode(), b"data")
    doing.fails("sent .* again", partial(doing.books.seen, doing.server, *job))


def test_job_executed_twice_without_a_fault_fails(done: Cast) -> None:
    done.execution.is_lost = lambda: True
    done.fails("and nothing had happened", done.start_again)


def test_execution_of_a_job_never_submitted_fails(idle: Cast) -> None:
    idle.submit()
    idle.books._submitted.clear()
    idle.fails("that was not submitted")


def test_execution_with_another_unique_fails(idle: Cast) -> None:
    idle.submit(job=MINE)
    idle.books._submitted["slowly", b"data"] = {"yours"}
    idle.fails("of another unique")


def test_job_assigned_to_two_workers_fails(doing: Cast) -> None:
    first = doing.execution
    doing.fails("has had since .* and has not lost", doing.start_again)
    late = Execution(first.key, b"data", doing.worker, first.is_lost, 0.5, 1.5)
    assert not late.may_be_again(0.4)
    assert late.may_be_again(0.6)


def test_job_of_a_stopped_worker_may_run_again(doing: Cast) -> None:
    """Allow a second execution: the server may keep the connection until its output is flushed."""
    assert not doing.execution.may_be_again(0.6)
    (end,) = doing.worker.ends.values()
    end.peer.has_ended = True
    assert doing.execution.may_be_again(0.6)


@pytest.mark.parametrize(("seconds", "losses"), [(59.9, 0), (60.1, 1)])
def test_stopping_worker_gives_up_after_a_minute(doing: Cast, seconds: float, losses: int) -> None:
    (end,) = doing.worker.ends.values()
    doing.net.leaving.add("worker1")
    end.link.connection.receive_data(b"\0RES")
    end.link.since = doing.net.now - seconds
    doing.worker._forget(end, closes=True)
    assert doing.books.counts["workers' losses"] == losses


def test_worker_with_more_jobs_than_slots_fails(idle: Cast) -> None:
    idle.submit()
    idle.worker.max_jobs = 0
    idle.fails("it wants 0")


def test_job_of_a_closed_connection_fails(doing: Cast) -> None:
    (run,) = doing.worker.runs
    doing.worker.ends.clear()
    doing.fails("of a connection that is no more", partial(doing.worker._start, run.job))


def test_connected_worker_that_reports_a_loss_fails(doing: Cast) -> None:
    lost = Wait(None, lambda: None).refuse(ConnectionError("lost"))
    doing.worker.engine.send = lambda *_: lost
    doing.fails("although it is connected")


def test_ability_unknown_to_the_server_fails(idle: Cast) -> None:
    idle.worker.registered["more"] = None
    idle.fails("which server1 does not know")


def test_worker_that_does_not_report_failed_connects_fails() -> None:
    cast = Cast("0.0 crash server1 30.0")
    cast.worker.engine._untried.add(object())
    cast.fails("in vain, and does not say so", 1.0)


def test_worker_that_does_not_poll_fails() -> None:
    cast = Cast()
    cast.worker.engine._poll_interval = 1000.0
    cast.fails("has not looked for jobs since")


def test_worker_that_neither_sleeps_nor_grabs_fails() -> None:
    cast = Cast()
    cast.engine._handlers[PreSleep] = nothing
    cast.run(2.0)
    cast.submit()
    cast.fails("neither sleeps nor asks again", 1.0)


def test_worker_that_closes_before_its_result_arrives_fails() -> None:
    cast = Cast()
    cast.submit()
    cast.run(2.003)
    while cast.worker.runs:
        cast.run(0.0001)
    (link,) = cast.worker.ends
    cast.worker.stop()
    cast.worker.engine._close(link, ConnectionError("bye"), cast.net.now)
    cast.fails("before its last result has arrived: .'H:server1-0:", cast.worker.pump)


# Streams of jobs.


@pytest.fixture
def streaming() -> Cast:
    """The client has submitted the first two jobs of a stream of three."""
    cast = Cast()
    job = {"task": "slowly", "data": b"data"}
    cast.call = cast.client.results([job] * 3, 2)
    cast.run(0.5)
    return cast


def test_stream_that_exceeds_its_window_fails(streaming: Cast) -> None:
    streaming.call.wait._free = 1
    feed = partial(streaming.client._feed, streaming.call, streaming.call.wait)
    streaming.fails("has more than 2 jobs in flight", feed)


def test_stream_that_yields_a_request_before_its_end_fails(streaming: Cast) -> None:
    streaming.call.wait.finished.append(streaming.call.requests[0])
    streaming.fails("twice, or before its end", 5.0)


def test_stream_that_ends_early_fails(streaming: Cast) -> None:
    streaming.call.wait.end_of_jobs()
    streaming.fails("has yielded only 2 requests", 9.0)


# Workers that pull.


@pytest.fixture
def pulling() -> Cast:
    """The worker waits for a job in `grab`."""
    cast = Cast(worker={"pull": True, "grab_timeout": 2.0})
    cast.run(0.5)
    return cast


def test_grab_that_returns_nothing_before_its_timeout_fails(pulling: Cast) -> None:
    wait = next(iter(pulling.worker._grabs))
    wait.finish()
    pulling.fails("was given no job before the timeout", pulling.worker.pump)


def test_grab_that_returns_late_fails(pulling: Cast) -> None:
    pulling.worker.engine._on_grab_timeout = nothing
    pulling.fails("should have returned from grab by 5.0", 6.0)


def test_grab_of_a_frozen_worker_may_return_late() -> None:
    cast = Cast("1.0 freeze worker1 5.0", worker={"pull": True, "grab_timeout": 2.0})
    cast.run(5.0)
    cast.net.check()


def test_grab_that_never_returns_after_stop_fails(pulling: Cast) -> None:
    pulling.worker.engine.stop = nothing
    pulling.fails("worker1 does not stop")


def test_grab_timeout_is_checked() -> None:
    with pytest.raises(ValueError, match="grab_timeout"):
        Cast(worker={"pull": True, "grab_timeout": 0.0})


# Healthy connections.


def slow(*faults: str, rate: float = 20_000.0) -> Cast:
    """Return a cast with a slow network, whose client has submitted a job."""
    cast = Cast(*faults, bandwidth=(rate, rate))
    cast.submit()
    cast.run(0.1)
    return cast


def give_up(node: Any) -> None:
    """Make the engine of `node` close its first connection."""
    node.engine._actions.append(Close(next(iter(node.ends))))
    node.pump()


@pytest.mark.parametrize("name", ["client", "worker", "server"])
@pytest.mark.parametrize("faults", [[], ["0.2 throttle client1>server1 9.0"]])
def test_engine_that_closes_a_healthy_connection_fails(name: str, faults: list[str]) -> None:
    cast = slow(*faults)
    cast.run(0.4)
    cast.fails(f"{name}1 gives up .* last heard at 0.0", partial(give_up, getattr(cast, name)))


@pytest.mark.parametrize(
    "fault",
    [
        "0.2 stall client1>server1 0.1",
        "0.2 freeze server1 0.1",
        "0.2 freeze client1 0.1",
        "0.2 crash server1 9.0",
        "0.5 hang-up client1>server1 0.0",
    ],
    ids=str,
)
def test_engine_may_close_a_connection_after_a_fault(fault: str) -> None:
    cast = slow(fault)
    (end,) = cast.client.ends.values()
    assert end.is_healthy()
    cast.run(0.4)
    assert not end.is_healthy()


def test_engine_may_close_a_slow_connection() -> None:
    give_up(slow(rate=19_999.0).client)


def test_engine_may_close_healthy_connections_at_its_end() -> None:
    cast = slow()
    cast.client.close()
    assert not cast.client.ends
    cast.admin.ask(text.shutdown(graceful=False))
    cast.run(1.0)
    assert not [end for end in cast.server.ends.values() if end.link.is_up]


# Ends of the workers' `work` calls.


def end(cast: Cast, error: Exception | None) -> None:
    cast.worker.subscription.error = error
    cast.worker.subscription.finish()
    cast.worker.pump()


@pytest.mark.parametrize(
    ("error", "problem"),
    [(None, "was not told to"), (GearmanError("bug"), "has ended its work with")],
)
def test_work_that_ends_by_itself_fails(idle: Cast, error: Any, problem: str) -> None:
    idle.fails(problem, partial(end, idle, error))


def test_work_that_returns_before_its_jobs_fails(doing: Cast) -> None:
    doing.worker.stop()
    doing.fails("and has 1 jobs", partial(end, doing, None))


@pytest.mark.parametrize("faults", [[], ["0.1 clock server1 1.0"]])
def test_work_that_never_returns_fails(faults: list[str]) -> None:
    cast = Cast(*faults)
    cast.run(0.5)
    cast.worker.engine.stop = nothing
    cast.fails("worker1 does not stop")


# Calls.


def test_call_with_a_late_deadline_fails(idle: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Timers, "next_deadline", lambda self: (self._heap and self._heap[0][0] + 0.1) or None
    )
    idle.submit(timeout=1.0)
    idle.fails("should have finished at 1.5")


def test_call_that_returns_late_fails() -> None:
    cast = Cast()
    cast.submit(timeout=1.0)
    cast.client._wake = lambda: False
    cast.run(1.0)
    cast.net.now = 1.5
    cast.fails("seconds too late", partial(cast.client._return, cast.call))


@pytest.mark.parametrize(("timeout", "problem"), [(1.0, "too early"), (None, "has no timeout")])
def test_call_that_times_out_early_fails(timeout: float | None, problem: str) -> None:
    cast = Cast()
    cast.submit(timeout=timeout)
    cast.run(0.5)
    cast.call.wait.expire(cast.net.now)
    cast.fails(problem, cast.client.pump)


def test_call_that_returns_before_its_request_ends_fails(doing: Cast) -> None:
    doing.call.wait.finish()
    doing.fails("is still under way", doing.client.pump)


def test_job_without_a_worker_fails(idle: Cast) -> None:
    idle.submit("more")
    problem = "not everything ends: .*, request 0 of client1"
    idle.fails(problem, lambda: idle.net.check(patience=10.0))


def test_admin_client_that_rejects_a_valid_reply_fails(idle: Cast) -> None:
    wait: Any = idle.admin.ask(text.version()).wait
    wait.fail(RemoteProtocolError("nonsense"))
    idle.fails("has raised .*nonsense", idle.admin.pump)


def test_client_that_ignores_a_known_status_fails(idle: Cast) -> None:
    idle.submit(job=MINE, background=True)
    idle.run(0.5)

    class Deaf(GearmanJobRequest):
        _gm_status: Any = property(lambda self: None, lambda self, status: None)

    idle.client.statuses([Deaf.from_unique("mine")])
    idle.fails("was not told of", 0.5)


def test_client_that_closes_with_an_abandoned_request_fails(doing: Cast) -> None:
    doing.client.give_up(doing.call)
    doing.client.engine.close = lambda now: lie(doing.request, state=JOB_UNKNOWN)
    doing.fails("has ended, and with it", doing.client.close)


def test_client_that_exceeds_its_window_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.engines.client.engine._WINDOW", 10_000)
    cast = Cast()
    cast.client.submit([{"task": "f", "data": b"%d" % n} for n in range(5000)], background=True)
    cast.fails("does not wait for", 1.0)


def test_client_that_closes_without_a_fault_fails(doing: Cast) -> None:
    (link,) = doing.client.ends
    doing.client.engine._close(link, ConnectionError("why not"), 0.5)
    doing.fails("and nothing has happened", doing.client.pump)


def test_client_that_waits_for_a_silent_server_fails() -> None:
    cast = Cast("0.5 freeze server1 200.0")
    client = cast.net.client([cast.server], heartbeat=2.0)
    client.submit([{"task": "slowly", "data": b""}])
    client.engine._heartbeat = 100.0
    cast.fails("silent since", 60.0)


# Nodes.


def test_node_that_writes_to_a_lost_connection_fails() -> None:
    cast = Cast("0.5 reset client1>server1 0.0")
    cast.submit()
    cast.run(0.4)
    send = cast.client.engine.data_to_send
    cast.client.engine.data_to_send = lambda link, now: (
        send(link, now) or (b"" if link.alive else b"more")
    )
    cast.fails("writes on .* which is no more", 1.0)


def test_node_that_closes_a_connection_twice_fails(doing: Cast) -> None:
    (link,) = doing.client.ends
    doing.client.ends.clear()
    doing.client.engine._tell_close(link)
    doing.fails("which it has closed, or was lost", doing.client.pump)


def test_node_that_spins_fails(idle: Cast) -> None:
    idle.client.engine.next_deadline = lambda: 0.0
    idle.client.pump()
    idle.fails("client1 spins", 1.0)


def test_node_that_reconnects_without_a_delay_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = Cast("0.5 crash server1 30.0")
    monkeypatch.setattr("gearman_proto.engines.servers.Server.failed", nothing)
    cast.fails("worker1 tries to connect again and again", 20.0)


def test_network_whose_time_stands_still_fails() -> None:
    net = Network(random.Random)

    def again() -> None:
        net.steps += 1000
        net.schedule(net.now, again)

    net.schedule(1.0, again)
    with pytest.raises(SimulationError, match="no time passes any more"):
        net.run()


# Audits of the server engine.


def test_submit_that_is_not_coalesced_fails(idle: Cast) -> None:
    idle.submit(job=MINE, background=True)
    idle.run(0.5)
    idle.engine.queue.by_key.clear()
    idle.submit(job=MINE, background=True)
    idle.fails("was not joined to", 0.5)


def test_submit_coalesced_with_another_job_fails(doing: Cast) -> None:
    there = doing.job
    doing.engine.queue.find = lambda name, key: there
    doing.submit(background=True)
    doing.fails("was joined to another job", 0.5)


def test_submits_without_a_unique_are_not_coalesced(idle: Cast) -> None:
    link = idle.engine.accept("stranger", 99, 0.5)
    packet = Connection(Role.CLIENT).send(SubmitJobBg(b"more", b"", b"data"))
    idle.engine.receive_data(link, packet * 2, 0.5)
    assert len(idle.engine.queue.jobs) == 2


def test_worker_that_is_not_woken_fails(idle: Cast) -> None:
    idle.engine._wake = nothing
    idle.submit()
    idle.fails("sleeps on although", 0.5)


def test_worker_not_woken_for_a_new_function_fails(idle: Cast) -> None:
    idle.submit("more")
    idle.run(0.5)
    (link,) = [link for link in idle.engine.links if link.abilities]
    idle.engine._wake = nothing
    idle.fails("to do for it now", partial(idle.engine._add_ability, link, b"more", 0))


def test_pre_sleep_accepted_with_jobs_queued_fails(doing: Cast) -> None:
    doing.submit()
    doing.run(0.5)
    doing.engine._next_job = nothing
    (link,) = [link for link in doing.engine.links if link.abilities]
    sleep = partial(doing.engine._on_pre_sleep, link, None, (), 1.0)
    doing.fails("was let sleep although", sleep)


def test_job_assigned_out_of_order_fails(doing: Cast) -> None:
    doing.submit()
    doing.run(0.5)
    doing.submit(job=HIGH)
    doing.run(0.5)
    waiting = [job for job in doing.engine.queue.jobs.values() if job.state is JobState.QUEUED]
    doing.engine._next_job = lambda link: waiting[0]
    doing.fails("which is next", 5.0)


def test_worker_of_many_functions_may_be_given_any_of_the_oldest_jobs() -> None:
    net = Network(random.Random, 1)
    server = net.server()
    names = [f"f{number}" for number in range(2 * MOST_CANDIDATES)]
    call = net.client([server]).submit([{"task": name, "data": b""} for name in ["f0", *names]])
    net.run(1.0)
    net.worker([server], dict.fromkeys(names, reverse))
    net.run(60.0)
    assert {request.state for request in call.requests} == {JOB_COMPLETE}


@pytest.mark.parametrize(
    ("seconds", "problem"), [(0.5, "after 0.5 seconds|after 0.49"), (2.5, "seconds too late")]
)
def test_job_timed_out_too_early_or_late_fails(limited: Cast, seconds: float, problem: str) -> None:
    engine, job = limited.engine, limited.job
    since, limit = engine._begun[job]
    assert limit == 1.5
    limited.fails(problem, partial(engine._take_away, job, since + seconds))


def test_timeout_that_causes_a_worker_error_fails(limited: Cast) -> None:
    engine, job = limited.engine, limited.job
    engine._leave_before_its_end = engine._leave_worker
    late = sum(engine._begun[job])
    limited.fails("would get an error", partial(engine._take_away, job, late))


def test_job_dropped_before_its_retries_are_used_fails(doing: Cast) -> None:
    engine, job = doing.engine, doing.job
    engine._job_retries = 0
    job.worker.state = None
    doing.fails("was lost 1 times, and is ENDED", partial(engine._take_away, job, 0.6))


@pytest.mark.parametrize(
    ("state", "problem"),
    [(JobState.QUEUED, "without notice"), (JobState.DELAYED, "is DELAYED since")],
)
def test_job_in_an_unreported_state_fails(doing: Cast, state: JobState, problem: str) -> None:
    doing.job.state = state
    doing.fails(problem, doing.engine.check)


def test_queue_longer_than_its_limit_fails(doing: Cast) -> None:
    doing.engine._most = 1
    doing.submit()
    doing.fails("more than 1", 0.5)


def test_running_job_requeued_on_cant_do_fails(doing: Cast) -> None:
    cant_do = partial(doing.engine._on_cant_do, doing.job.worker, None, (b"slowly",), 0.5)
    doing.fails("gearmand takes it away", cant_do)


def test_wrong_job_count_fails(doing: Cast) -> None:
    doing.submit(job=HIGH)
    right = doing.admin.ask(text.prioritystatus())
    doing.run(0.5)
    assert [row.high for row in right.value] == [0, 1, 0]
    doing.engine.queue.functions[b"slowly"].delayed += 1
    doing.admin.ask(text.prioritystatus())
    doing.fails("there wait", 0.5)


# Leftover state.


def test_engine_with_wrong_accounting_fails(done: Cast) -> None:
    done.engine.queue.memory += 1
    done.fails("AssertionError")


def test_engine_with_a_leftover_watcher_fails(idle: Cast) -> None:
    idle.client.engine._watchers.add(Subscription((), None, nothing))
    idle.fails("at the end: AssertionError")


def test_worker_without_functions_counts_as_connected() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.0, "flaky", "server1", 8.0)])
    worker = net.worker([net.server()], {"f": lambda job: b""})
    net.schedule(0.1, worker.stop)
    net.schedule(0.2, worker.unregister, "f")
    net.schedule(0.5, worker.work)
    net.schedule(3.0, worker.register, "f")
    net.run(until=20.0)
    net.check()
