"""Conversations between a worker's engine and scripted servers.

The tests check which server receives a grab, and when. They follow jobs, links and the call of
`work` through every event of a server, a connection, the clock or the worker's caller.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gearman_proto.address import parse_host_list
from gearman_proto.constants import MAX_CAN_DO_TIMEOUT
from gearman_proto.engines.worker.engine import _OUTAGE, WorkerEngine
from gearman_proto.engines.worker.phases import Phase, WorkerLife
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    InvalidWorkerState,
    LocalProtocolError,
    ServerUnavailable,
)
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import WorkerJob
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_RESPONSE,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    OptionRes,
    PreSleep,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.profiles import examples

from .harness import Bell, raw, wakes
from .worker_harness import Peer, World

if TYPE_CHECKING:
    from gearman_proto.engines.worker.engine import WorkStream
    from gearman_proto.wire.packets import Event, PacketEvent

GRAB = GrabJobUniq()
MEGABYTE = 1024 * 1024


def working(servers: int = 1, **options: Any) -> tuple[World, WorkStream]:
    """Return a World with a running `work` and no connection yet."""
    world = World(servers, **options)
    return world, world.work()


#: A JOB_ASSIGN_UNIQ that tests deliver in many pieces.
LARGE = pack_event(JobAssignUniq(b"H:1", b"f", b"", b"x" * 1000), MAGIC_RESPONSE)


def grabbing(**options: Any) -> tuple[World, WorkStream, Peer]:
    """Return a World with one server that has read a grab."""
    world, stream = working(**options)
    server = world.serve()
    server.take()
    return world, stream, server


def asleep(**options: Any) -> tuple[World, WorkStream, Peer]:
    """Return a World with one server that has answered NO_JOB."""
    world, stream, server = grabbing(**options)
    server.send(NoJob())
    assert server.take() == [PreSleep()]
    return world, stream, server


def holding(**options: Any) -> tuple[World, WorkStream, Peer, WorkerJob]:
    """Return a World with one server that has assigned a job."""
    world, stream, server = grabbing(**options)
    job = server.assign()
    server.take()
    return world, stream, server, job


def let_pause(server: Peer) -> None:
    """Wake the sleeping worker without a job until it pauses before the next grab."""
    for _ in range(3):
        server.send(Noop())
        server.send(NoJob())
    server.send(Noop())
    assert not server.grabbing


def to_next_deadline(world: World) -> float:
    """Advance the clock to the engine's next deadline. Return the elapsed seconds."""
    start = world.now
    deadline = world.engine.next_deadline()
    assert deadline is not None
    world.sleep(deadline - start)
    return deadline - start


def result(number: int = 1) -> WorkComplete:
    return WorkComplete(b"H:%d" % number, b"out")


def is_over(stream: WorkStream) -> bool:
    """Return True if `work` has ended without an error."""
    stream.raise_error()
    return stream.done


# The greeting.


@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_a_job(chunk: int) -> None:
    world, stream = working(chunk=chunk)
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GRAB]
    assert not stream.ready
    server.send(JobAssignUniq(b"H:1", b"f", b"u", b"in\0"))
    assert (stream.ready, stream.active, wakes(stream)) == (True, True, 1)
    job = world.job()
    assert not stream.ready
    assert (job.handle, job.task, job.unique, job.data) == ("H:1", "f", "u", b"in\0")
    assert (job.wire_handle, job.wire_task) == (b"H:1", b"f")
    assert job.connection == server.link.address
    assert world.engine.has_jobs()
    assert server.take() == []
    world.complete(job)
    assert (job.ended, job.is_lost) == (True, False)
    assert server.take() == [result()]
    world.job_done(job)
    assert server.take() == [GRAB]
    assert not world.engine.has_jobs()
    server.send(NoJob())
    assert server.take() == [PreSleep()]
    server.send(Noop())
    assert server.take() == [GRAB]


def test_the_order_of_the_greeting() -> None:
    world = World(functions=[b"b"])
    world.register(b"a", 2.0)
    world.call(world.engine.set_client_id, b"me")
    world.work()
    server = world.serve()
    expected = [SetClientId(b"me"), CanDo(b"b"), CanDoTimeout(b"a", b"2000"), GRAB]
    assert server.take() == expected


@pytest.mark.parametrize(
    ("timeout", "milliseconds"),
    [
        (1, b"1000"),
        (0.0001, b"1"),
        (1.0005, b"1001"),
        (2.5, b"2500"),
        (MAX_CAN_DO_TIMEOUT / 1000, b"%d" % MAX_CAN_DO_TIMEOUT),
    ],
)
def test_time_limit_is_sent_in_whole_milliseconds(timeout: float, milliseconds: bytes) -> None:
    world = World(functions=[])
    world.register(b"f", timeout)
    world.work()
    assert world.serve().take() == [CanDoTimeout(b"f", milliseconds), GRAB]


@pytest.mark.parametrize(
    "timeout", [0, -1, float("nan"), float("inf"), MAX_CAN_DO_TIMEOUT / 1000 + 1]
)
def test_invalid_time_limit_raises(timeout: float) -> None:
    world = World(functions=[])
    with pytest.raises(ValueError, match="timeout is"):
        world.register(b"f", timeout)
    world.work()
    assert world.serve().take() == []


def test_worker_without_functions_sends_no_grab() -> None:
    world, stream = working(functions=[])
    server = world.serve()
    assert server.take() == []
    server.send(Noop())
    world.sleep(100)
    assert server.take() == []
    assert not stream.done
    world.register(b"f")
    assert server.take() == [CanDo(b"f"), GRAB]


def test_job_assign_without_unique() -> None:
    world, _, server = grabbing()
    server.send(Error(b"server_error", b"no such packet"))
    server.send(JobAssign(b"H:1", b"f", b"in"))
    job = world.job()
    assert (job.handle, job.unique, job.data) == ("H:1", None, b"in")


def test_job_data_is_decoded_once_on_first_access() -> None:
    class Encoder(NoopEncoder):
        calls = 0

        @classmethod
        def decode(cls, data: bytes) -> Any:
            cls.calls += 1
            return [data]

    *_, job = holding()
    job._gm_encoder = Encoder
    assert Encoder.calls == 0
    assert job.data == [b"in"]
    assert job.data is job.data
    assert Encoder.calls == 1


def test_link_repr_shows_address_and_phase() -> None:
    _, _, server = grabbing()
    assert repr(server.link) == f"<WorkerLink to {server.link.address}, grabbing>"


# Sleeping.


def test_noop_counts_only_while_asleep() -> None:
    world, _ = working(2)
    first, second = world.serve("s0"), world.serve("s1")
    first.take()
    second.take()
    first.send(Noop())  # In the phase "grabbing".
    second.send(Noop())  # In the phase "queued".
    assert (first.take(), second.take()) == ([], [])
    first.send(Noop(), NoJob())
    assert (first.take(), second.take()) == ([PreSleep()], [GRAB])
    job = second.assign()
    second.send(Noop())
    first.send(Noop())
    first.send(Noop())
    assert (first.take(), second.take()) == ([], [])
    world.finish(job)
    # The second has waited longer for its turn.
    assert (first.take(), second.take()) == ([], [result(), GRAB])


def test_noop_while_pausing_or_leaving() -> None:
    world, _, server = asleep()
    let_pause(server)
    server.take()
    server.send(Noop())
    assert server.take() == []
    world.sleep(0.01)
    assert server.take() == [GRAB]
    job = server.assign()
    world.finish(job, go_on=False)
    server.take()
    server.send(Noop())
    assert server.take() == []
    assert not server.closed


@pytest.mark.parametrize("look_again", [1.0, 5.0])
def test_sleeping_link_polls_at_the_look_again_interval(look_again: float) -> None:
    times = set()
    for seed in range(20):
        world, _, server = asleep(seed=seed, look_again=look_again)
        deadline = world.engine.next_deadline()
        assert deadline is not None
        assert 0.8 * look_again <= deadline <= 1.2 * look_again
        times.add(deadline)
        world.sleep(0.79 * look_again)
        assert server.take() == []
        world.sleep(0.42 * look_again)
        assert server.take() == [GRAB]
    assert len(times) == 20


def test_link_with_repeated_useless_wakeups_pauses() -> None:
    world, _, server = asleep()
    for _ in range(3):
        server.send(Noop())
        assert server.take() == [GRAB]
        server.send(NoJob())
        assert server.take() == [PreSleep()]
    for pause in (0.01, 0.02, 0.04, 0.08, 0.1, 0.1):
        server.send(Noop())
        world.sleep(0.99 * pause)
        assert server.take() == []
        world.sleep(0.02 * pause)
        assert server.take() == [GRAB]
        server.send(NoJob())
        server.take()
    # A NOOP after a longer silence causes a grab at once.
    world.sleep(0.06)
    server.send(Noop())
    assert server.take() == [GRAB]


def test_job_ends_the_pauses() -> None:
    world, _, server = asleep()
    let_pause(server)
    world.sleep(0.01)
    world.finish(server.assign())
    server.send(NoJob())
    server.take()
    server.send(Noop())
    assert server.take() == [GRAB]


@pytest.mark.unmeasured
def test_useless_wakeups_cause_no_busy_loop() -> None:
    """The server answers each PRE_SLEEP with NOOP and each GRAB_JOB_UNIQ with NO_JOB."""
    world, _, server = asleep()
    start = server.count
    for _ in range(2500):
        server.send(Noop())
        if not server.grabbing:
            to_next_deadline(world)
        server.send(NoJob())
    assert 240 < world.now < 260
    assert (server.count - start) / world.now < 25


# Turns and slots.


def test_servers_take_turns() -> None:
    world, _ = working(3)
    servers = [world.serve(f"s{number}") for number in range(3)]
    given: list[str] = []
    for number in range(30):
        (server,) = (server for server in servers if server.grabbing)
        given.append(server.host)
        world.finish(server.assign(number))
    assert Counter(given) == {"s0": 10, "s1": 10, "s2": 10}
    assert given[:3] * 10 == given


def test_server_without_jobs_does_not_block_others() -> None:
    world, _ = working(2)
    empty, full = world.serve("s0"), world.serve("s1")
    empty.send(NoJob())
    for number in range(5):
        world.finish(full.assign(number))
        assert full.grabbing
    assert empty.take() == [CanDo(b"f"), GRAB, PreSleep()]


def test_several_slots() -> None:
    world, stream = working(2, max_jobs=3)
    first, second = world.serve("s0"), world.serve("s1")
    assert first.grabbing
    assert second.grabbing
    one = first.assign(1)
    assert first.grabbing  # The third slot.
    two = second.assign(2)
    assert not second.grabbing
    three = first.assign(3)
    assert (first.grabbing, second.grabbing) == (False, False)
    world.finish(two)
    assert (first.grabbing, second.grabbing) == (False, True)
    world.finish(one)
    world.finish(three)
    assert (first.grabbing, second.grabbing) == (True, True)
    assert not stream.done


def take_grabs(server: Peer) -> int:
    """Return the number of grabs read. Fail if there was any other packet."""
    read = server.take()
    assert read == [GRAB] * len(read)
    return len(read)


def assign_all(server: Peer) -> list[WorkerJob]:
    """Answer each grab with a job, in one chunk."""
    server.send(
        *(JobAssignUniq(b"H:%d" % number, b"f", b"", b"") for number in range(server.grabs))
    )
    jobs = []
    while (job := server.world.next_job()) is not None:
        jobs.append(job)
    return jobs


def test_number_of_grabs_doubles_while_jobs_arrive() -> None:
    _, _, server = grabbing(max_jobs=100)
    turns = []
    for _ in range(6):
        assign_all(server)
        turns.append(take_grabs(server))
    assert turns == [2, 4, 8, 8, 8, 8]


def test_number_of_grabs_is_limited_by_free_slots() -> None:
    world, _, server = grabbing(max_jobs=4)
    jobs = assign_all(server)
    assert take_grabs(server) == 2
    jobs += assign_all(server)
    assert take_grabs(server) == 1
    jobs += assign_all(server)
    assert take_grabs(server) == 0
    for job in jobs:
        world.complete(job)
    server.take()
    for job in jobs:
        world.job_done(job)
    assert take_grabs(server) == 1  # The first job done triggers a grab at once.


def test_no_job_resets_the_number_of_grabs() -> None:
    _, _, server = grabbing(max_jobs=100)
    assign_all(server)
    assert take_grabs(server) == 2
    server.send(NoJob())
    assert server.take() == []
    assert server.grabbing
    server.send(NoJob())
    assert server.take() == [PreSleep()]
    server.send(Noop())
    assert take_grabs(server) == 1


def test_last_answer_of_a_turn_decides_the_next_phase() -> None:
    world, _, server = grabbing(max_jobs=100)
    assign_all(server)
    server.take()
    server.send(NoJob())
    server.assign(3)
    assert take_grabs(server) == 2
    server.assign(4)
    server.send(NoJob())
    assert server.take() == [PreSleep()]
    assert world.engine._grabs == 0


def test_links_share_the_free_slots() -> None:
    world, _ = working(3, max_jobs=6)
    hung, one, other = (world.serve(f"s{number}") for number in range(3))
    world.finish(hung.assign())
    assert hung.grabs == 2
    one.assign()
    assert one.grabs == 2
    other.assign()
    assign_all(one)
    assert (one.grabs, other.grabs) == (0, 0)
    world.sleep(1.1)
    assert (one.grabs, other.grabs) == (1, 1)


def test_turn_with_a_hanging_server_frees_its_slots() -> None:
    """Each answer restarts the timeouts of the turn."""
    world, stream = working(2, max_jobs=3)
    hung, other = world.serve("s0"), world.serve("s1")
    other.send(NoJob())
    world.finish(hung.assign(1))
    other.take()
    assert hung.grabs == 2
    world.sleep(0.9)
    hung.assign(2)
    world.sleep(0.9)
    assert world.engine._grabs == 1
    world.sleep(0.2)
    assert (hung.link.phase, world.engine._grabs) == (Phase.LATE, 0)
    world.sleep(27)
    assert hung.link.alive
    world.sleep(2)
    assert not hung.link.alive
    assert not stream.done


def test_stopping_while_several_grabs_are_unanswered() -> None:
    world, stream, server = grabbing(max_jobs=3)
    world.finish(server.assign(1))
    server.take()
    assert server.grabs == 2
    world.stop()
    server.send(NoJob())
    assert server.take() == []
    job = server.assign(2)
    world.finish(job)
    assert server.take() == [result(2), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert stream.done


def test_slot_is_kept_until_job_done() -> None:
    world, _, server, job = holding()
    world.complete(job)
    world.sleep(100)
    assert server.take() == [result()]
    assert world.engine.has_jobs()
    world.job_done(job)
    assert server.take() == [GRAB]
    world.job_done(job)
    assert server.take() == []


def test_send_done_writes_result_and_next_grab_together() -> None:
    """The engine writes the next grab together with the result."""
    world, _, server, job = holding()
    world.send(job, WorkData(job.wire_handle, b"part"), done=True)
    assert not job._gm_is_over
    world.engine.send(world.now, Bell(), job, WorkComplete(job.wire_handle, b"out"), done=True)
    data = world.engine.data_to_send(server.link, world.now)
    server.read(data)
    assert server.take() == [WorkData(job.wire_handle, b"part"), result(), GRAB]
    assert (job._gm_is_over, world.engine.has_jobs()) == (True, False)
    world.job_done(job)
    assert server.take() == []


def test_send_done_while_stopping_writes_no_grab() -> None:
    world, stream, server, job = holding()
    world.stop()
    world.send(job, WorkComplete(job.wire_handle, b"out"), done=True)
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert stream.done


def test_jobs_end_in_any_order() -> None:
    world, _, server = grabbing(max_jobs=3)
    jobs = [server.assign(number) for number in range(3)]
    server.take()
    for number in (1, 2, 0):
        world.complete(jobs[number])
    assert server.take() == [result(1), result(2), result(0)]
    world.job_done(jobs[2])
    assert server.take() == [GRAB]


def test_jobs_of_several_servers_wake_the_caller_once() -> None:
    world, stream = working(2, max_jobs=2)
    first, second = world.serve("s0"), world.serve("s1")
    first.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    second.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    assert wakes(stream) == 1
    jobs = [world.next_job(), world.next_job(), world.next_job()]
    assert [job and job.connection for job in jobs] == [
        first.link.address,
        second.link.address,
        None,
    ]


def test_two_jobs_with_the_same_handle() -> None:
    """After a CAN_DO_TIMEOUT, gearmand might assign a job again to the worker that holds it."""
    world, _, server = grabbing(max_jobs=2)
    jobs = [server.assign(1), server.assign(1)]
    server.take()
    for job in jobs:
        world.finish(job)
    assert server.take() == [result(), GRAB, result()]
    server.send(Error(b"JOB_NOT_FOUND", b""))
    assert not server.closed


# A server that hangs.


def test_a_late_answer() -> None:
    world, stream = working(2)
    hung, other = world.serve("s0"), world.serve("s1")
    other.take()
    world.sleep(0.99)
    assert other.take() == []
    world.sleep(0.02)
    assert other.take() == [GRAB]
    late = hung.assign(1)
    job = other.assign(2)
    assert (hung.grabbing, other.grabbing) == (False, False)
    world.finish(job)
    assert (hung.grabbing, other.grabbing) == (False, False)
    world.finish(late)
    assert hung.take()[-2:] == [result(1), GRAB]
    assert not stream.done


def test_a_late_no_job() -> None:
    world, _ = working(2)
    hung, other = world.serve("s0"), world.serve("s1")
    world.sleep(1.01)
    hung.send(NoJob(), Noop())
    assert hung.take() == [CanDo(b"f"), GRAB, PreSleep()]
    other.send(NoJob())
    assert hung.take() == [GRAB]


def test_unanswered_grab_closes_the_link() -> None:
    world, stream, server = grabbing()
    world.sleep(29.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    (notice,) = world.engine.notices
    assert notice == "no connection to s0:4730: no answer within the time"
    assert stream.done  # The only server has never answered.


def test_server_that_hangs_after_sleeping_is_reconnected() -> None:
    world, stream, server = asleep()
    world.sleep(6.1)
    assert server.take() == [GRAB]
    world.sleep(31)
    assert server.closed
    world.sleep(0.5)
    assert world.serve().take() == [CanDo(b"f"), GRAB]
    assert not stream.done


# Errors.


def test_server_without_grab_job_uniq_receives_grab_job() -> None:
    world, _ = working(2, max_jobs=2)
    old, new = world.serve("s0"), world.serve("s1")
    old.take()
    old.send(Error(b"server_error", b"at line 1"))
    assert old.take() == [GrabJob()]
    old.send(NoJob())
    old.send(Noop())
    assert old.take() == [PreSleep(), GrabJob()]
    old.lose()
    world.sleep(0.5)
    assert world.serve("s0").take() == [CanDo(b"f"), GrabJob()]
    assert new.take() == [CanDo(b"f"), GRAB]


def test_server_without_grab_job_is_disconnected() -> None:
    world, stream, server = grabbing()
    server.send(Error(b"server_error", b""))
    assert server.take() == [GrabJob()]
    server.send(Error(b"server_error", b"at line 1"))
    assert server.closed
    (notice,) = world.engine.notices
    assert notice == "no connection to s0:4730: server_error: at line 1"
    assert not stream.done
    world.sleep(0.5)
    assert world.serve().take() == [CanDo(b"f"), GrabJob()]


def test_late_error_takes_no_slot_from_others() -> None:
    world, _ = working(2)
    old, other = world.serve("s0"), world.serve("s1")
    old.take()
    world.sleep(1.01)
    job = other.assign()
    old.send(Error(b"server_error", b""))
    assert old.take() == []
    world.finish(job)
    other.send(NoJob())
    assert old.take() == [GrabJob()]


def test_error_while_stopping_sends_no_grab() -> None:
    world, stream, server = grabbing()
    world.stop()
    server.send(Error(b"server_error", b""))
    assert server.closed
    assert server.take() == []
    assert is_over(stream)


def test_error_flushes_pending_unregistrations() -> None:
    world, _, server = grabbing(functions=[b"f", b"g"])
    world.unregister(b"g")
    server.send(Error(b"server_error", b""))
    assert server.take() == [CantDo(b"g"), GrabJob()]
    world.unregister(b"f")
    server.send(NoJob())
    assert server.take() == [CantDo(b"f")]


@pytest.mark.parametrize("code", [b"JOB_NOT_FOUND", b"not_worker"])
def test_an_error_about_a_job(code: bytes) -> None:
    world, _, server, job = holding()
    world.finish(job)
    server.take()
    server.send_raw(raw(Error(code, b"\xff")))
    (notice,) = world.engine.notices
    assert notice.startswith(f"s0:4730 did not take what was sent about a job: {code.decode()}: ")
    assert not server.closed
    server.send(NoJob())
    assert server.take() == [PreSleep()]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\0RES\0\0\0\x63\0\0\0\0",
        raw(JobAssign(b"H:1", b"f", b"")),
        raw(NoJob(), NoJob()),
        raw(EchoRes(b"")),
        raw(OptionRes(b"exceptions")),
        raw(JobAssignUniq(b"H" * 65537, b"f", b"", b"")),
    ],
)
def test_garbage(data: bytes) -> None:
    world, stream, server = grabbing()
    server.send_raw(data)
    assert server.closed
    (notice,) = world.engine.notices
    assert notice.startswith("no connection to s0:4730: ")
    server.send_raw(data)
    server.lose()
    server.up()
    if stream.done:
        with pytest.raises(ServerUnavailable):
            stream.raise_error()
        world.end_work()
        stream = world.work()
    else:
        world.sleep(0.5)
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GRAB]
    world.finish(server.assign())
    assert server.take() == [result(), GRAB]


def test_garbage_after_jobs() -> None:
    world, stream, server = grabbing()
    server.send_raw(raw(JobAssignUniq(b"H:1", b"f", b"", b"")) + b"garbage")
    assert server.closed
    assert stream.ready
    assert world.next_job() is None
    assert not world.engine.has_jobs()
    assert world.engine.notices[0].endswith(", and 1 jobs with it")


def test_oversized_packet_closes_the_connection() -> None:
    _, _, server = grabbing(max_packet_size=100)
    server.send_raw(raw(JobAssignUniq(b"H:1", b"f", b"", b"x" * 100)))
    assert server.closed


# Functions.


def test_register_while_asleep() -> None:
    world, _, server = asleep()
    world.register(b"g", 1.0)
    assert server.take() == [CanDoTimeout(b"g", b"1000"), GRAB]


def test_register_while_pausing() -> None:
    world, _, server = asleep()
    let_pause(server)
    server.take()
    world.register(b"g")
    assert server.take() == [CanDo(b"g"), GRAB]


def test_register_while_grabbing() -> None:
    world, _, server = grabbing()
    world.register(b"g")
    assert server.take() == [CanDo(b"g")]
    server.send(NoJob())
    assert server.take() == [PreSleep()]


def test_register_while_holding_a_job() -> None:
    world, _, server, job = holding()
    world.register(b"g")
    assert server.take() == [CanDo(b"g")]
    world.finish(job)
    assert server.take() == [result(), GRAB]


def test_register_a_function_twice() -> None:
    world, _, server = asleep(functions=[b"f", b"g"])
    world.register(b"f")
    assert server.take() == []
    server.lose()
    world.sleep(0.5)
    assert world.serve().take() == [CanDo(b"g"), CanDo(b"f"), GRAB]


def test_register_while_connecting() -> None:
    world, _ = working()
    world.register(b"g")
    world.unregister(b"f")
    assert world.serve().take() == [CanDo(b"g"), GRAB]


def test_unregister_while_asleep() -> None:
    world, _, server = asleep(functions=[b"f", b"g"])
    world.unregister(b"f")
    assert server.take() == [CantDo(b"f")]
    world.unregister(b"f")
    world.unregister(b"unknown")
    assert server.take() == []
    server.send(Noop())
    assert server.take() == [GRAB]


def test_unregister_the_last_function_while_asleep() -> None:
    world, _, server = asleep()
    world.unregister(b"f")
    assert server.take() == [CantDo(b"f")]
    world.sleep(100)
    assert server.take() == []
    world.register(b"f")
    assert server.take() == [CanDo(b"f"), GRAB]


def test_unregister_while_grabbing() -> None:
    world, _, server = grabbing(functions=[b"f", b"g"])
    world.unregister(b"f")
    assert server.take() == []
    server.send(NoJob())
    assert server.take() == [CantDo(b"f"), PreSleep()]


def test_unregister_the_last_function_while_grabbing() -> None:
    world, _, server = grabbing()
    world.unregister(b"f")
    server.send(NoJob())
    assert server.take() == [CantDo(b"f")]
    world.register(b"g")
    assert server.take() == [CanDo(b"g"), GRAB]


def test_unregister_while_waiting_for_a_turn() -> None:
    world, _ = working(2)
    first, second = world.serve("s0"), world.serve("s1")
    world.unregister(b"f")
    assert second.take() == [CanDo(b"f"), CantDo(b"f")]
    first.send(NoJob())
    assert first.take() == [CanDo(b"f"), GRAB, CantDo(b"f")]
    assert second.take() == []
    world.register(b"f")
    assert first.take() + second.take() == [CanDo(b"f"), GRAB, CanDo(b"f")]


def test_job_for_an_unregistered_function_is_completed_before_cant_do() -> None:
    world, _, server = grabbing(functions=[b"f", b"g"])
    world.unregister(b"f")
    job = server.assign()
    assert server.take() == []
    world.finish(job)
    assert server.take() == [result(), CantDo(b"f"), GRAB]


def test_unregister_while_holding_its_job() -> None:
    """A CANT_DO would requeue the job, and a grab might return another job of the function."""
    world, _, server = grabbing(functions=[b"f", b"g"], max_jobs=3)
    one, two = server.assign(1), server.assign(2)
    server.take()
    server.send(NoJob())
    world.unregister(b"f")
    assert server.take() == [PreSleep()]
    server.send(Noop())
    world.sleep(100)
    world.finish(one)
    assert server.take() == [result(1)]
    world.complete(two)
    assert server.take() == [result(2), CantDo(b"f"), GRAB]
    world.job_done(two)


def test_no_grab_while_a_job_delays_cant_do() -> None:
    world, _, server = grabbing(functions=[b"f", b"g"], max_jobs=2)
    one, two = server.assign(1), server.assign(2)
    server.take()
    world.unregister(b"f")
    world.finish(one)
    assert server.take() == [result(1)]
    world.finish(two)
    assert server.take() == [result(2), CantDo(b"f"), GRAB]


def test_register_again_while_a_job_delays_cant_do() -> None:
    world, _, server = grabbing(max_jobs=2)
    job = server.assign(1)
    server.send(NoJob())
    world.unregister(b"f")
    server.send(Noop())
    server.take()
    world.register(b"f")
    assert server.take() == [GRAB]
    world.finish(job)
    assert server.take() == [result()]


def test_unregister_while_holding_a_job_of_another_function() -> None:
    world, _, server, job = holding(functions=[b"f", b"g"])
    world.unregister(b"g")
    assert server.take() == [CantDo(b"g")]
    world.finish(job)
    assert server.take() == [result(), GRAB]


def test_change_time_limit_while_asleep() -> None:
    world, _, server = asleep()
    world.register(b"f", 1.0)
    assert server.take() == [CantDo(b"f"), CanDoTimeout(b"f", b"1000"), GRAB]
    server.send(NoJob())
    server.take()
    world.register(b"f", None)
    assert server.take() == [CantDo(b"f"), CanDo(b"f"), GRAB]


def test_change_time_limit_while_grabbing() -> None:
    world, _, server = grabbing()
    world.register(b"f", 1.0)
    assert server.take() == []
    server.send(NoJob())
    # The NO_JOB covered only the old registration, so the worker sends another grab.
    assert server.take() == [CantDo(b"f"), CanDoTimeout(b"f", b"1000"), GRAB]


def test_change_time_limit_while_holding_its_job() -> None:
    world, _, server, job = holding()
    world.register(b"f", 1.0)
    assert server.take() == []
    world.finish(job)
    assert server.take() == [result(), CantDo(b"f"), CanDoTimeout(b"f", b"1000"), GRAB]


def test_set_client_id() -> None:
    world, _ = working(2)
    first = world.serve("s0")
    first.take()
    world.call(world.engine.set_client_id, b"me")
    assert first.take() == [SetClientId(b"me")]
    assert world.serve("s1").take() == [SetClientId(b"me"), CanDo(b"f")]
    first.lose()
    world.sleep(0.5)
    assert world.serve("s0").take()[0] == SetClientId(b"me")


# Losing servers.


def test_lost_link_is_reconnected() -> None:
    world, stream, server = asleep()
    world.register(b"g", 1.0)
    server.send(NoJob())
    server.lose(OSError("reset"))
    assert list(world.engine.notices) == ["no connection to s0:4730: reset"]
    assert stream.ready
    world.sleep(0.24)
    assert world.alive() == []
    world.sleep(0.27)
    server = world.serve()
    assert server.take() == [CanDo(b"f"), CanDoTimeout(b"g", b"1000"), GRAB]
    world.finish(server.assign())
    assert server.take() == [result(), GRAB]


def test_backoff_grows_up_to_a_limit_and_ends_with_a_job() -> None:
    world, _, server = asleep(max_outage=None)
    server.lose()
    for longest in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        assert longest / 2 <= to_next_deadline(world) <= longest
        world.peer().refuse()
    to_next_deadline(world)
    world.serve().lose()
    assert to_next_deadline(world) >= 15.0  # A connection alone does not reset the backoff.
    server = world.serve()
    server.send(NoJob())
    server.lose()
    assert to_next_deadline(world) >= 15.0  # Neither does an answer without a job.
    world.finish(world.serve().assign())
    world.peer().lose()
    assert to_next_deadline(world) <= 0.5


def test_backoff_differs_between_workers() -> None:
    deadlines = set()
    for seed in range(10):
        world, _, server = asleep(seed=seed)
        server.lose()
        deadlines.add(world.engine.next_deadline())
    assert len(deadlines) == 10


def test_unavailable_servers_do_not_block_others() -> None:
    world, stream = working(3)
    dead, slow, good = (world.peer(f"s{number}") for number in range(3))
    dead.refuse()
    good.up()
    for number in range(3):
        world.finish(good.assign(number))
    assert not slow.link.is_up
    assert good.take().count(GRAB) == 4
    assert not stream.done


def test_lost_grab_frees_its_slot() -> None:
    world, _ = working(2)
    first, second = world.serve("s0"), world.serve("s1")
    second.take()
    first.lose()
    assert second.take() == [GRAB]


def test_connecting_takes_too_long() -> None:
    world, stream = working(connect_timeout=2.0)
    server = world.peer()
    assert server.timeout == 2.0
    world.sleep(1.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    with pytest.raises(ServerUnavailable, match=r"s0:4730 \(no connection within 2 seconds\)"):
        stream.raise_error()


def test_no_server_at_the_beginning() -> None:
    world, stream = working(2)
    world.peer("s0").refuse(OSError("one"))
    world.sleep(0.5)
    world.peer("s0").refuse(OSError("two"))
    assert not stream.done
    world.peer("s1").refuse(OSError("three"))
    assert stream.done
    with pytest.raises(ServerUnavailable, match=r"s0:4730 \(two\), s1:4730 \(three\)"):
        stream.raise_error()
    world.end_work()
    world.work()
    world.serve("s0")
    world.finish(world.peer("s0").assign())


def test_work_fails_if_all_servers_close_at_once() -> None:
    world, stream = working(2, max_outage=None)
    world.serve("s0").lose()
    assert not stream.done
    world.serve("s1").lose()
    with pytest.raises(ServerUnavailable, match="the server closed the connection"):
        stream.raise_error()
    world.end_work()
    stream = world.work()
    world.serve("s0").send(NoJob())
    assert not stream.done


def test_one_server_is_enough_at_the_beginning() -> None:
    world, stream = working(2)
    good = world.serve("s0")
    good.send(NoJob())
    world.peer("s1").refuse()
    for _ in range(30):
        world.sleep(7.0)
        good.send(NoJob())
        for server in world.alive():
            if server is not good:
                server.refuse()
    assert not stream.done


def test_server_without_grabs_counts_as_available() -> None:
    world, stream = working(functions=[])
    world.serve().lose()
    assert not stream.done
    world.sleep(0.5)
    world.serve()
    world.sleep(100.0)
    assert not stream.done


def test_without_servers() -> None:
    _, stream = working(0)
    with pytest.raises(ServerUnavailable, match="there are no servers"):
        stream.raise_error()


def refuse_for(world: World, stream: WorkStream, seconds: float) -> None:
    """Refuse all connections for `seconds`, or until the work ends."""
    end = world.now + seconds
    while world.now < end and not stream.done:
        for server in world.alive():
            server.refuse()
        deadline = world.engine.next_deadline()
        assert deadline is not None
        world.sleep(min(deadline, end) - world.now)


def test_an_outage() -> None:
    world, stream, server = asleep(max_outage=60.0)
    start = world.now
    server.lose()
    refuse_for(world, stream, 59.9)
    assert not stream.done
    refuse_for(world, stream, 0.2)
    assert world.now - start == pytest.approx(60.0, abs=0.2)
    with pytest.raises(ServerUnavailable, match="refused"):
        stream.raise_error()
    world.end_work()
    stream = world.work()
    world.finish(world.serve().assign())
    assert not stream.done


@pytest.mark.unmeasured
def test_no_outage_is_too_long() -> None:
    world, stream, server = asleep(max_outage=None)
    server.lose()
    refuse_for(world, stream, 5_000.0)
    assert not stream.done
    if not world.alive():
        to_next_deadline(world)
    world.finish(world.serve().assign())


def test_no_outage_at_all() -> None:
    world, stream, server = asleep(max_outage=0)
    server.lose()
    world.sleep(0.001)
    assert stream.done


def test_outage_ends_with_an_answer() -> None:
    world, stream, server = asleep(max_outage=10.0)
    server.lose()
    refuse_for(world, stream, 5.0)
    if not world.alive():
        to_next_deadline(world)
    world.serve().send(NoJob())
    world.sleep(10.0)
    assert not stream.done


def test_loss_of_one_server_is_no_outage() -> None:
    world, stream = working(2, max_outage=1.0)
    first, second = world.serve("s0"), world.serve("s1")
    first.send(NoJob())
    second.send(NoJob())
    second.lose()
    world.sleep(3.0)
    assert not stream.done


def test_next_work_forgets_earlier_connections() -> None:
    world, _, _ = asleep()
    world.end_work()
    stream = world.work()
    world.peer().refuse()
    with pytest.raises(ServerUnavailable):
        stream.raise_error()


def test_server_that_accepts_but_does_not_answer_is_an_outage() -> None:
    world, stream, server = asleep(max_outage=20.0)
    server.lose()
    world.sleep(0.5)
    world.serve()
    world.sleep(19.0)
    assert not stream.done
    world.sleep(1.0)
    assert stream.done


def test_full_slots_are_no_outage() -> None:
    world, stream, server, job = holding(max_outage=60.0)
    server.lose()
    assert job.is_lost
    world.sleep(0.5)
    server = world.serve()
    assert server.take() == [CanDo(b"f")]
    world.sleep(1000.0)
    assert not stream.done
    world.job_done(job)
    assert server.take() == [GRAB]


def test_one_server_ends_the_outage_of_all() -> None:
    world, stream = working(2, max_outage=20.0)
    first, second = world.serve("s0"), world.serve("s1")
    first.send(NoJob())
    second.send(NoJob())
    first.lose()
    for _ in range(20):
        world.sleep(1.0)
        for server in world.alive():
            if not server.link.is_up:
                server.refuse()
            elif server.grabbing:
                server.send(NoJob())
    assert not stream.done
    second.lose()
    world.sleep(19.9)
    assert not stream.done
    world.sleep(0.2)
    assert stream.done


def test_a_lost_job() -> None:
    world, stream, server, job = holding()
    server.lose()
    assert (job.is_lost, job.ended) == (True, False)
    assert world.engine.notices[-1].endswith(", and 1 jobs with it")
    assert world.next_job() is None
    with pytest.raises(
        ConnectionError, match=r"> was lost with its connection to .*: the server closed"
    ):
        world.send(job, WorkStatus(b"H:1", b"1", b"2"))
    assert job.is_lost
    world.sleep(0.5)
    new = world.serve()
    assert new.take() == [CanDo(b"f")]
    world.job_done(job)
    assert new.take() == [GRAB]  # The worker sends nothing about the job.
    assert not stream.done


def test_the_result_of_a_lost_job() -> None:
    world, _, server, job = holding()
    server.lose()
    with pytest.raises(ConnectionError):
        world.complete(job)
    with pytest.raises(InvalidWorkerState):
        world.complete(job)
    world.job_done(job)


def test_ended_job_is_not_lost_with_its_link() -> None:
    world, _, server, job = holding()
    world.complete(job)
    server.lose()
    assert not job.is_lost
    with pytest.raises(InvalidWorkerState):
        world.send(job, WorkData(b"H:1", b""))


def test_jobs_of_lost_links_are_not_handed_out() -> None:
    world, stream = working(2, max_jobs=2)
    first, second = world.serve("s0"), world.serve("s1")
    first.send(JobAssignUniq(b"H:1", b"f", b"", b"lost"))
    second.send(JobAssignUniq(b"H:1", b"f", b"", b"kept"))
    first.lose()
    assert stream.ready
    job = world.job()
    assert job.data == b"kept"
    assert second.grabbing
    world.finish(job)


def test_queued_job_of_a_lost_link_frees_its_slot() -> None:
    world, stream, server = grabbing()
    server.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    server.lose()
    world.sleep(0.5)
    server = world.serve()
    assert stream.ready
    assert world.next_job() is None
    assert not world.engine.has_jobs()
    assert server.take() == [CanDo(b"f"), GRAB]


def test_calls_with_a_dead_link_are_ignored() -> None:
    world, _, server = asleep()
    server.lose(ConnectionResetError("reset"))
    before = list(world.engine.notices)
    server.lose()
    server.lose(ConnectionResetError("reset"))
    server.refuse()
    server.up()
    server.send_raw(raw(Noop()))
    assert list(world.engine.notices) == before
    assert not server.closed


# Packets about jobs.


def test_all_kinds_of_packets() -> None:
    world, _, server, job = holding()
    events: list[PacketEvent] = [
        WorkStatus(b"H:1", b"1", b"2"),
        WorkData(b"H:1", b"part\0"),
        WorkWarning(b"H:1", b"warning"),
    ]
    for event in events:
        wait = world.send(job, event)
        assert wait.done
        wait.raise_error()
        assert not job.ended
    assert server.take() == events


@pytest.mark.parametrize(
    "event", [WorkComplete(b"H:1", b""), WorkFail(b"H:1"), WorkException(b"H:1", b"why")]
)
def test_the_end_of_a_job(event: PacketEvent) -> None:
    world, _, server, job = holding()
    world.send(job, event)
    assert job.ended
    assert server.take() == [event]
    for other in (WorkFail(b"H:1"), WorkStatus(b"H:1", b"1", b"2")):
        with pytest.raises(InvalidWorkerState, match="has ended"):
            world.send(job, other)
    world.job_done(job)
    assert server.take() == [GRAB]


def test_a_job_of_another_worker() -> None:
    world, _, _, _ = holding()
    _, _, server, foreign = holding()
    with pytest.raises(InvalidWorkerState, match="is another worker's"):
        world.send(foreign, WorkComplete(b"H:1", b""))
    assert not foreign.ended
    assert server.take() == []


def test_job_done_without_an_end_fails_the_job() -> None:
    world, _, server, job = holding()
    world.job_done(job)
    assert job.ended
    assert server.take() == [WorkFail(b"H:1"), GRAB]


def test_what_servers_do_not_take() -> None:
    world, _, server, job = holding()
    for event in (WorkFail(b"H:1", b"reason"), WorkStatus(b"H:1", b"1" * 12, b"2")):
        with pytest.raises(LocalProtocolError):
            world.send(job, event)
    for timeout, error in (("x", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error):
            world.send(job, result(), timeout=timeout)
    assert not job.ended
    assert server.take() == []
    world.finish(job)
    assert server.take() == [result(), GRAB]


def data(size: int) -> WorkData:
    return WorkData(b"H:1", b"x" * size)


def test_senders_wait_for_a_slow_server() -> None:
    world, _, server, job = holding()
    server.reads = False
    assert world.send(job, data(MEGABYTE // 2)).done
    first = world.send(job, data(MEGABYTE))
    second = world.send(job, data(10))
    assert not first.done
    assert not second.done
    engine, link = world.engine, server.link
    taken = 0
    while taken < MEGABYTE // 2:
        chunk = engine.data_to_send(link, world.now)
        assert chunk
        taken += len(chunk)
    assert not first.done  # The rest slightly exceeds the limit.
    server.reads = True
    world.call(engine.handle_timeout, world.now)
    assert first.done
    assert second.done
    first.raise_error()
    assert server.take() == [data(MEGABYTE), data(10)]


def test_packets_are_written_together() -> None:
    world, _, server, job = holding()
    server.reads = False
    for _ in range(10):
        world.send(job, data(100_000))
    sizes = []
    while chunk := world.engine.data_to_send(server.link, world.now):
        sizes.append(len(chunk))
    assert len(sizes) == 5
    assert max(sizes) < 256 * 1024


def test_waiting_for_a_slow_server_has_a_time_limit() -> None:
    world, _, server, job = holding()
    server.reads = False
    wait = world.send(job, data(MEGABYTE), timeout=2.0)
    world.sleep(1.9)
    assert not wait.done
    world.sleep(0.2)
    assert (wait.done, wait.timed_out) == (True, True)
    wait.raise_error()
    world.release(wait)
    server.reads = True
    world.finish(job)
    assert server.take()[-2:] == [result(), GRAB]


def test_server_that_does_not_read_is_disconnected() -> None:
    world, _, server, job = holding()
    server.reads = False
    wait = world.send(job, data(3 * MEGABYTE))
    world.send(job, data(2 * MEGABYTE))
    world.sleep(59.0)
    world.engine.data_to_send(server.link, world.now)
    world.sleep(60.0)
    assert not server.closed
    world.sleep(60.0)
    assert server.closed
    assert wait.done
    assert "the server does not read" in world.engine.notices[0]
    assert job.is_lost
    with pytest.raises(ConnectionError):
        world.send(job, data(1))


def test_earlier_writes_do_not_extend_the_write_timeout() -> None:
    world, _, server, job = holding()
    server.reads = False
    world.send(job, data(2 * MEGABYTE))
    world.sleep(59.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed


def test_server_that_catches_up_is_kept() -> None:
    """The engine keeps the link because no sender waits and no data is left to write."""
    world, _, server, job = holding()
    server.reads = False
    world.release(world.send(job, data(MEGABYTE), timeout=1.0))
    server.reads = True
    world.sleep(1000.0)
    assert not server.closed
    world.finish(job)


def test_lost_link_wakes_its_senders() -> None:
    world, _, server, job = holding()
    server.reads = False
    wait = world.send(job, data(MEGABYTE), timeout=5.0)
    server.lose()
    assert wait.done
    wait.raise_error()
    assert not wait.timed_out


def test_released_sender_is_not_woken() -> None:
    world, _, server, job = holding()
    server.reads = False
    wait = world.send(job, data(MEGABYTE), timeout=5.0)
    world.release(wait)
    world.sleep(10.0)
    server.lose()
    assert not wait.done
    assert wakes(wait) == 0


def test_releasing_finished_waits() -> None:
    world, stream, _, job = holding()
    wait = world.send(job, data(1))
    world.release(wait)
    world.call(world.engine.release, stream, world.now)
    assert wait.done


# Stopping.


def test_stop_when_idle() -> None:
    world, stream, server = asleep()
    world.stop()
    assert server.closed
    assert server.take() == []
    assert is_over(stream)
    assert wakes(stream) == 2
    world.end_work()


def test_stop_while_connecting_and_while_waiting_to_connect() -> None:
    world, stream = working(3)
    world.peer("s0").refuse()
    world.serve("s1").send(NoJob())
    peers = world.alive()
    world.stop()
    assert all(peer.closed for peer in peers)
    assert is_over(stream)
    assert world.engine.next_deadline() is None


def test_stop_before_anything_is_registered() -> None:
    world, stream = working(functions=[])
    world.serve()
    world.stop()
    assert is_over(stream)


def test_stop_with_a_job() -> None:
    world, stream, server, job = holding()
    world.stop()
    world.sleep(1000.0)
    assert not stream.done
    world.complete(job)
    assert server.take() == [result()]
    world.job_done(job)
    assert server.take() == [EchoReq(b"")]
    assert not server.closed
    assert not stream.done
    server.send(EchoRes(b""))
    assert server.closed
    assert is_over(stream)


def test_stop_with_a_job_that_has_ended() -> None:
    world, stream, server, job = holding()
    world.complete(job)
    world.stop()
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert server.closed
    assert not stream.done
    world.job_done(job)
    assert is_over(stream)


def test_stop_by_the_job() -> None:
    world, stream, server, job = holding()
    world.finish(job, go_on=False)
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_by_one_of_several_jobs() -> None:
    world, stream = working(2, max_jobs=3)
    first, second = world.serve("s0"), world.serve("s1")
    one, two, three = first.assign(1), second.assign(2), first.assign(3)
    first.take()
    second.take()
    world.finish(one, go_on=False)
    assert first.take() == [result(1)]
    world.finish(three)
    assert first.take() == [result(3), EchoReq(b"")]
    first.send(EchoRes(b""))
    assert (first.closed, second.closed) == (True, False)
    world.finish(two, go_on=False)
    assert second.take() == [result(2), EchoReq(b"")]
    second.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_by_a_job_that_fails() -> None:
    world, stream, server, job = holding()
    world.job_done(job, go_on=False)
    assert server.take() == [WorkFail(b"H:1"), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_by_a_failing_job_sends_no_grab() -> None:
    world, stream = working(max_jobs=2)
    world.register(b"g")
    server = world.serve()
    job, other = server.assign(1), server.assign(2, function=b"g")
    world.unregister(b"f")  # The job delays CANT_DO, and CANT_DO delays the next grab.
    world.finish(other)
    server.take()
    world.job_done(job, go_on=False)
    assert server.take() == [WorkFail(b"H:1"), CantDo(b"f"), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_after_an_answer_to_a_later_grab_sends_no_echo() -> None:
    world, stream, server, job = holding()
    world.finish(job)
    server.send(NoJob())
    server.take()
    world.stop()
    assert server.take() == []
    assert is_over(stream)


def test_stop_after_an_answer_to_an_earlier_grab_sends_an_echo() -> None:
    world, stream, server = grabbing(max_jobs=2)
    job = server.assign()
    server.take()
    assert server.grabbing
    world.finish(job)
    server.send(NoJob())
    assert server.take() == [result(), PreSleep()]
    world.stop()
    assert server.take() == [EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


@pytest.mark.parametrize("answer", [Error(b"server_error", b""), None])
def test_stop_with_a_server_without_echo(answer: Event | None) -> None:
    world, stream, server, job = holding()
    world.finish(job, go_on=False)
    if answer is not None:
        server.send(answer)
    else:
        world.sleep(29.9)
        assert not server.closed
        world.sleep(0.2)
    assert server.closed
    assert is_over(stream)


@pytest.mark.parametrize("grabs", [False, True])
def test_stop_waits_for_a_slow_result(grabs: bool) -> None:
    world, stream, server, job = holding()
    server.reads = False
    server.strict = not grabs  # The server reads the grab after the worker has stopped.
    world.finish(job, go_on=grabs)
    world.stop()
    world.sleep(29.0)
    assert not server.closed
    server.reads = True
    world.pump()
    assert server.take() == [result(), GrabJobUniq() if grabs else EchoReq(b"")]
    server.send(NoJob() if grabs else EchoRes(b""))
    assert server.closed
    assert is_over(stream)


def test_grab_timeout_starts_after_a_slow_result() -> None:
    """The server has not read the grab while it still reads the result before it."""
    world, _, server, job = holding()
    server.reads = False
    world.complete(job)
    world.job_done(job)
    for _ in range(3):
        world.sleep(30.0)
        assert not server.closed
        # Write one part of the pending data, like a slow socket.
        world.engine.links_to_write()
        server.read(world.engine.data_to_send(server.link, world.now))
        world.register(f"more-{world.now}".encode())
    world.sleep(61.0)
    assert server.closed


def test_stop_with_an_unread_result_times_out() -> None:
    world, stream, server, job = holding()
    server.reads = False
    world.finish(job, go_on=False)
    world.sleep(29.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    assert is_over(stream)


def test_stop_with_an_ignored_echo_ends_at_the_next_answer() -> None:
    world, stream, server, job = holding()
    world.finish(job, go_on=False)
    server.send_raw(raw(NoJob()))
    assert server.closed
    assert is_over(stream)


def test_garbage_after_the_echo() -> None:
    world, stream, server, job = holding()
    world.finish(job, go_on=False)
    server.send_raw(raw(EchoRes(b"")) + b"garbage")
    assert server.closed
    assert is_over(stream)


def test_register_while_leaving() -> None:
    world, stream, server, job = holding()
    world.finish(job, go_on=False)
    server.take()
    world.register(b"g")
    world.unregister(b"f")
    assert server.take() == []
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_with_a_grab_no_job() -> None:
    world, stream, server = grabbing()
    world.stop()
    assert not server.closed
    server.send(Noop(), NoJob())
    assert server.closed
    assert is_over(stream)


def test_stop_with_a_grab_answered_by_a_job() -> None:
    world, stream, server = grabbing()
    world.stop()
    job = server.assign()
    world.sleep(100.0)
    world.finish(job)
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


@pytest.mark.parametrize("late", [False, True])
def test_stop_with_a_grab_that_is_not_answered(late: bool) -> None:
    world, stream, server = grabbing()
    world.sleep(5.0 if late else 0.5)
    world.stop()
    world.sleep(0.99)
    assert not server.closed
    world.sleep(0.02)
    assert server.closed
    assert is_over(stream)


def test_stop_with_a_job_arriving_waits_for_it() -> None:
    """The link stays open while the job arrives, so the job is not lost."""
    world, stream, server = grabbing()
    world.stop()
    for at in range(0, 1000, 100):
        server.send_raw(LARGE[at : at + 100])
        world.sleep(0.9)
        assert not server.closed
    server.send_raw(LARGE[1000:])
    assert world.job().data == b"x" * 1000
    world.sleep(100.0)
    assert not server.closed
    assert not is_over(stream)


def test_stop_with_a_stalled_job_times_out() -> None:
    world, stream, server = grabbing()
    world.stop()
    server.send_raw(LARGE[:20])
    world.sleep(29.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    assert is_over(stream)


def test_stop_with_a_job_at_a_trickle_times_out() -> None:
    world, stream, server = grabbing()
    world.stop()
    for at in range(30):
        assert not server.closed
        server.send_raw(LARGE[at : at + 1])
        world.sleep(1.01)
    assert server.closed
    assert is_over(stream)


def test_grab_with_a_job_arriving_does_not_time_out() -> None:
    world, _, server = grabbing()
    packet = pack_event(JobAssignUniq(b"H:1", b"f", b"", b"x" * 20_000), MAGIC_RESPONSE)
    for at in range(0, 20_000, 2000):
        server.send_raw(packet[at : at + 2000])
        world.sleep(29.0)
        assert not server.closed
    server.send_raw(packet[20_000:])
    assert world.job().data == b"x" * 20_000


def test_outage_ends_when_a_large_job_begins_to_arrive() -> None:
    world, stream, server = asleep(max_outage=5.0)
    server.lose(OSError("reset"))
    world.sleep(1.0)
    back = world.serve()
    packet = pack_event(JobAssignUniq(b"H:1", b"f", b"", b"x" * 200_000), MAGIC_RESPONSE)
    for at in range(0, 200_000, 20_000):
        back.send_raw(packet[at : at + 20_000])
        world.sleep(1.0)
    back.send_raw(packet[200_000:])
    assert not stream.done
    assert world.job().data == b"x" * 200_000


def test_outage_ends_the_work_when_a_job_stops_arriving() -> None:
    world, stream, server = asleep(max_outage=5.0)
    server.lose(OSError("reset"))
    world.sleep(1.0)
    world.serve().send_raw(LARGE[:100])
    world.sleep(29.0)
    assert not stream.done
    world.sleep(5.0)
    assert stream.done


def test_grab_whose_job_arrives_at_a_trickle_is_given_up() -> None:
    """A corrupt packet size makes every later answer part of one packet."""
    world, _, server = grabbing()
    world.sleep(1.0)
    for at in range(2):
        assert not server.closed
        server.send_raw(LARGE[at * 300 : at * 300 + 300])
        world.sleep(15.0)
    assert server.closed


def test_stop_with_a_grab_and_a_job() -> None:
    world, stream, server = grabbing(max_jobs=2)
    job = server.assign()
    server.take()
    world.stop()
    world.finish(job)
    assert server.take() == [result()]
    server.send(NoJob())
    assert server.take() == [EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_no_job_with_a_job() -> None:
    world, stream, server = grabbing(max_jobs=2)
    job = server.assign()
    world.stop()
    server.send(NoJob())
    assert not server.closed
    server.take()
    world.finish(job)
    assert server.take() == [result(), EchoReq(b"")]
    server.lose()
    assert is_over(stream)


def test_stop_while_pausing() -> None:
    world, stream, server = asleep()
    let_pause(server)
    world.stop()
    assert server.closed
    assert is_over(stream)


def test_stop_while_waiting_for_a_turn() -> None:
    world, stream = working(2)
    first, second = world.serve("s0"), world.serve("s1")
    world.stop()
    assert (first.closed, second.closed) == (False, True)
    first.lose()
    assert is_over(stream)


def test_stop_with_a_job_of_a_lost_link() -> None:
    world, stream, server, job = holding()
    world.stop()
    server.lose()
    assert not stream.done
    assert world.engine.next_deadline() is None  # The worker does not reconnect.
    world.job_done(job)
    assert is_over(stream)


def test_outage_while_stopping_is_ignored() -> None:
    world, stream, server, job = holding(max_outage=5.0)
    server.lose()
    world.stop()
    world.sleep(100.0)
    assert not stream.done
    world.job_done(job)
    assert is_over(stream)


def test_stop_while_asleep_with_a_job() -> None:
    world, stream, server = grabbing(max_jobs=2)
    job = server.assign()
    server.send(NoJob())
    world.stop()
    world.sleep(100.0)
    server.take()
    world.finish(job)
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert is_over(stream)


def test_stop_with_a_queued_job_of_a_lost_link() -> None:
    world, stream, server = grabbing()
    world.stop()
    server.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    server.lose()
    assert stream.ready
    assert not stream.done
    assert world.next_job() is None
    assert is_over(stream)


def test_stop_timeout_passes() -> None:
    world, stream, server, job = holding()
    world.stop(timeout=10.0)
    world.sleep(9.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    assert is_over(stream)
    assert job.is_lost
    world.job_done(job)
    world.end_work()


def test_stop_twice() -> None:
    world, stream, server, job = holding()
    world.stop()
    world.stop()
    assert not stream.done
    world.stop(timeout=1.0)
    assert not stream.done
    world.sleep(1.1)
    assert server.closed
    assert is_over(stream)
    world.job_done(job)


def test_stop_before_work() -> None:
    world = World()
    world.stop()
    stream = world.work()
    assert is_over(stream)
    assert wakes(stream) == 1
    assert world.peers == []
    world.end_work()
    stream = world.work()
    assert not stream.done
    world.finish(world.serve().assign())


def test_stop_after_the_work() -> None:
    world, _, _ = asleep()
    world.stop()
    world.stop()
    world.end_work()
    stream = world.work()
    assert not stream.done


# Ends of a call of `work`.

PHASES = ["connecting", "cooling", "resting", "queued", "grabbing", "late", "asleep", "pausing"]
PHASES += ["taken", "ready", "ended", "stalled", "leaving", "stopping"]


def in_phase(phase: str) -> tuple[World, WorkStream, WorkerJob | None]:
    """Return a World whose server s0 is in `phase`."""
    world = World(1, functions=[] if phase == "resting" else [b"f"])
    if phase == "queued":
        world = World(["s1", "s0"])
    stream = world.work()
    if phase == "connecting":
        return world, stream, None
    if phase == "queued":
        world.serve("s1")
    server = world.serve("s0")
    if phase == "cooling":
        server.send(NoJob())
        server.lose()
    elif phase == "late":
        world.sleep(1.5)
    elif phase == "asleep":
        server.send(NoJob())
    elif phase == "pausing":
        server.send(NoJob())
        let_pause(server)
    elif phase == "ready":
        server.send(JobAssignUniq(b"H:1", b"f", b"", b""))
    elif phase in ("taken", "ended", "stalled", "leaving", "stopping"):
        job = server.assign()
        if phase == "ended":
            world.complete(job)
        elif phase == "stalled":
            server.reads = False
            world.send(job, data(2 * MEGABYTE), timeout=90.0)
        elif phase == "leaving":
            world.finish(job, go_on=False)
        elif phase == "stopping":
            world.stop(timeout=5.0)
        return world, stream, job
    return world, stream, None


def test_failure_of_a_job_on_a_full_link_leaves_no_wait() -> None:
    """No caller waits for the WORK_FAIL of `job_done`, and none releases its Wait."""
    world, stream, server = grabbing(max_jobs=2)
    first, second = server.assign(1), server.assign(2)
    server.reads = False
    blocked = world.send(first, data(2 * MEGABYTE))
    world.job_done(second)
    world.release(blocked)
    server.reads = True
    world.pump()
    assert WorkFail(b"H:2") in server.take()
    assert world.engine._waits == {stream}


def check_that_it_works_again(world: World, job: WorkerJob | None) -> None:
    """Check that a new `work` starts afresh after the old one."""
    assert world.alive() == []
    assert world.engine.next_deadline() is None
    assert world.next_job() is None
    assert all(wait.done for wait in world.waits)
    world.register(b"f")
    stream = world.work()
    for peer in world.alive():
        peer.up()
    if job is not None:
        # Finishing a job of the old call does not disturb the new one.
        with pytest.raises(GearmanError):
            world.complete(job)
        world.job_done(job)
    for number in range(4):
        (server,) = (peer for peer in world.alive() if peer.grabbing)
        world.finish(server.assign(number))
    world.stop()
    for peer in world.alive():
        peer.send(NoJob() if peer.grabbing else EchoRes(b""))
        if peer.link.alive:
            peer.send(EchoRes(b""))
    assert is_over(stream)
    world.end_work()


@pytest.mark.parametrize("phase", PHASES)
def test_end_work(phase: str) -> None:
    world, _, job = in_phase(phase)
    up = [peer for peer in world.peers if peer.link.alive]
    world.end_work()
    assert all(peer.closed for peer in up)
    assert not world.engine.has_jobs()
    world.end_work()
    check_that_it_works_again(world, job)


@pytest.mark.parametrize("phase", PHASES)
def test_close(phase: str) -> None:
    world, stream, job = in_phase(phase)
    up = [peer for peer in world.peers if peer.link.alive]
    world.close()
    assert all(peer.closed for peer in up)
    assert is_over(stream)
    world.close()
    world.end_work()
    if job is not None:
        with pytest.raises(GearmanError):
            world.complete(job)
        world.job_done(job, go_on=False)
    world.stop()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        world.work()
    assert world.engine.next_deadline() is None


@pytest.mark.parametrize("phase", PHASES)
def test_abandon_ends_all_calls_in_any_phase(phase: str) -> None:
    world, stream, job = in_phase(phase)
    up = [peer for peer in world.peers if peer.link.alive]
    waiting = [wait for wait in world.waits if not wait.done]
    rung = wakes(stream)
    assert {stream, *waiting} <= set(world.engine.abandon(ConnectionError("forked")))
    assert wakes(stream) == rung
    for wait in (stream, *waiting):
        assert wait.done
        with pytest.raises(ConnectionError, match="forked"):
            wait.raise_error()
    assert not world.engine.closed
    assert world.engine.next_action() is None
    for peer in up:
        assert not peer.closed
        world.engine.receive_data(peer.link, raw(Noop()), world.now)
        assert world.engine.data_to_send(peer.link, world.now) == b""
    if job is not None and not job.ended:
        assert job.is_lost
        world.engine.job_done(world.now, job)


def test_job_of_an_abandoned_engine_says_why_it_was_lost() -> None:
    world, _, _, job = holding()
    world.engine.abandon(ConnectionError("the process was forked"))
    with pytest.raises(ConnectionError, match=r"> was lost with .*: the process was forked"):
        world.send(job, WorkStatus(b"H:1", b"1", b"2"))


def test_release_ends_the_work() -> None:
    """A driver ends an interrupted `work` by releasing its Wait."""
    world = World()
    stream = world.work()
    server = world.serve()
    server.assign()
    world.release(stream)
    assert server.closed
    assert not world.engine.has_jobs()
    again = world.work()
    world.release(stream)  # A second release of the old call has no effect.
    assert not again.done
    world.serve().assign(2)
    assert world.engine.has_jobs()


def test_job_of_an_earlier_call_does_not_stop_the_current_one() -> None:
    world = World()
    stream = world.work()
    job = world.serve().assign()
    world.release(stream)
    again = world.work()
    world.job_done(job, go_on=False)
    assert not again.done
    assert world.serve().take()[-1] == GrabJobUniq()


def test_close_without_work() -> None:
    world = World()
    world.stop()
    world.close()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        world.work()


def test_work_twice_at_once() -> None:
    world, stream = working()
    with pytest.raises(InvalidWorkerState, match="works already"):
        world.work()
    assert not stream.done


def test_next_work_remembers_servers_without_grab_job_uniq() -> None:
    world, _, server = grabbing()
    server.send(Error(b"server_error", b""))
    world.end_work()
    world.work()
    assert world.serve().take() == [CanDo(b"f"), GrabJob()]


# Wake-ups of the caller.


def test_timeout_wakes_the_caller_repeatedly() -> None:
    world = World()
    stream = world.work(timeout=2.0)
    world.serve().send(NoJob())
    stream.active = False
    world.next_job()
    world.sleep(1.9)
    assert not stream.ready
    world.sleep(0.2)
    assert (stream.ready, stream.active) == (True, False)
    assert world.next_job() is None
    world.sleep(1.9)
    assert not stream.ready
    world.sleep(0.2)
    assert stream.ready
    assert not stream.done


def test_zero_timeout_wakes_the_caller_at_most_every_10_ms() -> None:
    world, stream = working(functions=[])
    world.serve()
    world.end_work()
    stream = world.work(timeout=0.0)
    world.serve()
    count = 0
    end = world.now + 1.0
    while world.now < end:
        to_next_deadline(world)
        assert stream.ready
        world.next_job()
        count += 1
    assert 90 <= count <= 101


def test_timeout_after_end_work_wakes_no_caller() -> None:
    world = World()
    stream = world.work(timeout=2.0)
    world.serve()
    world.end_work()
    assert world.engine.next_deadline() is None
    assert not stream.ready


def test_lost_server_wakes_the_caller() -> None:
    world, stream, server = asleep()
    world.next_job()
    stream.active = False
    server.lose()
    assert (stream.ready, stream.active) == (True, True)


def test_caller_without_timeout_is_not_woken() -> None:
    world, stream = working(functions=[])
    world.serve()
    world.sleep(100_000.0)
    assert not stream.ready
    assert world.engine.next_deadline() is None


def test_notices_are_bounded() -> None:
    world, _, server = asleep()
    for _ in range(1000):
        server.send_raw(raw(Error(b"JOB_NOT_FOUND", b"")))
    assert len(world.engine.notices) == 100


# Arguments.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_jobs": True}, TypeError),
        ({"max_jobs": 1.5}, TypeError),
        ({"max_jobs": 0}, ValueError),
        ({"connect_timeout": 0}, ValueError),
        ({"connect_timeout": float("nan")}, ValueError),
        ({"look_again": -1.0}, ValueError),
        ({"max_outage": -1.0}, ValueError),
        ({"max_outage": float("nan")}, ValueError),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    (name,) = options
    with pytest.raises(error, match=name):
        WorkerEngine(parse_host_list(["s0"]), rng=random.Random(1), **options)


# Arbitrary data from servers.

GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            raw(Noop()),
            raw(NoJob()),
            raw(JobAssign(b"H:1", b"f", b"in")),
            raw(JobAssignUniq(b"\xff", b"\xfe", b"\xfd", b"in")),
            raw(JobAssignUniq(b"", b"", b"", b"")),
            raw(EchoRes(b"")),
            raw(OptionRes(b"")),
            raw(Error(b"server_error", b"\xff")),
            raw(Error(b"JOB_NOT_FOUND", b"")),
            raw(WorkComplete(b"H:1", b"")),
            b"\0RES\0\0\0\x28\0\0\0\x05\0\0\0\0x",
            b"\0RES\0\0\0\x1f\xff\xff\xff\xff",
        ]
    ),
)


@pytest.mark.parametrize("phase", PHASES)
@examples(0.6)
@given(pieces=st.lists(GARBAGE, max_size=8), sizes=st.lists(st.integers(1, 30), max_size=20))
def test_arbitrary_bytes_do_not_raise(phase: str, pieces: list[bytes], sizes: list[int]) -> None:
    world, stream, job = in_phase(phase)
    server = world.peers[-1]
    server.strict = False
    received = b"".join(pieces)
    for size in sizes:
        server.send_raw(received[:size])
        received = received[size:]
    server.send_raw(received)
    jobs = [] if job is None else [job]
    while (job := world.next_job()) is not None:
        jobs.append(job)
    world.sleep(3.0)
    for job in jobs:
        world.job_done(job)
    world.sleep(100.0)
    world.stop()
    world.sleep(100.0)
    assert stream.done
    world.end_work()


# Random sequences of events.

SIZES = st.sampled_from([10**6, 10**6, 10**6, 100, 13, 1])
FUNCTIONS = st.sampled_from([b"f", b"g"])
LIMITS = st.sampled_from([None, None, 1.5])


class WorkerMachine(RuleBasedStateMachine):
    """Correct servers, links that break and a caller with arbitrary calls.

    The World and its Peers check every step. At the end no link breaks, and the worker must
    make progress: it grabs jobs from each server, runs them, and stops on request.
    """

    @initialize(
        servers=st.integers(1, 3),
        max_jobs=st.integers(1, 3),
        seed=st.integers(0, 3),
        calm=st.booleans(),
        timeout=st.sampled_from([None, 0.7]),
    )
    def start(
        self, servers: int, max_jobs: int, seed: int, calm: bool, timeout: float | None
    ) -> None:
        self.world = World(servers, seed=seed, max_jobs=max_jobs, connect_timeout=3.0)
        #: True if no link breaks, so that jobs make progress.
        self.calm = calm
        self.timeout = timeout
        #: Jobs handed to the caller and not yet done.
        self.jobs: list[WorkerJob] = []
        self.handles = 0
        self.stream: WorkStream | None = None
        self.begin()

    # Helpers.

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        return items[data.draw(st.integers(0, len(items) - 1))]

    def links(self, *, up: bool) -> list[Peer]:
        self.world.peers = self.world.alive()
        return [peer for peer in self.world.peers if peer.link.is_up is up]

    def asked(self) -> list[Peer]:
        return [peer for peer in self.links(up=True) if peer.questions]

    def answer(self, peer: Peer, how: str, function: bytes) -> None:
        question = peer.questions[0]
        if isinstance(question, EchoReq):
            peer.write(EchoRes(b""))
        elif how == "refuse":
            peer.write(Error(b"server_error", b""))
        elif how == "job" and peer.functions:
            self.handles += 1
            if function not in peer.functions:
                (function,) = peer.functions
            handle = b"H:%d" % self.handles
            if isinstance(question, GrabJob):
                peer.write(JobAssign(handle, function, b"in"))
            else:
                peer.write(JobAssignUniq(handle, function, b"", b"in"))
        else:
            peer.write(NoJob())

    # The caller.

    @precondition(lambda self: self.stream is None)
    @rule()
    def begin(self) -> None:
        self.stream = self.world.work(timeout=self.timeout)

    @precondition(lambda self: self.stream is not None and self.stream.done)
    @rule()
    def return_from_work(self) -> None:
        self.world.end_work()
        self.stream = None

    @precondition(lambda self: self.stream is not None)
    @rule(chance=st.integers(0, 9))
    def leave_work(self, chance: int) -> None:
        if chance == 0:
            self.return_from_work()

    @rule()
    def take_jobs(self) -> None:
        while (job := self.world.next_job()) is not None:
            assert job not in self.jobs
            assert not job.is_lost
            self.jobs.append(job)
        if self.stream is not None:
            assert self.stream.ready == self.stream.done

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), size=st.sampled_from([0, 10, 600_000]))
    def say_something(self, data: st.DataObject, size: int) -> None:
        job = self.pick(data, self.jobs)
        self.say(job, WorkData(job.wire_handle, b"x" * size))

    def say(self, job: WorkerJob, event: PacketEvent) -> None:
        was_ended, was_lost = job.ended, job.is_lost
        try:
            wait = self.world.send(job, event, timeout=2.0)
        except InvalidWorkerState:
            assert was_ended
        except ConnectionError:
            assert was_lost
        else:
            assert not was_ended
            assert not was_lost
            if wait.done:
                self.world.release(wait)

    @precondition(lambda self: self.world.waits)
    @rule(data=st.data())
    def return_from_sending(self, data: st.DataObject) -> None:
        self.world.release(self.pick(data, self.world.waits))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from([WorkComplete, WorkException, WorkFail]))
    def end_a_job(self, data: st.DataObject, kind: Any) -> None:
        job = self.pick(data, self.jobs)
        self.say(job, kind(job.wire_handle) if kind is WorkFail else kind(job.wire_handle, b"out"))
        assert job.ended

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), end=st.booleans(), chance=st.integers(0, 19))
    def be_done(self, data: st.DataObject, end: bool, chance: int) -> None:
        job = self.pick(data, self.jobs)
        self.jobs.remove(job)
        if end:
            self.say(job, WorkComplete(job.wire_handle, b"out"))
        self.world.job_done(job, go_on=chance != 0)

    @rule(function=FUNCTIONS, limit=LIMITS)
    def register(self, function: bytes, limit: float | None) -> None:
        self.world.register(function, limit)

    @rule(function=FUNCTIONS)
    def unregister(self, function: bytes) -> None:
        self.world.unregister(function)

    @rule(chance=st.integers(0, 9), timeout=st.sampled_from([None, 0.5, 20.0]))
    def stop(self, chance: int, timeout: float | None) -> None:
        if chance == 0:
            self.world.stop(timeout=timeout)

    # The links.

    @precondition(lambda self: self.links(up=False))
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        self.pick(data, self.links(up=False)).up()

    @precondition(lambda self: not self.calm and (self.links(up=False) or self.links(up=True)))
    @rule(data=st.data(), how=st.sampled_from(["end", "reset", "garbage"]))
    def break_a_link(self, data: st.DataObject, how: str) -> None:
        peer = self.pick(data, self.links(up=False) + self.links(up=True))
        if not peer.link.is_up:
            peer.refuse()
        elif how == "garbage":
            peer.deliver(10**9)
            peer.send_raw(b"garbage")
        else:
            peer.lose(OSError("reset") if how == "reset" else None)
        assert not peer.link.alive
        # Later calls of a slow driver have no effect on the dead link.
        peer.lose()
        peer.up()
        peer.send_raw(raw(NoJob()))

    @precondition(lambda self: not self.calm and self.links(up=True))
    @rule(data=st.data())
    def read_or_do_not(self, data: st.DataObject) -> None:
        peer = self.pick(data, self.links(up=True))
        peer.reads = not peer.reads
        self.world.call(self.world.engine.next_action)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 6.0, 35.0]))
    def sleep(self, seconds: float) -> None:
        self.world.sleep(0.3 if self.calm else seconds)

    # The servers.

    @precondition(lambda self: self.asked())
    @rule(
        data=st.data(),
        how=st.sampled_from(["job", "job", "job", "none", "none", "refuse"]),
        function=FUNCTIONS,
        size=SIZES,
    )
    def answer_a_grab(self, data: st.DataObject, how: str, function: bytes, size: int) -> None:
        peer = self.pick(data, self.asked())
        self.answer(peer, "none" if how == "refuse" and self.calm else how, function)
        peer.deliver(size)

    answer_more = answer_a_grab
    answer_still_more = answer_a_grab

    @precondition(lambda self: self.links(up=True))
    @rule(data=st.data(), size=SIZES, about_a_job=st.booleans())
    def say_what_is_no_answer(self, data: st.DataObject, size: int, about_a_job: bool) -> None:
        peer = self.pick(data, self.links(up=True))
        peer.write(Error(b"JOB_NOT_FOUND", b"") if about_a_job else Noop())
        peer.deliver(size)

    # The final checks.

    def be_kind(self, seconds: int, how: str) -> Counter[str]:
        """Run without failures for a while. Return the number of grabs by server."""
        asked: Counter[str] = Counter()
        for _ in range(seconds):
            for peer in self.links(up=False):
                peer.up()
            for _ in range(3):
                for peer in self.links(up=True):
                    peer.reads = True
                    self.world.call(self.world.engine.next_action)
                    peer.deliver(10**9)
                    while peer.link.alive and peer.questions:
                        asked[peer.host] += isinstance(peer.questions[0], (GrabJob, GrabJobUniq))
                        self.answer(peer, how, b"f")
                        peer.deliver(10**9)
                self.take_jobs()
                for job in self.jobs:
                    self.world.job_done(job)
                self.jobs.clear()
            self.world.sleep(1.0)
        return asked

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self.be_kind(1, "none")
        if self.stream is None or self.stream.done or world.engine._life is not WorkerLife.WORKING:
            if self.stream is not None:
                self.be_kind(3, "none")
                assert self.stream.done
                self.return_from_work()
            self.begin()
            assert self.stream is not None
            if self.stream.done:  # `stop` was called before `work`.
                self.return_from_work()
                self.begin()
        assert self.stream is not None
        if _OUTAGE in world.engine._timers:
            # An earlier outage might end the work before the worker reconnects.
            self.be_kind(36, "none")
            if self.stream.done:
                assert isinstance(self.stream.error, ServerUnavailable)
                self.return_from_work()
                self.begin()
        world.register(b"f")
        # This time covers the longest backoff and the poll interval.
        asked = self.be_kind(36, "none")
        hosts = {server.address.host for server in world.engine.pool.servers}
        assert {host for host in asked if asked[host]} == hosts
        asked = self.be_kind(7, "job")
        assert min(asked.values()) > 1
        assert not self.stream.done
        world.stop()
        self.be_kind(3, "none")
        assert is_over(self.stream)
        self.return_from_work()


WorkerMachine.TestCase.settings = examples(
    2, stateful_step_count=60, suppress_health_check=list(HealthCheck)
)
TestWorkerMachine = WorkerMachine.TestCase


# Optional features.


def test_custom_job_class() -> None:
    class Job(WorkerJob):
        pass

    world = World(job_class=Job)
    world.work()
    server = world.serve()
    server.take()
    server.send(JobAssignUniq(b"H:1", b"f", b"u", b"in"))
    job = world.job()
    assert (type(job), job.unique, job.data) == (Job, "u", b"in")


def test_timeout_of_a_work_stream_can_be_changed() -> None:
    world = World()
    stream = world.work(timeout=60)
    server = world.serve()
    server.take()
    server.send(NoJob())
    assert stream.ready
    stream.timeout = 2.0
    assert world.next_job() is None
    world.sleep(1.9)
    assert not stream.ready
    world.sleep(0.2)
    assert stream.ready
    stream.timeout = None
    assert world.next_job() is None
    world.sleep(3.0)
    assert not stream.ready


def test_disconnect_closes_the_connection_once() -> None:
    world = World(2)
    stream = world.work()
    first, second = world.serve("s0"), world.serve("s1")
    for server in (first, second):
        server.take()
    world.call(world.engine.disconnect, world.now, first.link.server)
    assert (first.closed, second.closed, stream.done) == (True, False, False)
    assert "closed by the application" in world.engine.notices[-1]
    world.call(world.engine.disconnect, world.now, first.link.server)
    assert len(world.engine.notices) == 1
