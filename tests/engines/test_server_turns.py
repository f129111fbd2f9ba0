"""Fairness of the job server's engine: turns, and costs that do not grow with the numbers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.engines.server.jobqueue import MOST_CANDIDATES
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatusUnique,
    GrabJob,
    JobAssign,
    NoJob,
    Noop,
    PacketEvent,
    PreSleep,
    ResetAbilities,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    WorkComplete,
    WorkData,
)

from .harness import EPOCH
from .server_harness import Peer, World, raw

if TYPE_CHECKING:
    from collections.abc import Callable

TURN = 250
#: Number of items whose lists take several turns.
MANY = 2_000


def names(count: int) -> list[bytes]:
    return [b"f%d" % number for number in range(count)]


def calls(function: Callable[..., object], *args: Any) -> int:
    """Return the number of function calls that a call of `function` causes."""
    count = 0

    def on_event(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return count


def cost(world: World, peer: Peer, *events: Event) -> int:
    """Return the number of function calls that it takes to process `events` of `peer`."""
    data = b"".join([peer.connection.send(event) for event in events])
    count = calls(world.engine.receive_data, peer.link, data, world.now)
    world.drive([])
    world.check()
    return count


def turns(world: World, *, between: Callable[[], object] = lambda: None) -> int:
    """Process all backlogs, and return the number of turns."""
    count = 0
    while world.has_backlog:
        world.turn()
        between()
        count += 1
    return count


class Witness:
    """A peer that checks that it gets immediate responses."""

    def __init__(self, world: World) -> None:
        self._peer = world.connect()
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        data = b"%d" % self._count
        self._peer.send(EchoReq(data))
        assert self._peer.take() == [EchoRes(data)]


@pytest.fixture
def world() -> World:
    """Return a World that leaves backlogs to `turns`."""
    made = World()
    made.goes_on = False
    return made


# Costs that do not depend on the number of functions.


def asking(count: int, *, jobs: int) -> dict[str, int]:
    """Return the cost of each request of a worker that is registered for `count` functions."""
    world = World()
    client, worker = world.connect(), world.worker(*names(count))
    for number in range(jobs):
        client.submit(SubmitJobBg(b"f%d" % number, b"u%d" % number, b"x"))
    found = {
        "PRE_SLEEP": cost(world, worker, PreSleep()),
        "GRAB_JOB": cost(world, worker, GrabJob()),
        "GET_STATUS_UNIQUE": cost(world, client, GetStatusUnique(b"u1"), GetStatusUnique(b"?")),
    }
    worker.send(*[GrabJob()] * jobs)
    assert isinstance(worker.take()[-1], NoJob)
    return {
        **found,
        "GRAB_JOB for nothing": cost(world, worker, GrabJob()),
        "PRE_SLEEP for nothing": cost(world, worker, PreSleep()),
        "a job for whoever sleeps": cost(world, client, SubmitJobBg(b"f1", b"", b"x")),
        "GRAB_JOB of a sleeper": cost(world, worker, GrabJob()),
        "PRE_SLEEP again": cost(world, worker, PreSleep()),
    }


@pytest.mark.unmeasured
def test_functions_without_jobs_cost_nothing() -> None:
    assert asking(10, jobs=10) == asking(300, jobs=10)


def test_functions_that_had_jobs_cost_nothing() -> None:
    world, count = World(), 200
    client, worker = world.connect(), world.worker(*names(count))
    client.send(*[SubmitJobBg(b"f0", b"", b"x")] * 10)
    before = cost(world, worker, GrabJob())
    client.send(*[SubmitJobHigh(name, b"", b"x") for name in names(count)])
    client.take()
    worker.send(*[GrabJob()] * (count + 1))
    assert all(isinstance(event, JobAssign) for event in worker.take())
    assert cost(world, worker, GrabJob()) == before


def test_functions_with_jobs_cost_the_same_above_a_few() -> None:
    def grab(count: int) -> int:
        world = World()
        client, worker = world.connect(), world.worker(*names(count))
        client.send(*[SubmitJobBg(name, b"", b"x") for name in names(count)])
        return cost(world, worker, GrabJob())

    assert grab(MOST_CANDIDATES + 1) == grab(10 * MOST_CANDIDATES)


def test_many_functions_with_jobs_keep_priorities_and_take_turns() -> None:
    world, many = World(), names(4 * MOST_CANDIDATES)
    client, worker = world.connect(), world.worker(*many)
    client.send(*[SubmitJobBg(name, b"", b"x") for name in [b"f0", *many]])
    client.send(SubmitJobHigh(many[-1], b"", b"high"))
    client.take()
    # A PRE_SLEEP does not change whose turn it is.
    worker.send(*[PreSleep(), GrabJob()] * (len(many) + 2), GrabJob())
    *events, last = worker.take()
    assigned = [event.function for event in events if isinstance(event, JobAssign)]
    # The second job of f0 waits until f0 is a candidate again.
    again = len(many) - MOST_CANDIDATES + 1
    assert assigned == [many[-1], *many[:again], b"f0", *many[again:]]
    assert last == NoJob()


def test_full_memory_costs_the_same_with_many_functions() -> None:
    def refusal(count: int) -> int:
        world = World(max_memory=1_000_000)
        client = world.connect()
        client.send(*[SubmitJobBg(name, b"", b"x") for name in names(count)])
        while (rest := 750_000 - world.engine.queue.memory) > 2_000:
            client.send(SubmitJobBg(b"f0", b"", bytes(min(rest - 1_500, 200_000))))
        # Only the first refusal scans the functions that might be idle.
        client.send(SubmitJobBg(b"f0", b"", bytes(5_000)))
        client.take()
        made = cost(world, client, SubmitJobBg(b"f0", b"", bytes(5_000)))
        assert isinstance(client.one(), Error)
        return made

    assert refusal(10) == refusal(200)


# Turns.


def test_many_functions_with_jobs_count_as_more_than_a_packet(world: World) -> None:
    client, worker = world.connect(), world.worker(*names(200))
    client.send(*[SubmitJobBg(name, b"", b"") for name in names(200)])
    turns(world)
    worker.send(*[PreSleep()] * 200)
    assert worker.link.has_backlog
    turns(world)
    assert worker.take() == [Noop()] * 200


def test_several_floods_take_turns(world: World) -> None:
    witness, floods = Witness(world), [world.connect() for _ in range(3)]
    for flood in floods:
        flood.send(*[EchoReq(b"")] * 600)
    heard = [[len(flood.take()) for flood in floods]]

    def between() -> None:
        witness()
        heard.append([len(flood.take()) for flood in floods])

    turns(world, between=between)
    assert heard[:4] == [[TURN] * 3, [TURN, 0, 0], [0, TURN, 0], [0, 0, TURN]]
    assert [sum(each) for each in zip(*heard)] == [600] * 3


def test_data_for_link_with_backlog_keeps_order(world: World) -> None:
    """The engine keeps the order even if the driver reads from a link with a backlog."""
    flood = world.connect()
    echoes = [EchoReq(b"%d" % number) for number in range(600)]
    flood.send(*echoes[:300])
    for echo in echoes[300:]:
        flood.send(echo)
    heard = flood.take()
    assert len(heard) == TURN
    turns(world)
    assert heard + flood.take() == [EchoRes(echo.data) for echo in echoes]


@pytest.mark.parametrize("rest", [b"", b"\0REQ", b"\0XXX", b"stat"])
def test_end_of_stream_after_flood_closes_link_when_processed(world: World, rest: bytes) -> None:
    """The server processes all complete packets before the end of the stream."""
    flood = world.connect()
    submit = SubmitJobBg(b"f", b"", b"x")
    flood.send_raw(b"".join([flood.connection.send(submit) for _ in range(600)]) + rest)
    world.call(world.engine.receive_eof, flood.link, world.now)
    assert not flood.closed
    turns(world)
    assert len(flood.take()) == len(world.engine.queue.jobs) == 600
    assert flood.closed


@pytest.mark.parametrize("way", ["close", "shutdown", "abandon"])
def test_server_ends_while_link_has_backlog(world: World, way: str) -> None:
    flood = world.connect()
    flood.send(*[SubmitJobBg(b"f", b"", b"x")] * 600)
    if way == "shutdown":
        world.shut_down()
        turns(world)
        assert len(flood.take()) in (TURN, 2 * TURN)
    elif way == "close":
        world.call(world.engine.close, world.now)
    else:
        world.engine.abandon(RuntimeError("forked"))
        flood.closed = True
    assert flood.closed
    assert world.engine.closed
    assert not world.has_backlog


def test_expensive_packets_shorten_turn(world: World) -> None:
    """A packet for a job of many clients costs more than one."""
    clients, worker = [world.connect() for _ in range(100)], world.worker(b"f")
    for client in clients:
        handle = client.submit(SubmitJob(b"f", b"u", b""))
    assert isinstance(worker.grab(), JobAssign)
    worker.send_raw(raw(WorkData(handle, b"x")) * 20)
    assert len(clients[0].take()) == 3
    turns(world)
    assert len(clients[0].take()) == 17


# Lists.


@pytest.mark.unmeasured
@pytest.mark.parametrize("line", [b"status", b"prioritystatus", b"workers", b"show jobs"])
def test_long_lists_take_turns(world: World, line: bytes) -> None:
    witness, admin, client = Witness(world), world.connect(), world.worker(*names(MANY))
    client.send(*[SubmitJobBg(name, b"", b"") for name in names(MANY)])
    turns(world)
    before = world.engine.queue.memory
    # The reply to the next command follows the list.
    admin.send_raw(line + b"\nversion\n")
    assert admin.link.has_backlog
    # The memory that the list uses is counted.
    kept = world.engine.queue.memory - before
    assert kept >= 8 * (len(world.engine.links) if line == b"workers" else MANY)
    assert turns(world, between=witness) > 1
    text = admin.take_raw()
    assert text.endswith(b".\nOK \n")
    listed = text.split(b" : ")[1].split() if line == b"workers" else text.split(b"\n")
    assert len(listed) >= MANY
    assert world.engine.queue.memory == before


def test_list_skips_jobs_that_end_meanwhile(world: World) -> None:
    admin, worker = world.connect(), world.worker(b"f")
    worker.send(*[SubmitJobBg(b"f", b"", b"")] * MANY)
    turns(world)
    worker.take()
    handles = list(world.engine.queue.jobs)
    admin.send_raw(b"show jobs\n")
    for handle in handles[:3]:
        assert isinstance(worker.grab(), JobAssign)
        worker.send(WorkComplete(handle, b""))
    ended = handles[-1]
    world.connect().send_raw(b"cancel job " + ended + b"\n")
    worker.submit(SubmitJobBg(b"f", b"", b""))
    turns(world)
    lines = admin.take_raw().splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [*handles[:-1], b"."]


@pytest.mark.parametrize("loss", [True, False])
def test_admin_disconnects_during_list(world: World, loss: bool) -> None:
    admin, client = world.connect(), world.connect()
    client.send(*[SubmitJobBg(b"f", b"", b"")] * MANY)
    turns(world)
    memory = world.engine.queue.memory
    admin.send_raw(b"show unique jobs\n")
    if loss:
        admin.close()
    else:
        world.call(world.engine.receive_eof, admin.link, world.now)
    turns(world)
    assert admin.closed
    # A peer that has only closed its sending side receives the whole list.
    assert admin.inbox.endswith(b".\n") != loss
    assert world.engine.queue.memory == memory


# The end of a link.


@pytest.mark.unmeasured
@pytest.mark.parametrize("way", ["loss", "end", "garbage"])
def test_cleanup_of_link_takes_turns(world: World, way: str) -> None:
    witness, worker, big = Witness(world), world.worker(*names(10)), world.connect()
    big.send(*[CanDo(name) for name in names(600)])
    big.send(*[SubmitJob(name, b"u", b"") for name in names(30)])
    big.send(*[GrabJob()] * 30)
    big.send(*[SubmitJob(name, b"u", b"") for name in names(600)])
    turns(world)
    if way == "loss":
        big.close()
    elif way == "garbage":
        big.send_raw(b"\0XXX")
    else:
        world.call(world.engine.receive_eof, big.link, world.now)
    assert big.link.has_backlog
    assert world.engine.queue.jobs
    worker.send(PreSleep())
    assert turns(world, between=witness) > 2
    assert big.closed
    assert not world.engine.queue.jobs
    assert all(function.workers <= 1 for function in world.engine.queue.functions.values())
    assert worker.take() == []


def test_job_of_client_in_cleanup_can_be_assigned_or_joined(world: World) -> None:
    """During the cleanup, the client's jobs can be assigned, or joined by another client."""
    gone, other, worker = world.connect(), world.connect(), world.worker(b"f", b"joined")
    joined = gone.submit(SubmitJob(b"joined", b"u", b""))
    given = gone.submit(SubmitJob(b"f", b"", b""))
    gone.send(*[SubmitJob(b"f", b"", b"")] * 600)
    turns(world)
    gone.close()
    assert gone.link.has_backlog
    assert other.submit(SubmitJob(b"joined", b"u", b"")) == joined
    assert [worker.grab(), worker.grab()] == [
        JobAssign(joined, b"joined", b""),
        JobAssign(given, b"f", b""),
    ]
    worker.send(WorkComplete(given, b"out"), WorkData(joined, b"x"))
    turns(world)
    worker.send(WorkComplete(joined, b"out"))
    assert other.take() == [WorkData(joined, b"x"), WorkComplete(joined, b"out")]
    assert not world.engine.queue.jobs


def test_job_cancelled_during_cleanup_of_worker_is_not_retried(world: World) -> None:
    client, admin, worker = world.connect(), world.connect(), world.worker(b"f")
    client.send(*[SubmitJobBg(b"f", b"", b"")] * 300)
    turns(world)
    worker.send(*[GrabJob()] * 300)
    turns(world)
    worker.close()
    assert worker.link.has_backlog
    last = list(worker.link.jobs)[-1]
    assert admin.ask(b"cancel job " + last) == b"OK\r\n"
    turns(world)
    assert not worker.link.jobs
    assert len(world.engine.queue.jobs) == 299


def test_resetting_many_abilities_takes_turns(world: World) -> None:
    witness, worker = Witness(world), world.worker(*names(600))
    turns(world)
    worker.send(ResetAbilities(), CanDo(b"again"), EchoReq(b"behind it"))
    assert worker.take() == []
    turns(world, between=witness)
    assert worker.take() == [EchoRes(b"behind it")]
    assert worker.ask(b"workers").splitlines()[1] == b"2 127.0.0.1 - : again"


# Timers.


def test_many_delayed_jobs_and_time_limits_take_turns(world: World) -> None:
    witness, client, worker = Witness(world), world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    client.send(*[SubmitJobEpoch(b"f", b"", b"%d" % (EPOCH + 10), b"")] * 600)
    worker.send(PreSleep())
    turns(world)
    world.now += 10
    assert turns(world, between=witness) == 3
    assert worker.take() == [Noop()]
    worker.send(*[GrabJob()] * 600)
    turns(world)
    assert len(worker.link.jobs) == 600
    world.now += 1
    assert turns(world, between=witness) == 3
    assert not worker.link.jobs


# The limit of functions per connection.


@pytest.mark.parametrize("one_more", [CanDo(b"more"), CanDoTimeout(b"more", b"1000")])
def test_too_many_functions_disconnect_worker(one_more: PacketEvent) -> None:
    world = World(max_abilities=3)
    client, worker, greedy = world.connect(), world.worker(b"f"), world.worker(*names(3))
    handle = client.submit(SubmitJob(b"f1", b"", b""))
    assert greedy.grab() == JobAssign(handle, b"f1", b"")
    # The number of functions stays the same.
    greedy.send(CanDo(b"f1"), CantDo(b"f2"), CanDo(b"other"), EchoReq(b""))
    assert greedy.take() == [EchoRes(b"")]
    greedy.send(one_more, EchoReq(b""))
    text = b"A connection may register for 3 functions at most"
    assert greedy.take() == [Error(b"TOO_MANY_FUNCTIONS", text)]
    assert greedy.closed
    assert not worker.closed
    assert b"more" not in world.engine.queue.functions
    # The job goes to the next worker.
    assert world.worker(b"f1").grab() == JobAssign(handle, b"f1", b"")


# Handshakes.


def test_peer_is_served_after_its_handshake(world: World) -> None:
    peer = world.connect(handshake=True)
    assert world.engine.next_deadline() == 10
    world.call(world.engine.connected, peer.link, world.now)
    assert world.engine.next_deadline() is None
    assert peer.ask(b"version") == b"OK \n"


@pytest.mark.parametrize("way", ["silence", "failure", "loss", "shutdown", "graceful", "close"])
def test_failed_handshake_closes_link(world: World, way: str) -> None:
    engine = world.engine
    world.goes_on = True
    peer = world.connect(handshake=True)
    link = peer.link
    if way == "silence":
        world.wait(9.9)
        assert not peer.closed
        world.wait(0.1)
    elif way in ("failure", "loss"):
        peer.closed = True
        tell = engine.connect_failed if way == "failure" else engine.connection_lost
        world.call(tell, link, OSError("no certificate"), world.now)
    elif way == "close":
        world.call(engine.close, world.now)
    else:
        world.shut_down(graceful=way == "graceful")
    assert peer.closed
    assert not link.alive
    assert not engine.links
    assert engine.next_deadline() is None
    # Late reports of the transport change nothing.
    world.call(engine.connected, link, world.now)
    world.call(engine.receive_eof, link, world.now)
    assert not link.alive
