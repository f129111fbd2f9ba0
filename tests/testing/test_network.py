"""The simulated network: nodes, faults and reproducible runs."""

from __future__ import annotations

import gc
import math
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fuzz.simulation import Bytes, Run, check, fails, plan_of
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_UNKNOWN
from gearman_proto.engines.base import Close, Connect
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing import (
    AdminNode,
    Call,
    ClientNode,
    Fault,
    Faults,
    Network,
    Node,
    ServerNode,
    SimulationError,
    WorkerNode,
)
from gearman_proto.testing.faults import KINDS
from gearman_proto.testing.trace import describe
from gearman_proto.wire import text
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import EchoReq, EchoRes, Role

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.testing.wires import End

ROOT = Path(__file__).parents[2]
MEGABYTE = 1024 * 1024


def reverse(job: WorkerJob) -> bytes:
    data: bytes = job.data
    return data[::-1]


def slowly(job: WorkerJob) -> Generator[Any, None, bytes]:
    yield 1.0
    yield JobProgress(1, 2)
    yield JobData(b"half of " + job.data)
    yield JobWarning(b"nearly")
    yield 1.0
    result: bytes = b"all of " + job.data
    return result


def fail(job: WorkerJob) -> bytes:
    raise RuntimeError("no")


CALLBACKS: dict[str, Any] = {"reverse": reverse, "slowly": slowly, "fail": fail}


class Cast:
    """A server, a worker and a client."""

    def __init__(self, net: Network, **options: Any) -> None:
        self.net = net
        self.server: ServerNode = net.server()
        self.worker: WorkerNode = net.worker([self.server], CALLBACKS, **options)
        self.client: ClientNode = net.client([self.server])

    def submit(self, task: str, data: bytes = b"data", **options: Any) -> Call:
        return self.client.submit([{"task": task, "data": data}], **options)


def run(net: Network, seconds: float) -> None:
    net.run(net.now + seconds)


# Nodes and jobs.


def test_job_runs_from_submit_to_result() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    call = cast.submit("reverse")
    assert not call.is_over
    assert "waits" in repr(call)
    net.run(until=1.0)
    assert call.is_over
    assert "over at" in repr(call)
    assert call.over_at is not None
    assert 0 < call.over_at < 0.1
    assert call.requests[0].result == b"atad"
    assert net.now == 1.0
    net.check()
    assert net.books.counts["executions"] == 1


def test_slow_job_sends_updates_and_a_result() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    call = cast.submit("slowly", timeout=1.5)
    run(net, 1.4)
    updates = cast.client.updates(call.requests[0])
    run(net, 0.5)
    assert call.timed_out
    assert call.over_at == 1.5
    (entry,) = call.entries
    assert [kind for kind, _ in entry.updates] == ["JobProgress", "JobData", "JobWarning"]
    run(net, 1.0)
    assert updates.is_over
    assert call.requests[0].result == b"all of data"
    net.check()


@pytest.mark.parametrize("exceptions", [False, True])
def test_job_that_raises_fails(exceptions: bool) -> None:
    net = Network(random.Random, seed=1)
    call = Cast(net, exceptions=exceptions).submit("fail")
    run(net, 1.0)
    (request,) = call.requests
    assert request.state == JOB_FAILED
    assert (request.exception is not None) == exceptions
    net.check()


def test_background_job_and_abandoned_call_end() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    background = cast.submit("slowly", background=True)
    accepted = cast.submit("slowly", b"1", accepted_only=True)
    given_up = cast.submit("slowly", b"2")
    run(net, 0.5)
    assert background.is_over
    assert background.requests[0].state == accepted.requests[0].state == JOB_CREATED
    cast.client.give_up(given_up)
    assert given_up.is_over
    assert not given_up.timed_out
    cast.client.give_up(given_up)
    cast.client.forget(accepted)
    ended: list[Call] = []
    waits = cast.client.wait(given_up.requests, as_completed=True, then=ended.append)
    net.check()
    assert ended == [waits]
    assert net.books.counts["background jobs done"] == 1


def test_statuses_and_admin_commands_return_replies() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    admin = net.admin(cast.server)
    call = cast.submit("slowly")
    run(net, 1.5)
    statuses = cast.client.statuses(call.requests)
    ended: list[Call] = []
    asked = admin.ask(text.status(), then=ended.append)
    ping = admin.ping()
    run(net, 0.2)
    assert statuses.is_over
    assert call.requests[0].status["running"]
    assert ended == [asked]
    assert {row.task for row in asked.value} == set(CALLBACKS)
    assert 0 < ping.value < 0.1
    net.check()


def test_admin_client_of_a_stopped_server_fails() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.0, "crash", "server1", 5.0)])
    server = net.server()
    admin = net.admin(server)
    early = admin.ask(text.version(), timeout=None)
    admin.give_up(early)
    run(net, 2.0)
    asked = admin.ask(text.version())
    run(net, 1.0)
    assert isinstance(asked.error, ServerUnavailable)
    waits = admin.ask(text.version(), timeout=None)
    admin.give_up(waits)
    net.check()


def test_statuses_of_a_frozen_server_time_out() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "freeze", "server1", 5.0)])
    cast = Cast(net)
    call = cast.submit("slowly")
    run(net, 1.0)
    statuses = cast.client.statuses(call.requests, timeout=1.0)
    run(net, 2.0)
    assert statuses.timed_out
    net.check()


def test_worker_with_a_dead_server_serves_the_other_one() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.0, "crash", "server2", 5.0)])
    servers = [net.server(), net.server()]
    net.worker(servers, CALLBACKS)
    call = net.client(servers[:1]).submit([{"task": "reverse", "data": b"data"}])
    run(net, 1.0)
    assert call.requests[0].result == b"atad"
    net.check()


def test_worker_that_stopped_works_again() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    cast.submit("slowly")
    run(net, 0.5)
    cast.worker.stop()
    cast.worker.work()  # It takes effect as soon as the worker has stopped.
    run(net, 5.0)
    cast.worker.unregister("reverse")
    call = cast.submit("reverse", timeout=5.0)
    run(net, 5.0)
    assert call.timed_out
    cast.worker.register("reverse")
    cast.worker.stop()
    run(net, 2.0)
    cast.worker.stop()
    assert cast.worker.stream is None
    cast.worker.work()
    cast.worker.work()
    net.check()


def test_worker_that_gave_up_tries_again() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.0, "crash", "server1", 20.0)])
    cast = Cast(net, max_outage=2.0)
    run(net, 10.0)
    assert any("ends its work" in line for line in net.trace.lines())
    call = cast.submit("reverse", timeout=30.0)
    cast.worker.stop()  # The worker is about to restart; the call prevents that.
    run(net, 20.0)
    assert cast.worker.stream is None
    cast.worker.work()
    net.check()
    assert call.is_over


def test_worker_with_a_full_send_buffer_waits() -> None:
    def much(job: WorkerJob) -> Generator[Any, None, bytes]:
        for _ in range(4):
            yield JobData(bytes(MEGABYTE))
        return b""

    net = Network(
        random.Random, seed=1, faults=Faults(capacity=MEGABYTE // 4, latency=(0.01, 0.02))
    )
    server = net.server()
    net.worker([server], {"much": much})
    client = net.client([server])
    client.submit([{"task": "much", "data": b""}])
    net.check()
    assert net.books.counts["waits for room"] > 0


def test_client_closed_with_a_pending_job_reports_it_lost() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    call = cast.submit("slowly")
    run(net, 0.5)
    cast.client.close()
    assert call.is_over
    assert call.requests[0].state == JOB_UNKNOWN
    net.check()


def test_node_with_a_duplicate_name_is_refused() -> None:
    net = Network(random.Random)
    server = net.server("s")
    assert net.nodes["s"] is server
    with pytest.raises(ValueError, match="'s' already"):
        net.client([server], "s")


def test_run_without_events_returns() -> None:
    net = Network(random.Random)
    net.schedule(3.0, lambda: net.schedule(1.0, seen.append, net.now))
    seen: list[float] = []
    net.run()
    assert seen == [3.0]
    assert net.now == 3.0


def test_wait_for_finished_requests_returns_at_once() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    call = cast.submit("reverse")
    run(net, 1.0)
    assert cast.client.wait(call.requests).is_over
    assert cast.client.wait(call.requests, as_completed=True).is_over
    both = cast.client.submit([{"task": task, "data": b""} for task in ("reverse", "slowly")])
    run(net, 1.0)
    waits = cast.client.wait(both.requests, as_completed=True)
    assert not waits.is_over
    assert repr(cast.client) == "<ClientNode client1>"
    net.check()


def test_invalid_result_fails_the_job() -> None:
    net = Network(random.Random, seed=1)
    server = net.server()
    net.worker([server], {"strange": lambda job: 7}, pause=0.5)
    client = net.client([server])
    call = client.submit([{"task": "strange", "data": b""}])
    net.check()
    assert call.requests[0].state == JOB_FAILED


@pytest.mark.parametrize(("kind", "seconds"), [("crash", 5.0), ("freeze", 5.0)])
def test_worker_with_a_fault_before_its_hooks_recovers(kind: str, seconds: float) -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, kind, "worker1", seconds)])
    cast = Cast(net, pause=1.0)
    call = cast.submit("reverse")
    run(net, 0.9)
    assert call.is_over
    assert list(cast.worker.runs) if kind == "freeze" else not cast.worker.runs
    run(net, 4.0)
    later = cast.submit("reverse")
    net.check()
    assert later.over_at is not None
    assert later.over_at > 5.5


def test_worker_lost_while_it_sends_a_result_recovers() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.5, "reset", "worker1>server1")])
    cast = Cast(net)
    # Without the fault, it would send two packets: a warning and the end.
    cast.worker.callbacks["fail"] = fail_late
    call = cast.submit("fail", background=True)
    run(net, 3.0)
    net.check()
    assert call.requests[0].state == JOB_CREATED


def fail_late(job: WorkerJob) -> Iterator[Any]:
    yield 2.0
    raise RuntimeError("no")


def test_submits_beyond_the_budget_of_a_server_complete() -> None:
    net = Network(random.Random, seed=1, faults=Faults(cut=0.9, latency=(0.01, 0.01)))
    cast = Cast(net)
    jobs = [{"task": "reverse", "data": b"%d" % number} for number in range(600)]
    call = cast.client.submit(jobs, background=True)
    net.check()
    assert call.is_over
    assert net.books.counts["background jobs done"] == 600


def test_server_after_a_shutdown_command_refuses_connections() -> None:
    net = Network(random.Random, seed=1)
    server = net.server()
    admin = net.admin(server)
    asked = admin.ask(text.shutdown(graceful=True))
    run(net, 1.0)
    assert asked.is_over
    assert not server.is_listening
    refused = admin.ask(text.version())
    net.check()
    assert isinstance(refused.error, ServerUnavailable)


def test_client_that_dies_in_a_callback_restarts() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    cast.submit("reverse", then=lambda call: cast.client.die(quietly=False))
    run(net, 1.0)
    assert not cast.client.is_up
    cast.client.start()
    net.check()


def test_client_that_vanishes_before_accept_leaves_the_backlog() -> None:
    faults = [Fault(0.5, "freeze", "server1", 100.0), Fault(0.9, "vanish", "client1", 5.0)]
    net = Network(random.Random, seed=1, replay=faults)
    cast = Cast(net)
    run(net, 0.6)
    cast.submit("reverse")
    run(net, 0.2)
    assert len(cast.server.backlog) == 1
    run(net, 200.0)
    assert not cast.server.backlog
    net.check()


def test_client_that_closes_before_it_is_connected_ends() -> None:
    net = Network(random.Random, seed=1, faults=Faults(latency=(1.0, 1.0)))
    cast = Cast(net)
    cast.submit("reverse")
    run(net, 0.5)
    cast.client.close()
    net.check()


@pytest.mark.parametrize("seed", range(6))
def test_reset_loses_a_part_of_the_data_in_flight(seed: int) -> None:
    net = Network(random.Random, seed=seed, faults=Faults(latency=(0.5, 0.5)))
    cast = Cast(net)
    run(net, 3.0)
    cast.submit("reverse", bytes(1000))
    cast.submit("reverse", bytes(1000))
    run(net, 2.0)
    cast.submit("reverse", bytes(1000))
    run(net, 0.2)
    (end,) = cast.client.ends.values()
    under_way = [item for _, item in end.peer._flight if isinstance(item, bytes)]
    net.break_(Fault(net.now, "reset", "client1>server1"))
    net.break_(Fault(net.now, "reset", "client1>server1"))
    left = [item for _, item in end.peer._flight if isinstance(item, bytes)]
    assert b"".join(under_way).startswith(b"".join(left))
    net.check()


def test_reset_after_a_close_loses_the_job() -> None:
    faults = [Fault(3.0, "crash", "server1", 9.0), Fault(3.1, "reset", "client1>server1")]
    net = Network(random.Random, seed=1, faults=Faults(latency=(0.5, 0.5)), replay=faults)
    call = Cast(net).submit("slowly")
    run(net, 4.0)
    assert call.requests[0].state == JOB_UNKNOWN
    net.check()


def test_write_to_a_full_buffer_keeps_the_rest() -> None:
    net = Network(random.Random, seed=1, faults=Faults(capacity=1000))
    cast = Cast(net)
    cast.submit("reverse")
    run(net, 0.5)
    (end,) = cast.client.ends.values()
    end.write(bytes(1000))
    end.write(b"more")
    assert end.rest == b"more"


def test_fault_during_the_final_check_is_skipped() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(50.0, "crash", "server1", 1.0)])
    Cast(net).submit("reverse")
    run(net, 1.0)
    net.check()
    assert net.now > 50.0
    assert not net.happened


def test_client_without_a_heartbeat_completes_a_job() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    client = net.client([cast.server], heartbeat=None)
    client.submit([{"task": "slowly", "data": b""}])
    net.check()


def test_heartbeat_during_a_long_job_keeps_the_connection() -> None:
    def long(job: WorkerJob) -> Generator[Any, None, bytes]:
        yield 30.0
        return b""

    net = Network(random.Random, seed=1)
    server = net.server()
    net.worker([server], {"long": long})
    client = net.client([server], heartbeat=1.0)
    call = client.submit([{"task": "long", "data": b""}])
    net.check()
    assert call.requests[0].state == JOB_COMPLETE


# Slow links.

SLOW = 20_000


def of_slow(**options: Any) -> Cast:
    """Return a cast whose links carry 20 kB per second."""
    faults = Faults(**{"bandwidth": (SLOW, SLOW), "receive_buffer": 65_536, **options})
    return Cast(Network(random.Random, seed=1, faults=faults))


def uploading(size: int = 100_000, **options: Any) -> tuple[Cast, End]:
    """Return a cast whose client has just begun to send, and the client's end of the connection."""
    cast = of_slow(**options)
    run(cast.net, 0.5)
    cast.submit("reverse", bytes(size))
    run(cast.net, 0.01)
    (end,) = cast.client.ends.values()
    return cast, end


@pytest.mark.parametrize("receive_buffer", [0, 65_536])
def test_slow_link_with_large_job_takes_as_long_as_its_bytes(receive_buffer: int) -> None:
    cast = of_slow(receive_buffer=receive_buffer, capacity=30_000)
    call = cast.submit("reverse", bytes(100_000))
    cast.net.check()
    assert call.requests[0].result == bytes(100_000)
    assert call.over_at is not None
    # The data travels to the server and the worker, the result to the server and the client.
    assert 4 * 100_000 / SLOW < call.over_at < 4 * 100_000 / SLOW + 0.5


def test_slow_link_with_small_send_buffer_leaves_the_rest_to_the_driver() -> None:
    cast, end = uploading(capacity=10_000)
    before = end.unacknowledged
    assert before > 100_000
    assert before - len(end.rest) == 10_000
    run(cast.net, 2.0)
    # The server acknowledges 20 kB per second. The driver refills a half-empty buffer.
    assert before - end.unacknowledged == pytest.approx(2 * SLOW, abs=4_000)
    assert 5_000 <= end.unacknowledged - len(end.rest) <= 10_000
    run(cast.net, 10.0)
    assert not end.unacknowledged
    cast.net.check()


@pytest.mark.parametrize("kept", [0, 30_000])
def test_node_that_does_not_read_has_its_receive_buffer_acknowledged(kept: int) -> None:
    cast, end = uploading(receive_buffer=kept)
    before = end.unacknowledged
    cast.server.freeze(cast.net.now + 20.0)
    run(cast.net, 19.0)
    assert before - end.unacknowledged == pytest.approx(kept, abs=4_000)
    run(cast.net, 10.0)
    assert not end.unacknowledged
    cast.net.check()


def test_link_that_stalls_acknowledges_nothing() -> None:
    cast, end = uploading()
    run(cast.net, 1.0)
    cast.net.break_(Fault(cast.net.now, "stall", "client1>server1", 10.0))
    before = end.unacknowledged
    run(cast.net, 9.0)
    assert end.unacknowledged == before
    run(cast.net, 2.0)
    # Afterwards, the link has its original rate again.
    assert before - end.unacknowledged < 30_000
    cast.net.check()


def test_throttled_link_carries_less_data_for_a_while() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.4, "throttle", "client1>server1", 3.0)])
    cast = Cast(net)
    cast.submit("slowly")
    run(net, 0.5)
    call = cast.submit("reverse", bytes(MEGABYTE), accepted_only=True)
    run(net, 2.8)
    (end,) = cast.client.ends.values()
    assert MEGABYTE - end.unacknowledged < 3.0 * SLOW + 1000
    run(net, 0.5)
    assert call.is_over
    net.check()


def test_slow_link_that_is_throttled_keeps_a_lower_rate() -> None:
    cast, end = uploading(bandwidth=(1000.0, 1000.0))
    cast.net.break_(Fault(cast.net.now, "throttle", "client1>server1", 10.0))
    assert end.line.rate == 1000.0


def test_system_still_sends_its_buffer_after_its_node_has_closed() -> None:
    cast, end = uploading()
    left = end.unacknowledged
    heard = []
    cast.server.engine.receive_data = (  # type: ignore[method-assign]
        lambda link, data, now: heard.append(len(data) if link is end.peer.link else 0)
    )
    end.close()
    assert not end.peer.has_ended
    run(cast.net, 10.0)
    assert end.peer.has_ended
    assert sum(heard) == left


def test_system_drops_its_buffer_if_its_node_left_bytes_unread() -> None:
    cast, end = uploading()
    end.expect(b"not read")
    end.close()
    run(cast.net, 1.0)
    # The server received a reset, not an orderly close.
    assert end.peer.gone


def test_closed_peer_resets_on_late_data() -> None:
    cast, end = uploading()
    cast.client.freeze(cast.net.now + 5.0)
    cast.server._forget(end.peer, closes=True)
    left = end.unacknowledged
    run(cast.net, 4.0)
    assert [mark for _, mark in end._flight] == ["end of stream", "reset"]
    assert end.unacknowledged == left


def test_broken_link_sends_no_data() -> None:
    cast, end = uploading()
    end.fall_silent()
    before = end.unacknowledged
    run(cast.net, 10.0)
    assert end.unacknowledged == before
    assert not end.peer.gone


def test_node_that_is_stopped_writes_nothing() -> None:
    cast, end = uploading(capacity=10_000)
    left = len(end.rest)
    cast.client.freeze(cast.net.now + 5.0)
    run(cast.net, 4.9)
    assert len(end.rest) == left
    run(cast.net, 1.0)
    assert len(end.rest) < left
    cast.net.check()


def test_tunnel_buffers_more_than_the_system() -> None:
    cast, end = uploading(capacity=10_000, tunnel=50_000)
    assert end.unacknowledged - len(end.rest) == 60_000
    cast.net.check()


def test_connections_draw_their_bandwidth() -> None:
    low, high = 10_000.0, 1_000_000.0
    cast = of_slow(bandwidth=(low, high))
    run(cast.net, 1.0)
    (end,) = cast.worker.ends.values()
    rates = {end.line.rate, end.peer.line.rate}
    assert len(rates) == 2
    assert all(low <= rate <= high for rate in rates)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bandwidth": (0, 1)}, r"bandwidth is \(0, 1\): it must be two numbers of bytes"),
        ({"bandwidth": 20_000}, "bandwidth is 20000"),
        ({"bandwidth": (1, math.inf)}, "bandwidth is"),
        ({"bandwidth": (2, 1)}, r"bandwidth is \(2, 1\)"),
        ({"bandwidth": (math.nan, 1)}, "bandwidth is"),
        ({"receive_buffer": -1}, "receive_buffer is -1"),
        ({"tunnel": -1}, "tunnel is -1"),
    ],
)
def test_faults_with_impossible_links_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Faults(**options)


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
    cast.client.engine._timers.set("test", cast.net.now + 1.0, lambda key, now: None)
    unacknowledged = end.unacknowledged
    run(cast.net, 1.5)
    assert len(told) == count
    assert all(unacknowledged - 25_000 < size < unacknowledged for _, size in told)


def test_nodes_draw_whether_their_driver_measures() -> None:
    nodes = [Network(random.Random, seed=seed).server() for seed in range(20)]
    assert {node.measures for node in nodes} == {False, True}


# A third-party engine.


class Echo:
    """A minimal engine with a transport side: a client that sends one ECHO_REQ."""

    closed = False

    def __init__(self, address: Any) -> None:
        self.address = address
        self.answers: list[bytes] = []
        self._connection = Connection(Role.CLIENT)
        self._actions: list[Any] = [Connect(self, 5.0)]
        self._unsent = b""
        self.behind = False

    def connected(self, link: Any, now: float) -> None:
        self._unsent = self._connection.send(EchoReq(b"hello"))

    def receive_data(self, link: Any, data: bytes, now: float) -> None:
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) is not NEED_DATA:
            assert isinstance(event, EchoRes)
            self.answers.append(event.data)
            self._actions.append(Close(self))

    def next_action(self) -> Any:
        return self._actions.pop() if self._actions else None

    def links_to_write(self) -> list[Any]:
        return [self] if self._unsent else []

    def data_to_send(self, link: Any, now: float) -> bytes:
        data, self._unsent = self._unsent, b""
        return data

    def next_deadline(self) -> None:
        return None


def test_third_party_engine_runs() -> None:
    net = Network(random.Random, seed=1)
    server = net.server("here")
    stranger = net.add(Node(net, "stranger", Echo, [server]))
    stranger.host = "here"  # type: ignore[attr-defined]
    stranger.engine.address = stranger
    stranger.pump()
    net.check()
    assert stranger.engine.answers == [b"hello"]


# Faults.


def lost_by(kind: str, seconds: float = 0.0, target: str = "client1>server1") -> Any:
    """Return the request of a job during which the fault occurred."""
    net = Network(random.Random, seed=1, replay=[Fault(0.5, kind, target, seconds)])
    call = Cast(net).submit("slowly")
    net.run(until=200.0)
    net.check()
    assert call.is_over or kind == "crash"
    assert [fault.kind for fault in net.happened] == [kind]
    return call.requests[0]


@pytest.mark.parametrize("kind", ["reset", "hang-up", "half-open"])
def test_connection_that_is_lost_loses_the_job(kind: str) -> None:
    request = lost_by(kind)
    assert request.state == JOB_UNKNOWN
    assert isinstance(request.error, ConnectionError)


@pytest.mark.parametrize("kind", ["stall", "partition"])
def test_connection_that_stalls_delays_the_job(kind: str) -> None:
    assert lost_by(kind, 10.0).state == JOB_COMPLETE


def test_partition_prevents_connections() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "partition", "client1>server1", 3.0)])
    cast = Cast(net)
    run(net, 1.0)
    call = cast.submit("reverse")
    net.check()
    assert call.over_at is not None
    assert 3.5 < call.over_at < 3.6


def test_node_frozen_for_a_while_recovers() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "freeze", "worker1", 3.0)])
    cast = Cast(net)
    call = cast.submit("slowly")
    run(net, 1.0)
    net.check()
    assert call.over_at is not None
    assert 4.5 < call.over_at < 5.0


def test_client_frozen_at_its_deadline_times_out() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "freeze", "client1", 3.0)])
    call = Cast(net).submit("slowly", timeout=1.0)
    run(net, 1.0)
    net.check()
    assert call.over_at == 3.5


@pytest.mark.parametrize("kind", ["crash", "vanish"])
@pytest.mark.parametrize("target", ["worker1", "server1"])
def test_node_that_dies_loses_its_connections(kind: str, target: str) -> None:
    request = lost_by(kind, 5.0, target)
    assert request.state == (JOB_COMPLETE if target == "worker1" else JOB_UNKNOWN)


def test_client_that_dies_drops_its_calls() -> None:
    assert lost_by("crash", 5.0, "client1").state == JOB_CREATED


def test_client_that_is_down_leaves_its_calls_pending() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "crash", "client1", 50.0)])
    call = Cast(net).submit("slowly")
    run(net, 1.0)
    net.check()
    assert not call.is_over


def test_client_that_is_down_at_the_final_check_passes() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    cast.submit("slowly")
    run(net, 1.0)
    cast.client.die(quietly=False)
    net.schedule(50.0, cast.client.start)
    net.check()


def test_background_job_lost_with_its_server_is_counted() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "crash", "server1", 1.0)])
    Cast(net).submit("slowly", background=True)
    run(net, 1.0)
    net.check()
    assert net.books.counts["background jobs lost with their server"] == 1


def test_crash_of_a_stopped_node_is_skipped() -> None:
    faults = [Fault(0.5, "crash", "server1", 9.0), Fault(0.6, "vanish", "server1", 1.0)]
    net = Network(random.Random, seed=1, replay=faults)
    cast = Cast(net)
    run(net, 5.0)
    assert not cast.server.is_up
    assert cast.server.is_reachable
    net.check()
    life: int = cast.server.life
    assert life == 1


def test_server_that_vanished_lets_connects_time_out() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "vanish", "server1", 30.0)])
    cast = Cast(net)
    run(net, 1.0)
    call = cast.submit("reverse")
    net.check()
    assert call.over_at == 11.0
    assert isinstance(call.error, ServerUnavailable)


def test_server_that_closes_accepted_connections_delays_the_call() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(0.5, "flaky", "server1", 3.0)])
    cast = Cast(net)
    run(net, 1.0)
    call = cast.submit("reverse", max_retries=50)
    run(net, 3.0)
    net.check()
    assert call.over_at is not None
    assert call.over_at > 3.5


def test_clock_that_jumps_starts_a_delayed_job() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.0, "clock", "server1", 3600.0)])
    cast = Cast(net)
    job = {"task": "reverse", "data": b"", "run_at": net.epoch + 1800.0}
    cast.client.submit([job], background=True)
    run(net, 0.9)
    assert "executions" not in net.books.counts
    run(net, 61.0)  # The server checks the clock at least once a minute.
    assert net.books.counts["executions"] == 1
    net.check()


def test_job_that_exceeds_its_time_limit_fails() -> None:
    net = Network(random.Random, seed=1)
    server = net.server(job_retries=1)
    net.worker([server], CALLBACKS, limit=1.5)
    client = net.client([server])
    foreground = client.submit([{"task": "slowly", "data": b"1"}])
    client.submit([{"task": "slowly", "data": b"2"}], background=True)
    net.check()
    assert foreground.requests[0].state == JOB_FAILED


def test_job_whose_worker_is_lost_runs_again() -> None:
    net = Network(random.Random, seed=1, replay=[Fault(1.5, "reset", "worker1>server1")])
    call = Cast(net).submit("slowly")
    run(net, 2.0)
    net.check()
    assert call.requests[0].result == b"all of data"
    assert net.books.counts["executions again"] == 1
    (entry,) = call.entries
    assert len(entry.updates) > 3


def test_job_of_a_frozen_worker_runs_elsewhere() -> None:
    faults = [Fault(0.5, "freeze", "worker1", 60.0), Fault(1.5, "hang-up", "worker1>server1")]
    net = Network(random.Random, seed=3, replay=faults)
    cast = Cast(net)
    run(net, 0.7)
    call = cast.submit("reverse")
    net.worker([cast.server], CALLBACKS)
    run(net, 100.0)
    assert call.requests[0].state == JOB_COMPLETE
    net.check()


def test_faults_are_lines_of_text() -> None:
    fault = Fault(1.25, "stall", "client1>server1", 0.5)
    assert str(fault) == "1.25 stall client1>server1 0.5"
    assert Fault.parse(str(fault)) == fault
    with pytest.raises(ValueError, match="'flood'"):
        Fault.parse("1.0 flood server1 0.0")


def test_faults_are_drawn_and_replayed() -> None:
    first = Network(random.Random, seed=5, faults=Faults(rate=1.0))
    Cast(first).submit("slowly")
    run(first, 0.0)
    run(first, 30.0)
    run(first, 10.0)
    assert len(first.happened) == len({str(fault) for fault in first.happened}) > 10
    again = Network(random.Random, seed=5, replay=first.happened)
    Cast(again).submit("slowly")
    run(again, 30.0)
    run(again, 10.0)
    assert again.trace.digest == first.trace.digest


def test_small_capacity_and_many_chunks_complete() -> None:
    net = Network(random.Random, seed=1, faults=Faults(capacity=40, cut=0.9))
    call = Cast(net).submit("reverse", bytes(3000))
    net.check()
    assert call.requests[0].result == bytes(3000)


# Reproducible runs.


def test_same_seed_repeats_the_run() -> None:
    digests = []
    for seed in (3, 3, 4):
        plan = Run(plan_of(random.Random(seed)))
        plan.run()
        digests.append((plan.net.trace.digest, plan.net.steps))
    assert digests[0] == digests[1] != digests[2]


def test_dropped_request_is_freed_without_the_collector() -> None:
    net = Network(random.Random, seed=1)
    cast = Cast(net)
    call = cast.submit("reverse")
    net.run(until=1.0)
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
    assert said[0] == said[1] != b""


# Random plans.


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


def test_describe_returns_the_packets_as_text() -> None:
    connection = Connection(Role.CLIENT)
    data = connection.send(EchoReq(b"hello"))
    assert describe(data) == "ECHO_REQ(b'hello')"
    assert describe(data * 2) == "ECHO_REQ(b'hello') ECHO_REQ(b'hello')"
    assert describe(data[:14]) == "ECHO_REQ(b'he'…)"
    assert describe(data[:8]) == "a part of a header"
    assert describe(data[8:] + data) == "…b'\\x00\\x00\\x00\\x05hello' ECHO_REQ(b'hello')"
    assert describe(b"\0REQ\0\0\0\x63\0\0\0\0") == "packet 99(b'')"


def test_simulation_error_contains_the_seed_faults_and_trace() -> None:
    net = Network(random.Random, seed=7, replay=[Fault(0.5, "stall", "client1>server1", 0.1)])
    Cast(net).submit("slowly")

    def break_down() -> None:
        raise KeyError("broken")

    net.schedule(1.0, break_down)
    with pytest.raises(SimulationError) as failed:
        net.run(until=2.0)
    error = failed.value
    assert isinstance(error.__cause__, KeyError)
    assert error.problem == "KeyError('broken')"
    assert error.seed == 7
    assert error.faults == net.happened
    message = str(error)
    assert "seed 7, at 1.000000" in message
    assert "0.5 stall client1>server1 0.1" in message
    assert "SUBMIT_JOB(b'slowly" in message
    assert isinstance(net.nodes["client1"], ClientNode)
    assert not isinstance(net.nodes["client1"], AdminNode)
