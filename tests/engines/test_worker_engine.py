"""Conversations of a worker's engine with scripted servers: grabs, functions, jobs, lost servers.

`test_conformance` has the conversations that any worker must get right,
`test_worker_ends` the ends of `work`, and `test_games` random conversations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import MAX_CAN_DO_TIMEOUT
from gearman_proto.engines.worker.link import Phase
from gearman_proto.errors import (
    ConnectionError,
    InvalidWorkerState,
    LocalProtocolError,
    ServerUnavailable,
)
from gearman_proto.jobs.job import WorkerJob
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_RESPONSE,
    CanDo,
    CanDoTimeout,
    CantDo,
    Error,
    GrabJob,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    SetClientId,
    WorkFail,
    WorkStatus,
)

from .harness import Bell, raw, wakes
from .worker_harness import (
    GRAB,
    MEGABYTE,
    Peer,
    World,
    asleep,
    backing_off,
    data,
    grabbing,
    holding,
    result,
    working,
)

if TYPE_CHECKING:
    from collections.abc import Callable


# One server.


@pytest.mark.parametrize(
    ("timeout", "limit"),
    [(0.0001, b"1"), (1.0005, b"1001"), (MAX_CAN_DO_TIMEOUT / 1000, b"%d" % MAX_CAN_DO_TIMEOUT)],
)
def test_greeting_has_the_client_id_and_the_functions_in_order(
    timeout: float, limit: bytes
) -> None:
    world = World(2, functions=[b"b"])
    world.register(b"a", timeout)
    world.call(world.engine.set_client_id, b"me")
    world.work()
    server = world.serve("s0")
    functions = [CanDo(b"b"), CanDoTimeout(b"a", limit)]
    assert server.take() == [SetClientId(b"me"), *functions, GRAB]
    world.call(world.engine.set_client_id, b"you")
    assert server.take() == [SetClientId(b"you")]
    assert world.serve("s1").take() == [SetClientId(b"you"), *functions]


def test_job_keeps_its_slot_until_job_done() -> None:
    class Job(WorkerJob):
        pass

    world, server = grabbing(job_class=Job)
    assert repr(server.link) == f"<WorkerLink to {server.link.address}, grabbing>"
    assert not world.stream.ready
    server.send(JobAssignUniq(b"H:1", b"f", b"u", b"in\0"))
    assert (world.stream.ready, world.stream.active, wakes(world.stream)) == (True, True, 1)
    job = world.job()
    assert not world.stream.ready
    assert type(job) is Job
    assert (job.handle, job.task, job.unique, job.data) == ("H:1", "f", "u", b"in\0")
    assert (job.wire_handle, job.wire_task) == (b"H:1", b"f")
    assert job.connection == server.link.address
    world.complete(job)
    world.sleep(100)
    assert server.take() == [result()]
    assert (job.ended, job.is_lost, world.engine.has_jobs()) == (True, False, True)
    world.job_done(job)
    assert server.take() == [GRAB]
    assert not world.engine.has_jobs()
    world.job_done(job)
    assert server.take() == []


def test_send_done_writes_result_and_next_grab_together() -> None:
    world, server, job = holding()
    world.send(job, data(4), done=True)
    assert not job._gm_is_finished
    world.engine.send(world.now, Bell(), job, result(), done=True)
    server.read(world.engine.data_to_send(server.link, world.now))
    assert server.take() == [data(4), result(), GRAB]
    assert (job._gm_is_finished, world.engine.has_jobs()) == (True, False)
    world.job_done(job)
    assert server.take() == []


def test_sleeping_link_polls_at_about_the_look_again_interval() -> None:
    deadlines = set()
    for seed in range(20):
        world, server = asleep(seed=seed, poll_interval=5.0)
        deadlines.add(world.engine.next_deadline() or 0.0)
        world.sleep(3.99)
        assert server.take() == []
        world.sleep(2.02)
        assert server.take() == [GRAB]
    assert (len(deadlines), min(deadlines) < 4.5, max(deadlines) > 5.5) == (20, True, True)


def test_link_that_is_woken_for_nothing_pauses_until_a_job_or_silence() -> None:
    world, server = asleep()

    def wake_for_nothing(pause: float) -> None:
        server.send(Noop())
        if pause:
            world.sleep(0.99 * pause)
            assert server.says(Noop()) == []
            world.sleep(0.02 * pause)
        assert server.take() == [GRAB]
        assert server.says(NoJob()) == [PreSleep()]

    for pause in (0, 0, 0, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1):
        wake_for_nothing(pause)
    world.sleep(0.06)
    for pause in (0, 0, 0, 0, 0.01):
        wake_for_nothing(pause)
    server.send(Noop())
    world.sleep(0.02)
    world.finish(server.assign())
    assert server.says(NoJob())[-1] == PreSleep()
    wake_for_nothing(0)


# Turns and slots.


def test_servers_with_jobs_take_turns() -> None:
    world = working(4)
    servers = world.serve_all()
    assert servers[0].says(NoJob()) == [PreSleep()]
    given: list[str] = []
    for number in range(30):
        (server,) = (server for server in servers if server.grabbing)
        given.append(server.host)
        world.finish(server.assign(number))
    assert given == ["s1", "s2", "s3"] * 10


def assign_all(server: Peer) -> list[WorkerJob]:
    """Answer each grab with a job, in one chunk."""
    server.send(*(JobAssignUniq(b"H:%d" % n, b"f", b"", b"") for n in range(server.grabs)))
    return list(iter(server.world.next_job, None))


def test_number_of_grabs_doubles_while_jobs_arrive() -> None:
    world, server = grabbing(max_jobs=100)
    for expected in (2, 4, 8, 8):
        assign_all(server)
        assert server.take() == [GRAB] * expected
    # The last answer of a turn decides.
    for _ in range(7):
        assert server.says(NoJob()) == []
    server.assign(8)
    assert server.take() == [GRAB] * 2
    server.assign(9)
    assert server.says(NoJob()) == [PreSleep()]
    assert world.engine._grabs == 0
    assert server.says(Noop()) == [GRAB]


def test_waiting_links_share_the_free_slots() -> None:
    world = working(3, max_jobs=6)
    hung, one, other = world.serve_all()
    world.finish(hung.assign())
    one.assign()
    assert (hung.grabs, one.grabs) == (2, 2)
    other.assign()
    assign_all(one)
    assert (one.grabs, other.grabs) == (0, 0)
    world.sleep(1.1)
    assert (one.grabs, other.grabs) == (1, 1)


# Servers that hang or send errors.


def test_each_answer_of_a_turn_restarts_its_timeouts() -> None:
    world, server = grabbing(max_jobs=3)
    world.finish(server.assign(1))
    assert server.grabs == 2
    world.sleep(0.9)
    server.assign(2)
    world.sleep(0.9)
    assert world.engine._grabs == 1
    world.sleep(0.2)
    assert (server.link.phase, world.engine._grabs) == (Phase.LATE, 0)
    world.sleep(27)
    assert server.link.alive
    world.sleep(2)
    assert not server.link.alive


def test_unanswered_grab_closes_the_link_after_half_a_minute() -> None:
    world, server = asleep()
    world.sleep(6.1)
    assert server.take() == [GRAB]
    world.sleep(29.9 - 6.1 + 4.0)
    assert not server.closed
    world.sleep(3.0)
    assert server.closed
    assert list(world.engine.notices) == ["no connection to s0:4730: no answer within the time"]
    world.sleep(0.5)
    assert world.serve().take() == [CanDo(b"f"), GRAB]


@pytest.mark.parametrize(
    ("stops", "size", "seconds", "stays"),
    [
        (False, 2000, 29.0, True),
        (True, 2000, 0.9, True),
        # A corrupt packet size makes every later answer part of one packet.
        (False, 300, 15.5, False),
        (True, 1, 1.01, False),
    ],
)
def test_grab_times_out_unless_its_job_keeps_arriving(
    stops: bool, size: int, seconds: float, stays: bool
) -> None:
    world, server = grabbing()
    packet = pack_event(JobAssignUniq(b"H:1", b"f", b"", b"x" * 20_000), MAGIC_RESPONSE)
    if stops:
        world.stop()
    while packet and not server.closed:
        server.send_raw(packet[:size])
        packet = packet[size:]
        world.sleep(seconds)
    if stays:
        assert world.job().data == b"x" * 20_000
    else:
        assert server.closed
        assert 29.9 < world.now < 32.0


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        raw(JobAssignUniq(b"H" * 65537, b"f", b"", b"")),
        raw(JobAssignUniq(b"H:2", b"f", b"", b"x" * 70_000)),
    ],
    ids=["no packet", "handle too long", "packet too large"],
)
def test_garbage_closes_the_link_and_loses_its_jobs(bad: bytes) -> None:
    world, server = grabbing(max_jobs=2, max_packet_size=70_000)
    server.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    server.send_raw(bad)
    assert server.closed
    (notice,) = world.engine.notices
    assert notice.startswith("no connection to s0:4730: ")
    assert notice.endswith(", and 1 jobs with it")
    assert world.stream.ready
    assert world.next_job() is None
    assert not world.engine.has_jobs()
    world.sleep(0.5)
    assert world.serve().take() == [CanDo(b"f"), GRAB]


# Functions.


def add(function: bytes, timeout: float | None = None) -> Callable[[World], None]:
    return lambda world: world.register(function, timeout)


def drop(function: bytes) -> Callable[[World], None]:
    return lambda world: world.unregister(function)


GONE, LIMITED = CantDo(b"f"), CanDoTimeout(b"f", b"1000")
#: The state of the link, the change of the functions f and g, the packets at once, the next packet
#: from the server (None: the worker finishes its job), and the packets after that.
CHANGES: dict[str, tuple[Any, Any, list[Any], Any, list[Any]]] = {
    "new, asleep": (asleep, add(b"h"), [CanDo(b"h"), GRAB], NoJob(), [PreSleep()]),
    "new, backing_off": (backing_off, add(b"h"), [CanDo(b"h"), GRAB], NoJob(), [PreSleep()]),
    "new, grabbing": (grabbing, add(b"h"), [CanDo(b"h")], NoJob(), [PreSleep()]),
    "new, holding": (holding, add(b"h"), [CanDo(b"h")], None, [result(), GRAB]),
    "known, asleep": (asleep, add(b"f"), [], Noop(), [GRAB]),
    "unknown, asleep": (asleep, drop(b"h"), [], Noop(), [GRAB]),
    "dropped, asleep": (asleep, drop(b"f"), [GONE], Noop(), [GRAB]),
    "dropped, grabbing": (grabbing, drop(b"f"), [], NoJob(), [GONE, PreSleep()]),
    "dropped, ERROR": (grabbing, drop(b"f"), [], Error(b"E", b""), [GONE, GrabJob()]),
    "dropped, holding": (holding, drop(b"f"), [], None, [result(), GONE, GRAB]),
    "another dropped": (holding, drop(b"g"), [CantDo(b"g")], None, [result(), GRAB]),
    "limited, asleep": (asleep, add(b"f", 1), [GONE, LIMITED, GRAB], NoJob(), [PreSleep()]),
    # The NO_JOB covered only the old registration.
    "limited, grabbing": (grabbing, add(b"f", 1), [], NoJob(), [GONE, LIMITED, GRAB]),
    "limited, holding": (holding, add(b"f", 1), [], None, [result(), GONE, LIMITED, GRAB]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_functions_are_sent_as_soon_as_the_phase_allows(name: str) -> None:
    state, change, at_once, answer, later = CHANGES[name]
    world, server, *jobs = state(functions=[b"f", b"g"])
    change(world)
    assert server.take() == at_once
    if answer is not None:
        assert server.says(answer) == later
    else:
        world.finish(*jobs)
        assert server.take() == later


def test_function_registered_during_a_connect_is_sent_after_it() -> None:
    world = working()
    world.register(b"g")
    assert world.serve().take() == [CanDo(b"f"), CanDo(b"g"), GRAB]


def test_names_are_str_or_bytes() -> None:
    world = World(functions=[])
    world.register("é")
    world.register(b"gone")
    world.unregister("gone")
    world.call(world.engine.set_client_id, "me")
    world.work()
    assert world.serve().take() == [SetClientId(b"me"), CanDo("é".encode()), GRAB]


def test_invalid_names_are_refused_at_once() -> None:
    world = World()
    calls: list[tuple[Any, ...]] = [
        (world.engine.register, "", None),
        (world.engine.register, "a\0b", None),
        (world.engine.register, 5, None),
        (world.engine.unregister, ""),
    ]
    for call, *arguments in calls:
        with pytest.raises((TypeError, ValueError), match="task"):
            call(world.now, *arguments)
    with pytest.raises(ValueError, match="client id"):
        world.engine.set_client_id("x" * 128)


@pytest.mark.parametrize("how", ["unregister", "pause"])
def test_other_functions_are_served_while_a_job_delays_cant_do(how: str) -> None:
    """A CANT_DO would requeue the job."""
    world, server = grabbing(functions=[b"f", b"g"], max_jobs=2)
    one = server.assign(1)
    assert server.take() == [GRAB]
    getattr(world, how)(b"f")
    other = server.assign(2, b"g")
    assert server.take() == []
    world.finish(other)
    assert server.take() == [result(2), GRAB]
    assert server.says(NoJob()) == [PreSleep()]
    assert server.says(Noop()) == [GRAB]
    # An answer brings another job of the function, which the worker runs.
    two = server.assign(3)
    world.finish(one)
    assert server.take() == [result(1), GRAB]
    assert server.says(NoJob()) == [PreSleep()]
    world.finish(two)
    assert server.take() == [result(3), CantDo(b"f")]
    assert server.says(Noop()) == [GRAB]


def test_last_function_is_dropped_at_the_end_of_its_jobs() -> None:
    world, server = grabbing(max_jobs=2)
    one = server.assign(1)
    server.take()
    world.unregister(b"f")
    # Without another function, the worker neither grabs nor sleeps.
    assert server.says(NoJob()) == []
    world.sleep(100.0)
    world.finish(one)
    assert server.take() == [result(), CantDo(b"f")]


#: The state of the link, an answer after `pause`, the paused function (None: the worker), and the
#: packets after `pause` and after `resume`.
PAUSES: dict[str, tuple[Any, Any, bytes | None, list[Any], list[Any]]] = {
    "worker, asleep": (asleep, None, None, [], [GRAB]),
    "worker, backing off": (backing_off, None, None, [], [GRAB]),
    "worker, resting": (lambda: grabbing(functions=[]), None, None, [], []),
    "worker, grabbing": (grabbing, NoJob(), None, [], [GRAB]),
    "function, asleep": (asleep, None, b"f", [CantDo(b"f")], [CanDo(b"f"), GRAB]),
    "function, grabbing": (grabbing, NoJob(), b"f", [CantDo(b"f")], [CanDo(b"f"), GRAB]),
}


@pytest.mark.parametrize("name", PAUSES)
def test_paused_worker_neither_grabs_nor_sleeps(name: str) -> None:
    state, answer, function, at_pause, at_resume = PAUSES[name]
    world, server = state()
    server.take()
    world.pause(function)
    if answer is not None:
        server.send(answer)
    assert server.take() == at_pause
    server.send(Noop())  # It was in transit.
    world.sleep(1000.0)
    assert server.take() == []
    world.resume(function)
    assert server.take() == at_resume


def test_pause_of_another_function_changes_nothing() -> None:
    world, server = asleep()
    world.pause(b"g")
    assert server.says(Noop()) == [GRAB]
    world.resume(b"g")
    assert server.says(NoJob()) == [PreSleep()]


def test_paused_worker_finishes_its_jobs() -> None:
    world, server = grabbing(max_jobs=2)
    one = server.assign(1)
    assert server.take() == [GRAB]
    world.pause()
    two = server.assign(2)
    for job in (one, two):
        world.finish(job)
    assert server.take() == [result(1), result(2)]
    world.resume()
    assert server.take() == [GRAB, GRAB]


def test_paused_worker_reconnects_and_stops() -> None:
    world, server = asleep(max_outage=5.0)
    world.pause()
    server.lose()
    world.sleep(1.0)
    assert world.serve().take() == [CanDo(b"f")]
    world.sleep(1000.0)
    assert not world.stream.done  # A server that is asked nothing is no outage.
    world.stop()
    assert world.is_over()


def test_queued_link_of_a_paused_worker_does_not_grab() -> None:
    world = working(2)
    servers = world.serve_all()
    (busy,) = (server for server in servers if server.grabbing)
    job = busy.assign()
    world.pause()
    world.finish(job)
    assert not any(server.grabbing for server in servers)
    world.resume()
    assert sum(server.grabbing for server in servers) == 1


def test_functions_that_are_paused_before_work_are_not_registered() -> None:
    world = World(functions=[b"f", b"g"])
    world.pause(b"f")
    world.pause(b"later")
    world.register(b"later")
    world.work()
    server = world.serve()
    assert server.take() == [CanDo(b"g"), GRAB]
    world.resume(b"later")
    assert server.take() == [CanDo(b"later")]


# Losing servers.


def test_lost_link_is_reconnected_and_wakes_the_caller() -> None:
    world, server = asleep()
    world.next_job()
    world.stream.active = False
    server.lose(OSError("reset"))
    assert (world.stream.ready, world.stream.active) == (True, True)
    # Later calls of a slow driver have no effect on the dead link.
    server.lose()
    server.refuse()
    server.up()
    server.send_raw(raw(Noop()))
    assert list(world.engine.notices) == ["no connection to s0:4730: reset"]
    world.sleep(0.24)
    assert world.alive() == []
    world.sleep(0.27)
    assert world.serve().take() == [CanDo(b"f"), GRAB]


def test_work_fails_once_each_server_has_failed_and_none_was_reached() -> None:
    world = working(2, connect_timeout=2.0)
    for reason in ("one", "two"):
        world.peer("s0").refuse(OSError(reason))
        world.sleep(0.5)
    assert not world.stream.done
    world.serve("s1").lose()
    reasons = r"s0:4730 \(two\), s1:4730 \(the server closed the connection\)"
    with pytest.raises(ServerUnavailable, match=reasons):
        world.stream.raise_error()
    # The next `work` tries all servers again. Another one forgets the servers of this one.
    world.end_work()
    world.work()
    world.peer("s0").refuse()
    world.serve("s1").send(NoJob())
    world.peer("s1").lose()
    assert not world.stream.done
    world.end_work()
    world.work()
    world.peer("s0").refuse()
    world.sleep(2.1)
    with pytest.raises(ServerUnavailable, match="no connection within 2 seconds"):
        world.stream.raise_error()


def test_work_with_unlimited_outage_waits_for_the_first_server() -> None:
    world = working(2, max_outage=None)
    for peer in world.alive():
        peer.refuse()
    waits = "no server could be reached: s0:4730 (refused), s1:4730 (refused); waiting for one"
    assert list(world.engine.notices)[-1:] == [waits]
    assert world.stream.ready
    world.sleep(1.0)
    for peer in world.alive():
        peer.refuse()
    assert world.engine.notices.count(waits) == 1
    world.sleep(1.5)
    assert not world.stream.done
    assert world.serve("s1").take() == [CanDo(b"f"), GRAB]


def test_work_without_servers_fails() -> None:
    world = working(0, max_outage=None)
    with pytest.raises(ServerUnavailable, match="there are no servers"):
        world.stream.raise_error()


def test_lost_job_keeps_its_slot_until_the_caller_is_done() -> None:
    world, server, job = holding(max_outage=60.0)
    server.lose()
    assert (job.is_lost, job.ended) == (True, False)
    assert world.engine.notices[-1].endswith(", and 1 jobs with it")
    reason = r"> was lost with its connection to .*: the server closed"
    with pytest.raises(ConnectionError, match=reason):
        world.send(job, WorkStatus(b"H:1", b"1", b"2"))
    with pytest.raises(ConnectionError, match=reason):
        world.complete(job)
    with pytest.raises(InvalidWorkerState):
        world.complete(job)
    world.sleep(0.5)
    new = world.serve()
    assert new.take() == [CanDo(b"f")]
    world.sleep(1000.0)
    assert not world.stream.done  # Full slots are no outage.
    world.job_done(job)
    assert new.take() == [GRAB]


# Packets about jobs.


def test_refused_packets_are_not_sent() -> None:
    world, server, job = holding()
    for event in (WorkFail(b"H:1", b"reason"), WorkStatus(b"H:1", b"1" * 12, b"2")):
        with pytest.raises(LocalProtocolError):
            world.send(job, event)
    with pytest.raises(ValueError):
        world.send(job, result(), timeout=float("nan"))
    _, foreign_server, foreign = holding()
    with pytest.raises(InvalidWorkerState, match="is another worker's"):
        world.send(foreign, result())
    assert not foreign.ended
    assert foreign_server.take() == []
    world.finish(job)
    assert server.take() == [result(), GRAB]


def test_senders_wait_for_a_slow_server() -> None:
    world, server, job = holding()
    server.reads = False
    assert world.send(job, data(MEGABYTE // 2)).done
    first, second = world.send(job, data(MEGABYTE)), world.send(job, data(10))
    taken = 0
    while taken < MEGABYTE // 2:
        chunk = world.engine.data_to_send(server.link, world.now)
        assert 0 < len(chunk) <= 256 * 1024
        taken += len(chunk)
    assert (first.done, second.done) == (False, False)  # The rest slightly exceeds the limit.
    server.reads = True
    world.pump()
    assert (first.done, second.done) == (True, True)
    first.raise_error()
    world.release(first)  # Callers release a wait that is done, too.
    assert server.take() == [data(MEGABYTE), data(10)]


def test_waiting_for_a_slow_server_ends_by_its_timeout_or_loss() -> None:
    world, server, job = holding()
    server.reads = False
    timed_out = world.send(job, data(MEGABYTE), timeout=2.0)
    lost, released = world.send(job, data(1), timeout=500.0), world.send(job, data(1), timeout=9.0)
    world.release(released)
    world.sleep(1.9)
    assert not timed_out.done
    world.sleep(8.0)
    server.lose()
    assert [wait.done for wait in (timed_out, lost, released)] == [True, True, False]
    assert [wait.timed_out for wait in (timed_out, lost)] == [True, False]
    timed_out.raise_error()
    lost.raise_error()
    assert wakes(released) == 0


@pytest.mark.parametrize("catches_up", [False, True])
def test_server_is_disconnected_if_nothing_moves_while_a_sender_waits(catches_up: bool) -> None:
    world, server, job = holding()
    server.reads = False
    wait = world.send(job, data(3 * MEGABYTE))
    world.sleep(59.0)
    world.engine.data_to_send(server.link, world.now)
    world.sleep(60.0)
    assert not server.closed
    if catches_up:
        world.release(wait)
    world.sleep(60.0)
    assert (server.closed, job.is_lost) == (not catches_up, not catches_up)


# Wake-ups of the caller.


def test_timeout_wakes_the_caller_repeatedly_and_can_be_changed() -> None:
    world = World()
    stream = world.work(timeout=60.0)
    world.serve().send(NoJob())
    stream.timeout, stream.active = 2.0, False
    for _ in range(2):
        assert world.next_job() is None
        world.sleep(1.9)
        assert not stream.ready
        world.sleep(0.2)
        assert (stream.ready, stream.active) == (True, False)
    stream.timeout = None
    world.next_job()
    world.sleep(3.0)
    assert not stream.ready
    stream.timeout = 2.0
    world.next_job()
    world.end_work()
    assert world.engine.next_deadline() is None
    world.sleep(3.0)
    assert not stream.ready


def test_zero_timeout_wakes_the_caller_at_most_every_10_ms() -> None:
    world = World(functions=[])
    world.work(timeout=0.0)
    world.serve()
    assert world.engine.next_deadline() == 0.01


def test_disconnect_closes_the_connection_once() -> None:
    world = working(2)
    first, second = world.serve_all()
    for _ in range(2):
        world.call(world.engine.disconnect, world.now, first.link.server)
    assert (first.closed, second.closed, world.stream.done) == (True, False, False)
    (notice,) = world.engine.notices
    assert "closed by the application" in notice


@pytest.mark.parametrize(
    ("option", "bad", "good"),
    [
        ("max_jobs", [0, -1, True, 1.5, None, "1"], [1]),
        ("connect_timeout", [0, None], [1e-3]),
        ("poll_interval", [0.0, 0.0099, -1, float("nan"), True, None, "5"], [0.01, 1e9]),
        ("max_outage", [-1.0, float("nan"), True, "5"], [0, None]),
        ("max_packet_size", [63, "1", 2**32], [64]),
    ],
)
def test_option_out_of_range_is_named(option: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"{option} is "):
            World(**{option: value})
    for value in good:
        World(**{option: value})
