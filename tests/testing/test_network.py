"""The simulated network: nodes, faults and reproducible runs."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fuzz.simulation import Bytes, check, fails, plan_of
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_UNKNOWN
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    InvalidClientState,
    ServerUnavailable,
)
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing import Fault, Faults, Network, Node, SimulationError
from gearman_proto.testing.faults import KINDS
from gearman_proto.testing.units import decode
from gearman_proto.wire import text
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import EchoReq, Role

from .cast import Cast

if TYPE_CHECKING:
    from collections.abc import Generator

    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.testing import Call
    from gearman_proto.testing.wires import End

ROOT = Path(__file__).parents[2]
MEGABYTE = 1024 * 1024


@pytest.fixture
def cast() -> Cast:
    return Cast()


# Nodes and jobs.


def test_job_runs_from_submit_to_result(cast: Cast) -> None:
    call = cast.submit("reverse")
    assert not call.is_finished
    assert "waits" in repr(call)
    cast.net.run(until=1.0)
    assert call.is_finished
    assert "finished at" in repr(call)
    assert call.finished_at is not None
    assert 0 < call.finished_at < 0.1
    assert cast.request.result == b"atad"
    assert cast.net.now == 1.0
    cast.net.check()
    assert cast.books.counts["executions"] == 1


def test_slow_job_sends_updates_and_a_result(cast: Cast) -> None:
    call = cast.submit(timeout=1.5)
    cast.run(1.4)
    updates = cast.client.updates(cast.request)
    cast.run(0.5)
    assert call.timed_out
    assert call.finished_at == 1.5
    assert [type(update) for update in cast.entry.updates] == [JobProgress, JobData, JobWarning]
    cast.run(1.0)
    assert updates.is_finished
    assert cast.request.result == b"all of data"
    cast.net.check()


@pytest.mark.parametrize("exceptions", [False, True])
def test_job_that_raises_fails(exceptions: bool) -> None:
    cast = Cast(worker={"exceptions": exceptions})
    cast.submit("fail")
    cast.net.check()
    assert cast.request.state == JOB_FAILED
    assert (cast.request.exception is not None) == exceptions


def test_invalid_result_fails_the_job() -> None:
    cast = Cast(worker={"hook_time": 0.5})
    cast.worker.callbacks["fail"] = lambda job: 7
    cast.submit("fail")
    cast.net.check()
    assert cast.request.state == JOB_FAILED


def test_background_job_and_abandoned_call_end(cast: Cast) -> None:
    background = cast.submit(background=True)
    accepted = cast.submit(data=b"1", accepted_only=True)
    given_up = cast.submit(data=b"2")
    cast.run(0.5)
    assert background.is_finished
    assert background.requests[0].state == accepted.requests[0].state == JOB_CREATED
    cast.client.give_up(given_up)
    assert given_up.is_finished
    assert not given_up.timed_out
    cast.client.give_up(given_up)
    cast.client.forget(accepted)
    ended: list[Call] = []
    waits = cast.client.wait(given_up.requests, as_completed=True, then=ended.append)
    cast.net.check()
    assert ended == [waits]
    assert cast.books.counts["background jobs done"] == 1


@pytest.mark.parametrize("background", [False, True])
def test_cancelled_jobs_end(cast: Cast, background: bool) -> None:
    """Cancel a running job, a queued job, one that was not sent, and all of them again."""
    cast.submit(data=b"1", background=background)
    cast.run(0.5)
    running = cast.request
    cast.submit(data=b"2", background=background)
    queued = cast.request
    cast.run(0.2)
    cancels = [cast.client.cancel([running]), cast.client.cancel([queued], timeout=1.0)]
    cast.run(0.5)
    other = cast.net.client([cast.server])
    unsent = other.submit([{"task": "slowly", "data": b"3"}], background=background).requests
    cancels.append(other.cancel(unsent))
    cancels.append(cast.client.cancel([running, queued]))
    cast.net.check()
    assert [call.wait.value for call in cancels] == ["running", "queued", "queued", "unknown"]
    states = [JOB_CREATED, JOB_CREATED] if background else [JOB_FAILED, JOB_FAILED]
    assert [running.state, queued.state] == states
    assert unsent[0].state == JOB_FAILED
    counts = cast.books.counts
    assert counts["executions"] == 1
    assert counts["jobs cancelled"] == 2
    assert counts["background jobs cancelled"] == background


def test_cancelled_job_ends_the_requests_of_other_clients(cast: Cast) -> None:
    other = cast.net.client([cast.server])
    call = other.submit([{"task": "slowly", "data": b"data", "unique": "mine"}])
    cast.submit(job={"unique": "mine"})
    cast.run(0.5)
    cast.client.cancel([cast.request])
    cast.net.check()
    assert call.requests[0].state == cast.request.state == JOB_FAILED
    assert cast.books.counts["requests cancelled"] == 2


@pytest.mark.parametrize("ends", ["gives up", "times out", "fails"])
def test_abandoned_submit_cancels_its_jobs(ends: str) -> None:
    cast = Cast()
    cast.submit(data=b"1")
    cast.run(0.5)
    kept = cast.client.submit(
        [{"task": "slowly", "data": b"2", "unique": "mine"}, {"task": "slowly", "data": b"3"}],
        timeout=1.0 if ends == "times out" else None,
        cancel_if_abandoned=True,
    )
    cast.run(0.2)
    waits = cast.client.wait(kept.requests[1:])
    if ends == "gives up":
        cast.client.give_up(kept)
    elif ends == "fails":
        kept.wait.fail(GearmanError("bug"))
        cast.client.pump()
    cast.run(1.0)
    assert kept.is_finished
    cast.net.check()
    assert waits.is_finished
    assert {request.state for request in kept.requests} == {JOB_COMPLETE}


def test_abandoned_submit_without_other_callers_cancels_its_job(cast: Cast) -> None:
    cast.submit(data=b"1")
    call = cast.submit(data=b"2", timeout=1.0, cancel_if_abandoned=True)
    cast.net.check()
    assert call.timed_out
    assert cast.request.state == JOB_FAILED
    assert cast.books.counts["executions"] == 1


def test_cancellation_that_the_server_does_not_answer_times_out() -> None:
    cast = Cast("0.6 freeze server1 30.0")
    cast.submit()
    cast.run(0.7)
    calls = [cast.client.cancel([cast.request], timeout=timeout) for timeout in (1.0, None)]
    cast.run(20.0)
    assert calls[0].timed_out
    assert "did not answer" in str(calls[1].error)
    cast.net.check()


def test_client_that_cancels_an_unknown_request_raises(cast: Cast) -> None:
    call = cast.submit(timeout=1.0)
    cast.run(0.5)
    lost = call.requests[0]
    lost.state, lost._gm_link, lost.job.handle = JOB_UNKNOWN, None, None
    with pytest.raises(InvalidClientState, match="no handle to cancel"):
        cast.client.cancel([lost])
    assert [*cast.client.calls] == [call]


def test_results_of_a_stream_keep_its_window() -> None:
    cast = Cast(worker={"max_jobs": 5})
    data = [b"%d" % number for number in range(5)]
    jobs = [{"task": "slowly", "data": each} for each in data]
    ended: list[Call] = []
    call = cast.client.results(jobs, 2, then=ended.append)
    late = cast.client.results(jobs[:1], 1, timeout=1.0)
    dropped = cast.client.results(jobs, 1)
    cast.client.give_up(dropped)
    cast.run(1.5)
    assert len(cast.worker.runs) == 4
    assert late.timed_out
    cast.net.check()
    assert [len(each.yielded) for each in (call, late, dropped)] == [5, 0, 0]
    assert ended == [call]
    assert [request.result for request in call.requests] == [b"all of " + each for each in data]
    assert call.finished_at is not None
    assert 6.0 < call.finished_at < 7.0


def test_wait_for_finished_requests_returns_at_once(cast: Cast) -> None:
    call = cast.submit("reverse")
    cast.run(1.0)
    assert cast.client.wait(call.requests).is_finished
    assert cast.client.wait(call.requests, as_completed=True).is_finished
    both = cast.client.submit([{"task": task, "data": b""} for task in ("reverse", "slowly")])
    cast.run(1.0)
    assert not cast.client.wait(both.requests, as_completed=True).is_finished
    cast.net.check()


def test_statuses_and_admin_commands_return_replies(cast: Cast) -> None:
    cast.submit()
    cast.run(1.5)
    ended: list[Call] = []
    statuses = cast.client.statuses(cast.call.requests)
    asked = cast.admin.ask(text.status(), then=ended.append)
    ping = cast.admin.ping()
    cast.run(0.2)
    assert statuses.is_finished
    assert cast.request.status["running"]
    assert ended == [asked]
    assert {row.task for row in asked.value} == {"reverse", "slowly", "fail"}
    assert 0 < ping.value < 0.1
    cast.net.check()


def test_admin_client_of_a_stopped_server_fails(cast: Cast) -> None:
    asked = cast.admin.ask(text.shutdown(graceful=True))
    cast.run(1.0)
    assert asked.is_finished
    assert not cast.server.is_listening
    refused = cast.admin.ask(text.version())
    cast.admin.give_up(cast.admin.ask(text.version(), timeout=None))
    cast.net.check()
    assert isinstance(refused.error, ServerUnavailable)


def test_statuses_of_a_frozen_server_time_out() -> None:
    cast = Cast("0.5 freeze server1 5.0")
    cast.submit()
    cast.run(1.0)
    statuses = cast.client.statuses(cast.call.requests, timeout=1.0)
    cast.run(2.0)
    assert statuses.timed_out
    cast.net.check()


def test_worker_that_stopped_works_again(cast: Cast) -> None:
    cast.submit()
    cast.run(0.5)
    cast.worker.stop()
    cast.worker.work()  # It takes effect as soon as the worker has stopped.
    cast.run(5.0)
    cast.worker.unregister("reverse")
    call = cast.submit("reverse", timeout=5.0)
    cast.run(5.0)
    assert call.timed_out
    cast.worker.register("reverse")
    cast.worker.stop()
    cast.run(2.0)
    cast.worker.stop()
    assert cast.worker.subscription is None
    cast.worker.work()
    cast.worker.work()
    cast.net.check()
    assert cast.request.result == b"atad"


def test_worker_that_gave_up_tries_again() -> None:
    cast = Cast("1.0 crash server1 20.0", worker={"max_outage": 2.0})
    cast.run(10.0)
    assert any("ends its work" in line for line in cast.net.trace.lines())
    call = cast.submit("reverse", timeout=30.0)
    cast.worker.stop()  # The worker is about to restart; the call prevents that.
    cast.run(20.0)
    assert cast.worker.subscription is None
    cast.worker.work()
    cast.net.check()
    assert call.is_finished


def test_submit_beyond_the_queue_limit_is_refused() -> None:
    cast = Cast(server={"max_queue_size": 1})
    cast.submit(data=b"1")
    cast.submit(data=b"2")
    cast.net.check()
    assert cast.request.state == JOB_FAILED
    assert cast.books.counts["requests refused"] == 1


PULL = {"pull": True, "max_jobs": 2}


@pytest.mark.parametrize("exceptions", [False, True])
def test_worker_that_pulls_ends_its_jobs(exceptions: bool) -> None:
    cast = Cast(worker={**PULL, "exceptions": exceptions, "hook_time": 0.5})
    for data in (b"1", b"2", b"3"):
        cast.submit(data=data)
    cast.run(1.5)
    assert [run.execution.data for run in cast.worker.runs] == [b"1", b"2"]
    cast.run(4.0)
    assert cast.request.result == b"all of 3"
    cast.submit("fail")
    cast.submit("reverse")
    cast.net.check()
    assert cast.books.counts["requests complete"] == 4
    assert cast.books.counts["requests failed"] == 1


def test_worker_that_pulls_stops_and_pulls_again() -> None:
    cast = Cast(worker=PULL)
    cast.submit()
    cast.run(0.5)
    cast.worker.stop()
    cast.submit("reverse")
    cast.run(1.0)
    assert len(cast.worker.runs) == 1
    cast.run(5.0)
    assert cast.worker.subscription is None
    assert not cast.worker.ends
    assert cast.request.state == JOB_CREATED
    cast.worker.work()
    cast.run(1.0)
    assert cast.request.result == b"atad"
    cast.worker.stop()
    cast.worker.work()
    cast.run(3.0)
    cast.submit("reverse")
    cast.net.check()
    assert cast.request.result == b"atad"


def test_worker_that_pulls_waits_for_a_server() -> None:
    cast = Cast("0.1 crash server1 9.0", worker={**PULL, "grab_timeout": 3.0, "max_outage": 1.0})
    cast.run(5.0)
    assert cast.worker.subscription is None
    cast.run(10.0)
    cast.submit()
    cast.net.check()
    assert cast.request.state == JOB_COMPLETE


def test_worker_that_pulls_recovers_after_a_crash() -> None:
    cast = Cast("0.5 crash worker1 1.0", worker=PULL)
    cast.submit()
    cast.run(1.0)
    cast.net.check()
    assert cast.request.state == JOB_COMPLETE
    assert cast.books.counts["executions"] == 2


def test_worker_with_a_full_send_buffer_waits() -> None:
    def much(job: WorkerJob) -> Generator[Any, None, bytes]:
        for _ in range(4):
            yield JobData(bytes(MEGABYTE))
        return b""

    cast = Cast(capacity=MEGABYTE // 4, latency=(0.01, 0.02))
    cast.worker.callbacks["slowly"] = much
    cast.submit()
    cast.net.check()
    assert cast.books.counts["waits for room"] > 0


def test_submits_beyond_the_budget_of_a_server_complete() -> None:
    cast = Cast(cut=0.9, latency=(0.01, 0.01))
    jobs = [{"task": "reverse", "data": b"%d" % number} for number in range(600)]
    cast.client.submit(jobs, background=True)
    cast.net.check()
    assert cast.books.counts["background jobs done"] == 600


def test_client_that_dies_in_a_callback_restarts(cast: Cast) -> None:
    cast.submit("reverse", then=lambda call: cast.client.die(quietly=False))
    cast.run(1.0)
    assert not cast.client.is_up
    cast.client.start()
    cast.net.check()


def test_client_that_vanishes_before_accept_leaves_the_backlog() -> None:
    cast = Cast("0.5 freeze server1 100.0", "0.9 vanish client1 5.0")
    cast.run(0.6)
    cast.submit("reverse")
    cast.run(0.2)
    assert len(cast.server.backlog) == 1
    cast.run(200.0)
    assert not cast.server.backlog
    cast.net.check()


class Idle:
    """The least that an engine needs. The page about fuzzing has one that connects."""

    def next_action(self) -> None:
        return None

    def links_to_write(self) -> list[Any]:
        return []

    def next_deadline(self) -> None:
        return None


def test_third_party_engine_runs() -> None:
    net = Network(random.Random)
    net.add(Node(net, "stranger", lambda node: Idle())).pump()
    net.check()


# Lost connections.


@pytest.mark.parametrize("seed", range(6))
def test_reset_loses_a_part_of_the_data_in_flight(seed: int) -> None:
    cast = Cast(seed=seed, latency=(0.5, 0.5))
    cast.run(3.0)
    for seconds in (0.0, 2.0, 0.2):
        cast.submit("reverse", bytes(1000))
        cast.run(seconds)
    (end,) = cast.client.ends.values()

    def under_way() -> bytes:
        return b"".join(item for _, item in end.peer._flight if isinstance(item, bytes))

    before = under_way()
    for _ in range(2):
        cast.net.break_(Fault(cast.net.now, "reset", "client1>server1"))
    assert before.startswith(under_way())
    cast.net.check()


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("reset client1>server1 0.0", JOB_UNKNOWN),
        ("hang-up client1>server1 0.0", JOB_UNKNOWN),
        ("half-open client1>server1 0.0", JOB_UNKNOWN),
        ("stall client1>server1 10.0", JOB_COMPLETE),
        ("partition client1>server1 10.0", JOB_COMPLETE),
        ("crash worker1 5.0", JOB_COMPLETE),
        ("vanish worker1 5.0", JOB_COMPLETE),
        ("freeze worker1 5.0", JOB_COMPLETE),
        ("crash server1 5.0", JOB_UNKNOWN),
        ("vanish server1 5.0", JOB_UNKNOWN),
        ("crash client1 5.0", JOB_CREATED),
        ("crash client1 90.0", JOB_CREATED),
    ],
)
def test_fault_during_a_job_decides_its_state(fault: str, state: str) -> None:
    cast = Cast(f"0.5 {fault}")
    call = cast.submit()
    cast.run(1.0)
    cast.net.check()
    assert cast.request.state == state
    assert isinstance(cast.request.error, ConnectionError) == (state == JOB_UNKNOWN)
    assert call.is_finished == (state != JOB_CREATED)
    assert [str(fault) for fault in cast.net.happened] == [f"0.5 {fault}"]


def test_reset_after_a_close_loses_the_job() -> None:
    cast = Cast("3.0 crash server1 9.0", "3.1 reset client1>server1 0.0", latency=(0.5, 0.5))
    cast.submit()
    cast.run(4.0)
    assert cast.request.state == JOB_UNKNOWN
    cast.net.check()


@pytest.mark.parametrize(
    ("fault", "earliest", "latest"),
    [
        ("partition client1>server1 3.0", 3.5, 3.6),
        ("flaky server1 3.0", 3.5, 20.0),
        ("vanish server1 30.0", 11.0, 11.0),
    ],
)
def test_submit_during_a_fault_waits(fault: str, earliest: float, latest: float) -> None:
    cast = Cast(f"0.5 {fault}")
    cast.run(1.0)
    call = cast.submit("reverse", max_retries=50)
    cast.run(3.0)
    cast.net.check()
    assert call.finished_at is not None
    assert earliest <= call.finished_at <= latest
    assert isinstance(call.error, ServerUnavailable) == fault.startswith("vanish")


def test_client_frozen_at_its_deadline_times_out() -> None:
    cast = Cast("0.5 freeze client1 3.0")
    call = cast.submit(timeout=1.0)
    cast.run(1.0)
    cast.net.check()
    assert call.finished_at == 3.5


@pytest.mark.parametrize("kind", ["crash", "freeze"])
def test_worker_with_a_fault_before_its_hooks_recovers(kind: str) -> None:
    cast = Cast(f"0.5 {kind} worker1 5.0", worker={"hook_time": 1.0})
    call = cast.submit("reverse")
    cast.run(0.9)
    assert call.is_finished
    assert bool(cast.worker.runs) == (kind == "freeze")
    cast.run(4.0)
    later = cast.submit("reverse")
    cast.net.check()
    assert later.finished_at is not None
    assert later.finished_at > 5.5


def test_worker_with_a_dead_server_serves_the_other_one() -> None:
    cast = Cast("0.0 crash server2 5.0")
    cast.net.worker([cast.server, cast.net.server()], {"more": lambda job: b"result"})
    cast.submit("more")
    cast.run(1.0)
    assert cast.request.result == b"result"
    cast.net.check()


def test_background_job_lost_with_its_server_is_counted() -> None:
    cast = Cast("0.5 crash server1 1.0")
    cast.submit(background=True)
    cast.run(1.0)
    cast.net.check()
    assert cast.books.counts["background jobs lost with their server"] == 1


def test_crash_of_a_stopped_node_is_skipped() -> None:
    cast = Cast("0.5 crash server1 9.0", "0.6 vanish server1 1.0")
    cast.run(5.0)
    assert not cast.server.is_up
    assert cast.server.is_reachable
    cast.net.check()
    assert cast.server.life == 1


def test_clock_that_jumps_starts_a_delayed_job() -> None:
    cast = Cast("1.0 clock server1 3600.0")
    cast.submit("reverse", job={"run_at": cast.net.epoch + 1800.0}, background=True)
    cast.run(0.9)
    assert "executions" not in cast.books.counts
    cast.run(61.0)  # The server checks the clock at least once a minute.
    assert cast.books.counts["executions"] == 1
    cast.net.check()


def test_job_whose_worker_is_lost_runs_again() -> None:
    cast = Cast("1.5 reset worker1>server1 0.0")
    cast.submit()
    cast.run(2.0)
    cast.net.check()
    assert cast.request.result == b"all of data"
    assert cast.books.counts["executions again"] == 1
    assert len(cast.entry.updates) > 3


def test_fault_during_the_final_check_is_skipped() -> None:
    cast = Cast("50.0 crash server1 1.0")
    cast.submit("reverse")
    cast.run(1.0)
    cast.net.check()
    assert cast.net.now > 50.0
    assert not cast.net.happened


def test_faults_are_drawn_and_replayed() -> None:
    def run(**options: Any) -> Network:
        net = Network(random.Random, 5, **options)
        client = net.client([net.server()])
        client.submit([{"task": "f", "data": b""}])
        for until in (0.0, 30.0, 40.0):
            net.run(until)
        return net

    first = run(faults=Faults(rate=1.0))
    assert len(first.happened) == len({str(fault) for fault in first.happened}) > 10
    assert [Fault.parse(str(fault)) for fault in first.happened] == first.happened
    assert run(replay=first.happened).trace.digest == first.trace.digest


# Slow links.

SLOW = 20_000


def uploading(size: int = 100_000, **options: Any) -> tuple[Cast, End]:
    """Return a cast with links of 20 kB per second, and the end of a client that begins to send."""
    cast = Cast(**{"bandwidth": (SLOW, SLOW), "receive_buffer": 65_536, **options})
    cast.run(0.5)
    cast.submit("reverse", bytes(size))
    cast.run(0.01)
    (end,) = cast.client.ends.values()
    return cast, end


@pytest.mark.parametrize("receive_buffer", [0, 65_536])
def test_slow_link_with_large_job_takes_as_long_as_its_bytes(receive_buffer: int) -> None:
    cast, _ = uploading(receive_buffer=receive_buffer, capacity=30_000)
    cast.net.check()
    assert cast.request.result == bytes(100_000)
    # The data travels to the server and the worker, the result to the server and the client.
    assert cast.call.finished_at - 0.5 == pytest.approx(4 * 100_000 / SLOW, abs=0.5)


@pytest.mark.parametrize("tunnel", [0, 50_000])
def test_slow_link_with_small_send_buffer_leaves_the_rest_to_the_driver(tunnel: int) -> None:
    cast, end = uploading(capacity=10_000, tunnel=tunnel)
    before = end.unacknowledged
    assert before - len(end.rest) == 10_000 + tunnel
    cast.run(2.0)
    # The server acknowledges 20 kB per second. The driver refills a half-empty buffer.
    assert before - end.unacknowledged == pytest.approx(2 * SLOW, abs=4_000)
    assert (10_000 + tunnel) // 2 <= end.unacknowledged - len(end.rest) <= 10_000 + tunnel
    cast.run(10.0)
    assert not end.unacknowledged
    cast.net.check()


@pytest.mark.parametrize(
    ("kind", "target", "options", "moved"),
    [
        ("freeze", "server1", {"receive_buffer": 0}, 0),
        ("freeze", "server1", {"receive_buffer": 30_000}, 30_000),
        ("freeze", "client1", {"capacity": 10_000}, 10_000),
        ("stall", "client1>server1", {}, 0),
    ],
)
def test_interrupted_upload_moves_only_what_fits_into_buffers(
    kind: str, target: str, options: dict[str, Any], moved: int
) -> None:
    cast, end = uploading(**options)
    before = end.unacknowledged
    cast.net.break_(Fault(cast.net.now, kind, target, 10.0))
    cast.run(9.0)
    assert before - end.unacknowledged == pytest.approx(moved, abs=4_000)
    # Afterwards, the link has its original rate again.
    cast.run(2.0)
    assert before - end.unacknowledged < moved + 30_000
    cast.run(10.0)
    assert not end.unacknowledged
    cast.net.check()


def test_throttled_link_carries_less_data_for_a_while() -> None:
    cast = Cast("0.4 throttle client1>server1 3.0")
    cast.submit()
    cast.run(0.5)
    call = cast.submit("reverse", bytes(MEGABYTE), accepted_only=True)
    cast.run(2.8)
    (end,) = cast.client.ends.values()
    assert MEGABYTE - end.unacknowledged < 3.0 * SLOW + 1000
    cast.run(0.5)
    assert call.is_finished
    cast.net.check()


def test_slow_link_that_is_throttled_keeps_a_lower_rate() -> None:
    cast, end = uploading(bandwidth=(1000.0, 1000.0))
    cast.net.break_(Fault(cast.net.now, "throttle", "client1>server1", 10.0))
    assert end.line.rate == 1000.0


def test_system_still_sends_its_buffer_after_its_node_has_closed() -> None:
    cast, end = uploading()
    left = end.unacknowledged
    heard = []
    cast.server.engine.receive_data = lambda link, data, now: heard.append(
        len(data) if link is end.peer.link else 0
    )
    end.close()
    assert not end.peer.has_ended
    cast.run(10.0)
    assert end.peer.has_ended
    assert sum(heard) == left


def test_system_drops_its_buffer_if_its_node_left_bytes_unread() -> None:
    cast, end = uploading()
    end.expect(b"not read")
    end.close()
    cast.run(1.0)
    # The server received a reset, not an orderly close.
    assert end.peer.gone


def test_closed_peer_resets_on_late_data() -> None:
    cast, end = uploading()
    cast.client.freeze(cast.net.now + 5.0)
    cast.server._forget(end.peer, closes=True)
    left = end.unacknowledged
    cast.run(4.0)
    assert [mark for _, mark in end._flight] == ["end of stream", "reset"]
    assert end.unacknowledged == left


def test_broken_link_sends_no_data() -> None:
    cast, end = uploading()
    end.fall_silent()
    before = end.unacknowledged
    cast.run(10.0)
    assert end.unacknowledged == before
    assert not end.peer.gone


def test_connections_draw_their_bandwidth() -> None:
    low, high = 10_000.0, 1_000_000.0
    _, end = uploading(bandwidth=(low, high))
    rates = {end.line.rate, end.peer.line.rate}
    assert len(rates) == 2
    assert all(low <= rate <= high for rate in rates)


@pytest.mark.parametrize(
    ("measures", "tunnel", "count"), [(True, 0, 1), (False, 0, 0), (True, 1, 0)]
)
def test_driver_measures_where_the_system_allows(measures: bool, tunnel: int, count: int) -> None:
    told: list[Any] = []
    cast, end = uploading(tunnel=tunnel)
    engine: Any = cast.client.engine
    engine.links_to_measure = lambda now: [end.link]
    engine.measured = lambda *args: told.append(args)
    cast.client.measures = measures
    engine._timers.set("test", cast.net.now + 1.0, lambda key, now: None)
    unacknowledged = end.unacknowledged
    cast.run(1.5)
    assert len(told) == count
    assert all(unacknowledged - 25_000 < size < unacknowledged for _, size in told)


# Reproducible runs, and random plans.


def test_dropped_request_is_freed_without_the_collector(cast: Cast) -> None:
    call = cast.client.submit([{"task": "reverse", "data": b""}])
    cast.run(1.0)
    (request,) = map(weakref.ref, call.requests)
    gc.disable()
    try:
        cast.client.forget(call)
        assert request() is None
    finally:
        gc.enable()


def test_same_seed_in_another_process_repeats_the_run() -> None:
    program = (
        "import random\nfrom fuzz.simulation import Run, plan_of\n"
        "for seed in (3, 8):\n"
        "    run = Run(plan_of(random.Random(seed)))\n"
        "    run.run()\n"
        "    print(run.net.trace.digest)\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(set(said[0].split())) == 2


@pytest.mark.parametrize("seed", range(8))
def test_plan_of_a_seed_passes(seed: int) -> None:
    assert fails(plan_of(random.Random(seed), size=30)) is None


def test_plan_of_bytes_passes() -> None:
    kinds = set()
    for number in range(4):
        data = random.Random(number).randbytes(300)
        kinds |= {step[0] for step in plan_of(Bytes(data), size=20)}
        assert check(data) > 0
    assert {"network", "server", "worker", "client", "submit", "fault"} <= kinds
    assert check(b"") > 0


def test_plans_draw_all_kinds_of_faults() -> None:
    steps = [step for seed in range(15) for step in plan_of(random.Random(seed))]
    assert {Fault.parse(step[2]).kind for step in steps if step[0] == "fault"} == set(KINDS)


# The trace.


def test_decode_returns_packets_and_lines_as_text() -> None:
    data = Connection(Role.CLIENT).send(EchoReq(b"hello"))
    assert decode(data + b"status\n") == "REQ ECHO_REQ 'hello'; TEXT 'status\\n'"
    assert decode(data[:6]) == "PARTIAL 005245510000"
    assert decode(b"\0" * 201) == f"PARTIAL {'00' * 60}...(201 bytes)"
    assert decode(b"\0REQ\0\0\0\x63\0\0\0\0") == "REQ 99 ''"
    assert decode(b"x" * 200 + b"\n") == f"TEXT '{'x' * 60}'...(201 bytes)"


def test_simulation_error_contains_the_seed_faults_and_trace() -> None:
    cast = Cast("0.5 stall client1>server1 0.1", seed=7)
    cast.submit()
    cast.net.schedule(1.0, {}.pop, "broken")
    with pytest.raises(SimulationError) as failed:
        cast.run(2.0)
    error = failed.value
    assert isinstance(error.__cause__, KeyError)
    assert (error.problem, error.seed) == ("KeyError('broken')", 7)
    assert error.faults == cast.net.happened
    for part in (
        "seed 7, at 1.000000",
        "0.5 stall client1>server1 0.1",
        "SUBMIT_JOB 'slowly",
    ):
        assert part in str(error)
