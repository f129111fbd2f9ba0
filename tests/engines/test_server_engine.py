"""Behavior of the job server's engine towards clients, workers, and admins."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import MAX_EPOCH, MAX_HANDLE_SIZE
from gearman_proto.engines.server import jobqueue
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.server.links import ServerLink
from gearman_proto.errors import GearmanError, LocalProtocolError
from gearman_proto.testing import pack
from gearman_proto.wire.packets import (
    EVENT_CLASSES,
    MAGIC_REQUEST,
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    PacketEvent,
    PreSleep,
    ResetAbilities,
    Role,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitJobSched,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    TextLine,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .harness import EPOCH, Bell
from .server_harness import Peer, World, raw

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
NO_MEMORY = Error(b"QUEUE_ERROR", b"The memory of the server is full")
TOO_LARGE = Error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
OUT_OF_RANGE = Error(b"ARGUMENT_TOO_LARGE", b"Epoch out of range")
UNEXPECTED = Error(b"INVALID_COMMAND", b"Command not expected")
NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")

FOREGROUND: list[Callable[[bytes, bytes, bytes], PacketEvent]] = [
    SubmitJob,
    SubmitJobHigh,
    SubmitJobLow,
    lambda function, unique, data: SubmitReduceJob(function, unique, b"", b"", data),
]
BACKGROUND: list[Callable[[bytes, bytes, bytes], PacketEvent]] = [
    SubmitJobBg,
    SubmitJobHighBg,
    SubmitJobLowBg,
    lambda function, unique, data: SubmitReduceJobBackground(function, unique, b"", b"", data),
    lambda function, unique, data: SubmitJobEpoch(function, unique, b"0", data),
]


def job(data: bytes = b"x", unique: bytes = b"") -> SubmitJob:
    return SubmitJob(b"f", unique, data)


def job_bg(data: bytes = b"x", unique: bytes = b"") -> SubmitJobBg:
    return SubmitJobBg(b"f", unique, data)


def at(seconds: float, data: bytes = b"x", unique: bytes = b"") -> SubmitJobEpoch:
    """Return a submit of a job for `seconds` after the start of the World."""
    return SubmitJobEpoch(b"f", unique, b"%d" % (EPOCH + seconds), data)


def assigned(peer: Peer) -> bytes:
    """Grab a job and return its handle."""
    assign = peer.grab()
    assert isinstance(assign, JobAssign)
    return assign.handle


def status(peer: Peer, handle: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the fields of the job's STATUS_RES, except the handle."""
    peer.send(GetStatus(handle))
    answer = peer.one()
    assert isinstance(answer, StatusRes)
    assert answer.handle == handle
    return answer.known, answer.running, answer.numerator, answer.denominator


KNOWN = (b"1", b"0", b"0", b"0")
RUNNING = (b"1", b"1", b"0", b"0")
UNKNOWN = (b"0", b"0", b"0", b"0")


# The life of a job.


def test_handles_differ_between_servers() -> None:
    def first_handle(seed: int) -> bytes:
        world = World()
        world.engine = ServerEngine(rng=random.Random(seed), wall_clock=lambda: 0.0)
        return world.connect().submit(job())

    first, second = first_handle(1), first_handle(2)
    assert first != second
    for handle in (first, second):
        assert re.fullmatch(rb"H:localhost:\d{12}", handle)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("a.example-1_x", b"a.example-1_x"),
        ("", b"localhost"),
        ("a b\tc\0d:e%d\n", b"a-b-c-d-e-d-"),
        ("b\xfccher", b"b-cher"),
        ("h" * 300, b"h" * 48),
    ],
)
def test_handle_contains_printable_host_name(host: str, shown: bytes) -> None:
    handle = World(host=host).connect().submit(job())
    assert re.fullmatch(rb"H:%b:\d{12}" % re.escape(shown), handle)
    assert len(handle) <= MAX_HANDLE_SIZE


@pytest.mark.parametrize("first", [0, 8, 10**12 - 3])
def test_no_handle_begins_with_another(first: int) -> None:
    """The client of libgearman 2.0 would confuse them."""

    class Chance(random.Random):
        def randrange(self, *args: Any) -> int:
            return first

    handles = list(itertools.islice(jobqueue.make_handles("h", Chance()), 1000))
    assert len(set(handles)) == 1000
    assert {len(handle) for handle in handles} == {len(b"H:h:") + 12}


def numbers(data: bytes) -> list[int]:
    """Return the packet types in `data`."""
    found = []
    while data:
        found.append(int.from_bytes(data[4:8], "big"))
        data = data[12 + int.from_bytes(data[8:12], "big") :]
    return found


# The order of jobs.


# Coalescing.


def test_what_is_not_one_job() -> None:
    client = World().connect()
    submits = [
        job(b"x", b"u"),
        job(b"x", b"U"),
        SubmitJob(b"g", b"u", b"x"),
        job(b"x", b""),
        job(b"x", b""),
        job(b"u", b"-"),
        job(b"U", b"-"),
        job(b"", b"-"),
        job(b"", b"-"),
        SubmitJob(b"g", b"-", b"u"),
    ]
    assert len({client.submit(submit) for submit in submits}) == len(submits)


def test_unique_dash_coalesces_by_data() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(job(b"x", b"-"))
    assert client.submit(job(b"x", b"-")) == handle
    assert worker.grab(GrabJobUniq()) == JobAssignUniq(handle, b"f", b"-", b"x")
    client.send(GetStatusUnique(b"-"))
    assert client.take() == [StatusResUnique(b"-", *UNKNOWN, b"0")]
    worker.send(WorkComplete(handle, b""))
    assert client.take() == [WorkComplete(handle, b"")] * 2
    assert client.submit(job(b"x", b"-")) != handle


@pytest.mark.parametrize("exceptions", [False, True])
def test_client_that_submits_twice_receives_exception_twice(exceptions: bool) -> None:
    world = World(exceptions=exceptions)
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(job(unique=b"u"))
    client.submit(job(unique=b"u"))
    assigned(worker)
    worker.send(WorkException(handle, b"why"))
    end = WorkException(handle, b"why") if exceptions else WorkFail(handle)
    assert client.take() == [end, end]


@pytest.mark.parametrize(("copies", "cut_off"), [(2, False), (3, False), (4, True), (9999, True)])
def test_unread_copies_count_towards_max_unread(copies: int, cut_off: bool) -> None:
    """Copies count as unread output. If they exceed the limit, the engine does not create them."""
    world = World(max_unread=10_000)
    client, worker = world.connect(), world.worker(b"f")
    client.send(*[job(unique=b"u")] * copies)
    handle = world.engine.queue.by_key[b"u"].handle
    client.take()
    client.stop_reading()
    assigned(worker)
    worker.send(WorkData(handle, b"x" * 5000))
    assert client.closed == cut_off
    assert not worker.closed
    if not cut_off:
        client.read_on()
        assert client.take() == [WorkData(handle, b"x" * 5000)] * copies


# Clients that leave.


def test_abandoned_and_its_worker_lost() -> None:
    world = World()
    client, worker, other = world.connect(), world.worker(b"f"), world.worker(b"f")
    client.submit(job(unique=b"u"))
    assigned(worker)
    client.close()
    other.send(PreSleep())
    worker.close()
    assert other.take() == []
    assert other.grab() == NoJob()
    assert not world.engine.queue.jobs


def test_joined_abandoned_job_with_lost_worker_is_retried() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.submit(job(unique=b"u"))
    handle = assigned(worker)
    client.close()
    other = world.connect()
    assert other.submit(job(unique=b"u")) == handle
    worker.close()
    assert world.worker(b"f").grab() == JobAssign(handle, b"f", b"x")


@pytest.mark.parametrize("background_first", [True, False])
def test_background_job_outlives_its_listener(background_first: bool) -> None:
    world = World()
    client, other, worker = world.connect(), world.connect(), world.worker(b"f")
    submits: list[Callable[[], bytes]] = [
        lambda: other.submit(job_bg(unique=b"u")),
        lambda: client.submit(job(unique=b"u")),
    ]
    first, second = (submit() for submit in (submits if background_first else submits[::-1]))
    assert first == second
    client.close()
    other.close()
    assert worker.grab() == JobAssign(first, b"f", b"x")


def test_client_disconnect_drops_its_unshared_queued_jobs() -> None:
    world = World()
    client, worker, other = world.connect(), world.worker(b"f"), world.connect()
    running = client.submit(job())
    assigned(worker)
    queued = [client.submit(job()) for _ in range(3)]
    shared = client.submit(job(unique=b"u"))
    other.submit(job(unique=b"u"))
    kept = client.submit(job_bg())
    client.close()
    assert list(world.engine.queue.jobs) == [running, shared, kept]
    assert not set(queued) & set(world.engine.queue.jobs)


def test_client_that_runs_its_own_jobs_disconnects() -> None:
    world = World()
    both = world.worker(b"f")
    both.submit(job())
    background = both.submit(job_bg())
    assigned(both)
    assigned(both)
    both.close()
    assert list(world.engine.queue.jobs) == [background]
    assert world.worker(b"f").grab() == JobAssign(background, b"f", b"x")


# Lost workers.


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_limited(retries: int) -> None:
    world = World(job_retries=retries)
    client = world.connect()
    handle = client.submit(job(unique=b"u"))
    background = client.submit(job_bg(unique=b"v"))
    for _ in range(retries + 1):
        assert client.take() == []
        worker = world.worker(b"f")
        assert {assigned(worker), assigned(worker)} == {handle, background}
        worker.close()
    assert client.take() == [WorkFail(handle)]
    assert not world.engine.queue.jobs
    assert world.worker(b"f").grab() == NoJob()
    assert client.submit(job(unique=b"u")) != handle


def test_retries_without_limit() -> None:
    world = World(job_retries=None)
    client = world.connect()
    handle = client.submit(job())
    for _ in range(50):
        worker = world.worker(b"f")
        assert assigned(worker) == handle
        worker.close()
    assert client.take() == []
    assert client.ask(b"show jobs") == b"%b\t50\t0\t0\n.\n" % handle


@pytest.mark.parametrize("give_up", [CantDo(b"f"), ResetAbilities()])
def test_unregistering_function_keeps_running_job(give_up: PacketEvent) -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f", b"g")
    handle = client.submit(job())
    assigned(worker)
    client.submit(job())
    worker.send(give_up)
    assert worker.grab() == NoJob()
    worker.send(WorkComplete(handle, b"out"))
    assert client.take() == [WorkComplete(handle, b"out")]
    assert worker.take() == []


# Time limits.


def test_time_limit() -> None:
    world = World()
    client, slow, other = world.connect(), world.connect(), world.worker(b"f")
    slow.send(CanDoTimeout(b"f", b"1500"))
    handle = client.submit(job())
    assigned(slow)
    other.send(PreSleep())
    assert world.engine.next_deadline() == 1.5
    world.sleep(1.4)
    assert other.take() == []
    world.sleep(0.1)
    assert other.take() == [Noop()]
    assert client.take() == slow.take() == []
    assert assigned(other) == handle
    # The server ignores further packets of the slow worker about the job.
    slow.send(
        WorkData(handle, b""),
        WorkWarning(handle, b""),
        WorkStatus(handle, b"1", b"2"),
        WorkException(handle, b""),
        WorkFail(handle),
        WorkComplete(handle, b"late"),
        EchoReq(b""),
    )
    assert slow.take() == [EchoRes(b"")]
    assert status(client, handle) == RUNNING
    world.sleep(100)
    other.send(WorkComplete(handle, b"out"))
    assert client.take() == [WorkComplete(handle, b"out")]


def test_time_limit_is_of_each_job() -> None:
    world = World()
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"), CanDoTimeout(b"g", b"3000"), CanDo(b"h"))
    handles = {name: client.submit(SubmitJob(name, b"", b"")) for name in (b"f", b"g", b"h")}
    for handle in handles.values():
        assert assigned(worker) == handle
    world.sleep(0.5)
    second = client.submit(job())
    assert assigned(worker) == second
    worker.send(WorkComplete(handles[b"f"], b""), PreSleep())
    client.take()
    world.sleep(0.9)
    assert worker.take() == []
    assert status(client, second) == RUNNING
    world.sleep(0.1)
    assert worker.take() == [Noop()]
    assert status(client, second) == KNOWN
    assert status(client, handles[b"g"]) == RUNNING
    world.sleep(1.5)
    assert status(client, handles[b"g"]) == KNOWN
    world.sleep(1e6)
    assert status(client, handles[b"h"]) == RUNNING


def test_time_limit_begins_when_the_job_is_given_out() -> None:
    world = World()
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    client.submit(job())
    world.now = 7.0
    assigned(worker)
    assert world.engine.next_deadline() == 8.0


def test_time_limit_counts_as_a_loss() -> None:
    world = World(job_retries=1)
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    handle = client.submit(job())
    assert assigned(worker) == handle
    world.sleep(1)
    # The server can assign the job to the same worker again, and then accepts its packets.
    assert assigned(worker) == handle
    worker.send(WorkData(handle, b"again"))
    assert client.take() == [WorkData(handle, b"again")]
    world.sleep(1)
    assert client.take() == [WorkFail(handle)]
    assert worker.take() == []
    assert worker.grab() == NoJob()


@pytest.mark.parametrize("timeout", [b"0", b"-5", b"", b"abc"])
def test_no_time_limit(timeout: bytes) -> None:
    world = World()
    client, worker = world.connect(), world.worker()
    worker.send_raw(raw(CanDoTimeout(b"f", b"1000"), CanDoTimeout(b"f", timeout)))
    client.submit(job())
    assigned(worker)
    assert world.engine.next_deadline() is None


@pytest.mark.unmeasured
def test_finished_jobs_cancel_their_time_limits() -> None:
    world = World()
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    handles = [client.submit(job_bg()) for _ in range(200)]
    for handle in handles:
        assert assigned(worker) == handle
    worker.send(*[WorkComplete(handle, b"") for handle in handles[:-1]])
    assert world.engine.next_deadline() == 1.0
    worker.send(WorkComplete(handles[-1], b""))
    assert world.engine.next_deadline() is None


# Packets about jobs of other workers.


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (WorkStatus(b"H:1", b"1", b"2"), b"Job given in work result not found"),
        (WorkComplete(b"H:1", b""), b"Job given in work result not found"),
        (WorkFail(b"H:1"), b"Job given in work result not found"),
        (WorkFail(b""), b"Job given in work result not found"),
        (WorkData(b"H:1", b""), b"Job does not exist on server"),
        (WorkWarning(b"H:1", b""), b"Job does not exist on server"),
        (
            WorkException(b"H:1", b""),
            b"An exception was received for a job that does not exist",
        ),
    ],
)
def test_work_for_unknown_job_is_refused(event: PacketEvent, text: bytes) -> None:
    world = World()
    worker = world.worker(b"f")
    worker.send(event)
    assert worker.take() == [Error(b"JOB_NOT_FOUND", text)]


@pytest.mark.unmeasured
def test_latest_former_jobs_are_remembered() -> None:
    world = World(job_retries=0)
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    handles = [client.submit(job_bg()) for _ in range(257)]
    for handle in handles:
        assert assigned(worker) == handle
    world.sleep(1)
    worker.send(WorkComplete(handles[0], b""))
    assert worker.take() == [NOT_FOUND]
    worker.send(*[WorkComplete(handle, b"") for handle in handles[1:]])
    assert worker.take() == []


# Sleeping.


def test_no_sleep_while_there_is_work() -> None:
    world = World()
    client, worker, other = world.connect(), world.worker(b"f"), world.worker(b"f")
    client.submit(job())
    worker.send(PreSleep(), PreSleep())
    assert worker.take() == [Noop(), Noop()]
    # Another worker takes the job. The first one was not put to sleep, so it gets no NOOP.
    assigned(other)
    client.submit(job())
    assert worker.take() == []
    assigned(worker)


# Jobs for later.


def test_delayed_job_runs_at_its_epoch() -> None:
    world = World()
    client, worker, awake = world.connect(), world.worker(b"f"), world.worker(b"f")
    worker.send(PreSleep())
    handle = client.submit(at(10, unique=b"u"))
    assert worker.take() == []
    assert awake.grab() == NoJob()
    assert status(client, handle) == KNOWN
    assert client.ask(b"status") == b"f\t1\t0\t2\n.\n"
    assert client.ask(b"prioritystatus") == b"f\t0\t1\t0\t2\n.\n"
    assert world.engine.next_deadline() == 10
    world.sleep(9.75)
    assert worker.take() == []
    world.sleep(0.25)
    assert worker.take() == [Noop()]
    assert awake.take() == []
    assert worker.grab() == JobAssign(handle, b"f", b"x")
    assert world.engine.next_deadline() is None


def test_delayed_jobs_run_in_order_of_epochs() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    for seconds in (30, 10, 20, 40):
        client.submit(at(seconds, b"%d" % seconds))
    assert world.engine.next_deadline() == 10
    given: list[tuple[float, bytes]] = []
    while len(given) < 4:
        worker.send(PreSleep())
        world.wait(1)
        if worker.take():
            assign = worker.grab()
            assert isinstance(assign, JobAssign)
            given.append((world.now, assign.data))
    assert given == [(10, b"10"), (20, b"20"), (30, b"30"), (40, b"40")]


def test_delayed_job_does_not_block_others() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.submit(at(10))
    low = client.submit(SubmitJobLow(b"f", b"", b"low"))
    worker.send(PreSleep())
    assert worker.take() == [Noop()]
    assert assigned(worker) == low
    worker.send(PreSleep())
    assert worker.take() == []


@pytest.mark.parametrize("epoch", [b"0", b"-1", b"", b"abc", b"1", b"%d" % EPOCH])
def test_past_epoch_runs_job_immediately(epoch: bytes) -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.send_raw(raw(SubmitJobEpoch(b"f", b"", epoch, b"x")))
    assert numbers(client.take_raw()) == [JobCreated.packet.number]
    assigned(worker)
    assert world.engine.next_deadline() is None


@pytest.mark.parametrize("epoch", [b"%d" % (MAX_EPOCH + 1), b"1" * 20, b"-" + b"1" * 20])
def test_epoch_out_of_range_is_refused(epoch: bytes) -> None:
    world = World()
    client = world.connect()
    client.send_raw(raw(SubmitJobEpoch(b"f", b"u", epoch, b"x")))
    assert client.take_raw() == pack(Error.packet, (OUT_OF_RANGE.code, OUT_OF_RANGE.text), b"\0RES")
    assert not world.engine.queue.jobs


def test_largest_epoch_is_accepted() -> None:
    world = World()
    client = world.connect()
    client.submit(SubmitJobEpoch(b"f", b"", b"%d" % MAX_EPOCH, b"x"))
    world.wait(3600)
    assert client.ask(b"status") == b"f\t1\t0\t0\n.\n"


def test_wall_clock_set_forward() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.submit(at(86400))
    worker.send(PreSleep())
    world.wait(1000)
    assert worker.take() == []
    world.ahead += 86400
    world.wait(60)
    assert worker.take() == [Noop()]


def test_wall_clock_set_back() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.submit(at(10))
    worker.send(PreSleep())
    world.ahead -= 3600
    world.wait(3609)
    assert worker.take() == []
    world.wait(1)
    assert worker.take() == [Noop()]


@pytest.mark.parametrize("seconds", [-1, 10])
def test_due_job_stays_due_when_wall_clock_is_set_back(seconds: int) -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(at(seconds))
    world.wait(10)
    assert assigned(worker) == handle
    world.ahead -= 3600
    worker.close()
    assert status(client, handle) == KNOWN
    assert world.worker(b"f").grab() == JobAssign(handle, b"f", b"x")


def test_submits_that_join_delayed_job_keep_its_epoch() -> None:
    world = World()
    client, other, worker = world.connect(), world.connect(), world.worker(b"f")
    handle = client.submit(at(10, unique=b"u"))
    assert client.submit(job(unique=b"u")) == handle
    assert other.submit(job(unique=b"u")) == handle
    assert other.submit(at(5, unique=b"u")) == handle
    client.close()
    assert worker.grab() == NoJob()
    world.wait(10)
    assert assigned(worker) == handle
    worker.send(WorkComplete(handle, b"out"))
    assert other.take() == [WorkComplete(handle, b"out")]


# Status.


def test_status_by_unique_looks_at_all_functions() -> None:
    world = World()
    client = world.worker(b"idle")
    client.submit(SubmitJob(b"f", b"u", b""))
    client.submit(SubmitJob(b"g", b"v", b""))
    client.submit(SubmitJob(b"g", b"", b""))
    client.send(GetStatusUnique(b"v"), GetStatusUnique(b"w"), GetStatusUnique(b""))
    assert client.take() == [
        StatusResUnique(b"v", *KNOWN, b"1"),
        StatusResUnique(b"w", *UNKNOWN, b"0"),
        StatusResUnique(b"", *UNKNOWN, b"0"),
    ]


def test_status_of_unusual_names() -> None:
    world = World()
    client = world.connect()
    handle = client.submit(job(unique=b"u"))
    long = b"h" * 1000
    client.send_raw(
        raw(GetStatus(handle + b"\0x"), GetStatusUnique(b"u\0x"), GetStatus(long), GetStatus(b""))
    )
    assert client.take_raw() == b"".join(
        pack(event.packet, type(event).arguments(event), b"\0RES")
        for event in (
            StatusRes(handle, *KNOWN),
            StatusResUnique(b"u", *KNOWN, b"1"),
            StatusRes(long, *UNKNOWN),
            StatusRes(b"", *UNKNOWN),
        )
    )


@pytest.mark.parametrize(
    ("numerator", "denominator", "stored"),
    [
        (b"-1", b"abc", (b"0", b"0")),
        (b"0.5", b"1.9", (b"0", b"1")),
        (b"", b"", (b"0", b"0")),
        (b"007", b" 8x", (b"7", b"8")),
        (b"9" * 500, b"4294967296", (b"9" * 19, b"4294967296")),
    ],
)
def test_status_numbers(numerator: bytes, denominator: bytes, stored: tuple[bytes, bytes]) -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(job())
    assigned(worker)
    # The server passes the numbers on unchanged, but cuts them at a NUL, which no client expects.
    worker.send_raw(raw(WorkStatus(handle, numerator, denominator + b"\0x")))
    assert client.take() == [WorkStatus(handle, numerator, denominator)]
    assert status(client, handle) == (b"1", b"1", *stored)


# Options, exceptions, and other requests.


def test_exceptions_for_all() -> None:
    world = World(exceptions=True)
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(job())
    assigned(worker)
    worker.send(WorkException(handle, b"why"))
    assert client.take() == [WorkException(handle, b"why")]


def test_every_request_has_a_handler() -> None:
    engine = World().engine
    requests = {c for c in EVENT_CLASSES.values() if Role.SERVER in c.packet.receiver}
    assert requests < set(engine._handlers)
    # The other handlers are for text lines, invalid requests, and the end of the stream.
    assert len(set(engine._handlers) - requests) == 3


def test_unsupported_packets_are_refused() -> None:
    client = World().connect()
    client.send_raw(
        raw(AllYours(), SubmitJobSched(*[b""] * 8), Noop(), JobCreated(b"H:1"))
        + b"\0REQ\0\0\0\x05\0\0\0\0"
    )
    refused = pack(Error.packet, (UNEXPECTED.code, UNEXPECTED.text), b"\0RES")
    assert client.take_raw() == refused * 5
    client.send_raw(b"\0RES" + raw(EchoReq(b""))[4:])
    assert client.take_raw() == pack(
        Error.packet, (b"INVALID_MAGIC", b"Request magic expected"), b"\0RES"
    )
    client.send(EchoReq(b"goes on"))
    assert client.take() == [EchoRes(b"goes on")]


@pytest.mark.parametrize("submit", FOREGROUND + BACKGROUND)
def test_unique_too_large(submit: Callable[..., PacketEvent]) -> None:
    world = World()
    client = world.connect()
    client.send_raw(raw(submit(b"f", b"u" * 65, b"x")))
    assert client.take_raw() == pack(Error.packet, (TOO_LARGE.code, TOO_LARGE.text), b"\0RES")
    assert not world.engine.queue.functions
    client.send_raw(raw(submit(b"f", b"u" * 64, b"x")))
    assert numbers(client.take_raw()) == [JobCreated.packet.number]


@pytest.mark.parametrize("submit", [SubmitReduceJob, SubmitReduceJobBackground])
def test_reducer_too_large(submit: Callable[..., PacketEvent]) -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.send_raw(raw(submit(b"f", b"u", b"r" * 65, b"", b"x")))
    assert client.take_raw() == pack(Error.packet, (TOO_LARGE.code, TOO_LARGE.text), b"\0RES")
    handle = client.submit(submit(b"f", b"u", b"r" * 64, b"", b"x"))
    assert worker.grab(GrabJobAll()) == JobAssignAll(handle, b"f", b"u", b"r" * 64, b"x")


# Queue limits.


def test_max_queue_size() -> None:
    world = World(max_queue_size=2)
    client, worker = world.connect(), world.worker(b"f")
    first = client.submit(job(unique=b"u"))
    client.submit(job())
    client.send(job())
    assert client.take() == [FULL]
    # A running job counts. A submit that joins a job does not.
    assigned(worker)
    client.send(job(), job(unique=b"u"), SubmitJob(b"g", b"", b""))
    refused, joined, other = client.take()
    assert refused == FULL
    assert joined == JobCreated(first)
    assert isinstance(other, JobCreated)
    worker.send(WorkComplete(first, b""))
    client.take()
    client.submit(job())


def test_maxqueue_of_each_priority() -> None:
    world = World(max_queue_size=1)
    client = world.connect()
    client.submit(job())
    assert client.ask(b"maxqueue f 3 2 0") == b"OK\r\n"
    client.submit(job())
    client.send(job(), job_bg())
    assert client.take() == [FULL, FULL]
    client.submit(SubmitJobHigh(b"f", b"", b""))
    client.send(SubmitJobHigh(b"f", b"", b""))
    assert client.take() == [FULL]
    client.submit(SubmitJobLow(b"f", b"", b""))


@pytest.mark.parametrize(
    ("sizes", "limits"),
    [
        (b"", (0, 0, 0)),
        (b" 2", (2, 2, 2)),
        (b" 2 3", (2, 3, 0)),
        (b" 2 3 4", (2, 3, 4)),
        (b" -1", (0, 0, 0)),
        (b" x 1 -7", (0, 1, 0)),
    ],
)
def test_maxqueue_arguments(sizes: bytes, limits: tuple[int, int, int]) -> None:
    world = World()
    admin = world.worker(b"f")
    assert admin.ask(b"MaxQueue  f" + sizes) == b"OK\r\n"
    assert world.engine.queue.functions[b"f"].limits == limits
    assert admin.ask(b"maxqueue unknown 1") == b"OK\r\n"
    assert list(world.engine.queue.functions) == [b"f"]


# Text commands.


def test_simple_commands() -> None:
    admin = World(version="1.2", pid=345).connect()
    assert admin.ask(b"version") == b"OK 1.2\n"
    assert admin.ask(b"getpid") == b"OK 345\n"
    assert admin.ask(b"verbose") == b"OK ERROR\n"
    admin.send(TextLine(b"VERSION", b"\n"), EchoReq(b"x"), TextLine(b"version"))
    assert admin.take() == [TextLine(b"OK 1.2", b"\n"), EchoRes(b"x"), TextLine(b"OK 1.2", b"\n")]


def test_lists() -> None:
    world = World()
    client, worker = world.connect("::1"), world.worker(b"f", b"two words", b"g", b"f")
    for line in (b"status", b"prioritystatus"):
        assert world.connect().ask(line).startswith(b"f\t0\t0")
    running = client.submit(job(unique=b"u"))
    assigned(worker)
    worker.send(SetClientId(b"me"))
    client.submit(SubmitJobLow(b"f", b"", b""))
    client.submit(SubmitJobHighBg(b"g", b"v", b""))
    client.submit(at(10))
    assert client.ask(b"status") == b"f\t3\t1\t1\ntwo words\t0\t0\t1\ng\t1\t0\t1\n.\n"
    assert client.ask(b"prioritystatus") == (
        b"f\t0\t1\t1\t1\ntwo words\t0\t0\t0\t1\ng\t1\t0\t0\t1\n.\n"
    )
    # The list starts with the latest registration. The worker has registered f again.
    assert client.ask(b"workers") == (
        b"1 ::1 - :\n2 127.0.0.1 me : f g two words\n3 127.0.0.1 - :\n4 127.0.0.1 - :\n.\n"
    )
    assert client.ask(b"show unique jobs") == b"u\n\nv\n\n.\n"
    handles = list(world.engine.queue.jobs)
    assert handles[0] == running
    assert client.ask(b"show jobs") == (
        b"%b\t0\t0\t0\n%b\t0\t0\t0\n%b\t0\t0\t1\n%b\t0\t0\t1\n.\n" % tuple(handles)
    )


def test_lists_are_empty() -> None:
    admin = World().connect()
    for line in (b"status", b"prioritystatus", b"show jobs", b"SHOW Unique JOBS"):
        assert admin.ask(line) == b".\n"


def test_running_jobs_in_the_list() -> None:
    world = World()
    client, worker, other = world.connect(), world.worker(b"f"), world.connect()
    foreground, background = client.submit(job()), client.submit(job_bg())
    assigned(worker)
    assigned(worker)
    client.close()
    # The first job is no longer wanted. The second one, a background job, still is.
    assert other.ask(b"show jobs") == b"%b\t0\t1\t0\n%b\t0\t0\t1\n.\n" % (foreground, background)


def test_names_do_not_break_the_lists() -> None:
    world = World()
    peer = world.connect()
    peer.send_raw(raw(CanDo(b"a\tb\nc\0d\x7f"), SetClientId(b"x\ny\0z"), job_bg(unique=b".\n")))
    peer.take_raw()
    assert peer.ask(b"status") == b"a?b?c?d?\t0\t0\t1\nf\t1\t0\t0\n.\n"
    assert peer.ask(b"prioritystatus") == b"a?b?c?d?\t0\t0\t0\t1\nf\t0\t1\t0\t0\n.\n"
    assert peer.ask(b"workers") == b"1 127.0.0.1 x?y : a?b?c?d?\n.\n"
    assert peer.ask(b"show unique jobs") == b".?\n.\n"


def test_client_id() -> None:
    world = World()
    peer = world.connect()
    peer.send_raw(raw(SetClientId(b"i" * 130)))
    assert peer.ask(b"workers") == b"1 127.0.0.1 %b :\n.\n" % (b"i" * 127)
    peer.send(SetClientId(b"two words"))
    assert peer.ask(b"workers") == b"1 127.0.0.1 two words :\n.\n"
    peer.send(SetClientId(b""))
    assert peer.ask(b"workers") == b"1 127.0.0.1  :\n.\n"


UNKNOWN_COMMAND = b"ERR UNKNOWN_COMMAND Unknown+server+command"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"", UNKNOWN_COMMAND),
        (b" version", UNKNOWN_COMMAND),
        (b"Foo bar", UNKNOWN_COMMAND + b"Foo"),
        (b"\xff\xfe", UNKNOWN_COMMAND + b"\xff\xfe"),
        (b"show", UNKNOWN_COMMAND + b"show"),
        (b"cancel", UNKNOWN_COMMAND + b"cancel"),
        (b"cancel job", UNKNOWN_COMMAND + b"cancel"),
        (b"show x", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show unique", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"cancel x", b"ERR UNKNOWN_ERROR"),
        (b"cancel x y", b"ERR UNKNOWN_ERROR"),
        (b"cancel job a b", b"ERR UNKNOWN_ERROR"),
        (b"cancel job a", b"ERR UNKNOWN_JOB"),
        (b"maxqueue", INCOMPLETE + b"maxqueue"),
        (b"create", INCOMPLETE + b"create"),
        (b"CREATE function", INCOMPLETE + b"CREATE"),
        (b"create x y", INCOMPLETE + b"create"),
        (b"create function a b", INCOMPLETE + b"create"),
        (b"drop", INCOMPLETE + b"drop"),
        (b"drop function", INCOMPLETE + b"drop"),
        (b"drop x y", INCOMPLETE + b"drop"),
        (b"drop function a b", INCOMPLETE + b"drop"),
        (b"drop function a", b"ERR function not found"),
        (b"shutdown now", INCOMPLETE + b"shutdown"),
        (b"shutdown graceful now", INCOMPLETE + b"shutdown"),
    ],
)
def test_invalid_commands_get_errors(line: bytes, answer: bytes) -> None:
    world = World()
    admin = world.connect()
    assert admin.ask(line) == answer + b"\r\n"
    assert admin.ask(b"status") == b".\n"
    assert world.listening


def test_words_are_separated_by_any_number_of_blanks() -> None:
    admin = World().connect()
    assert admin.ask(b"create   function  f ") == b"OK\r\n"
    assert admin.ask(b"status   ") == b"f\t0\t0\t0\n.\n"


def test_drop_takes_nothing_that_is_used() -> None:
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    refusal = b"ERR there are still connected workers or executing clients\r\n"
    assert client.ask(b"drop function f") == refusal
    client.submit(job())
    worker.close()
    assert client.ask(b"drop function f") == refusal
    assert client.ask(b"status") == b"f\t1\t0\t0\n.\n"


@pytest.mark.parametrize("state", ["queued", "running", "delayed"])
@pytest.mark.parametrize("listens", [True, False])
def test_cancel(state: str, listens: bool) -> None:
    world = World()
    client, worker, admin = world.connect(), world.worker(b"f"), world.connect()
    handle = client.submit(at(10, unique=b"u") if state == "delayed" else job_bg(unique=b"u"))
    if listens:
        assert client.submit(job(unique=b"u")) == handle
    if state == "running":
        assert assigned(worker) == handle
    worker.send(PreSleep())
    worker.take()
    assert admin.ask(b"cancel job " + handle) == b"OK\r\n"
    assert client.take() == [WorkFail(handle)] * listens
    assert status(client, handle) == UNKNOWN
    assert admin.ask(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"
    assert admin.ask(b"status") == b"f\t0\t0\t1\n.\n"
    world.wait(20)
    if state == "running":
        # The worker does not know about the cancellation, and the server ignores its packets.
        worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"out"))
    assert worker.take() == client.take() == []
    assert worker.grab() == NoJob()
    assert client.submit(job(unique=b"u")) != handle


def test_cancel_a_job_with_a_time_limit() -> None:
    world = World()
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"))
    handle = client.submit(job())
    assigned(worker)
    client.ask(b"cancel job " + handle)
    assert world.engine.next_deadline() is None


def test_drop_forgets_the_limits() -> None:
    world = World()
    admin = world.connect()
    admin.ask(b"create function f")
    admin.ask(b"maxqueue f 1")
    assert admin.ask(b"drop function f") == b"OK\r\n"
    admin.submit(job())
    admin.submit(job())


# The end of the server.


def waiting(world: World) -> Any:
    bell = Bell()
    wait = world.call(world.engine.serve, world.now, bell)
    assert not wait.done
    return wait


def test_shutdown() -> None:
    world = World()
    wait = waiting(world)
    admin, client, worker = world.connect(), world.connect(), world.worker(b"f")
    client.submit(job())
    assigned(worker)
    assert admin.ask(b"shutdown") == b"OK\r\n"
    assert admin.closed
    assert client.closed
    assert worker.closed
    assert client.take() == []
    assert not world.listening
    assert world.engine.closed
    assert wait.done
    assert wait.wake.count == 1
    wait.raise_error()


def test_shutdown_sends_queued_packets_first() -> None:
    world = World()
    wait = waiting(world)
    admin, slow, dead = world.connect(), world.connect().stop_reading(), world.connect(reads=False)
    slow.send(EchoReq(b"x"))
    dead.send(EchoReq(b"x"))
    admin.ask(b"shutdown")
    assert admin.closed
    assert not slow.closed
    assert not wait.done
    # The server accepts neither packets nor connections.
    slow.send(job())
    late = world.connect()
    assert late.closed
    assert not late.link.alive
    slow.read_on()
    assert slow.take() == [EchoRes(b"x")]
    assert slow.closed
    world.sleep(4.5)
    assert not dead.closed
    world.sleep(0.5)
    assert dead.closed
    assert dead.inbox == b""
    assert wait.done


def test_shutdown_timeout_starts_at_shutdown() -> None:
    world = World()
    dead = world.connect(reads=False)
    dead.send(EchoReq(b"x"))
    world.now = 100.0
    world.shut_down()
    assert world.engine.next_deadline() == 105.0


def test_graceful_shutdown() -> None:
    world = World()
    wait = waiting(world)
    admin, client, worker = world.connect(), world.connect(), world.worker(b"f")
    handle = client.submit(job())
    later = client.submit(at(10))
    assert admin.ask(b"Shutdown Graceful") == b"OK\r\n"
    assert not world.listening
    assert world.connect().closed
    assert assigned(worker) == handle
    # The server still accepts jobs.
    meanwhile = client.submit(job())
    worker.send(WorkComplete(handle, b"out"))
    assert client.take() == [WorkComplete(handle, b"out")]
    assert assigned(worker) == meanwhile
    worker.send(WorkComplete(meanwhile, b"out"), PreSleep())
    assert client.take() == [WorkComplete(meanwhile, b"out")]
    assert not wait.done
    world.wait(10)
    assert worker.take() == [Noop()]
    assert assigned(worker) == later
    worker.send(WorkComplete(later, b""))
    assert client.closed
    assert wait.done


def test_graceful_shutdown_ends_without_links() -> None:
    world = World()
    wait = waiting(world)
    client = world.connect()
    client.submit(job_bg())
    world.shut_down(graceful=True)
    assert not wait.done
    client.close()
    assert wait.done


def test_shutdown_during_graceful_shutdown_ends_server() -> None:
    world = World()
    client = world.connect()
    client.submit(job_bg())
    client.ask(b"shutdown graceful")
    assert not world.engine.closed
    assert client.ask(b"shutdown") == b"OK\r\n"
    assert world.engine.closed


def test_shut_down_twice() -> None:
    world = World()
    slow = world.connect(reads=False)
    slow.send(EchoReq(b"x"))
    world.shut_down()
    world.shut_down(graceful=True)
    assert not slow.closed
    slow.read_on()
    assert slow.closed
    assert world.engine.closed


def test_shutdown_without_links_ends_immediately() -> None:
    world = World()
    wait = waiting(world)
    world.shut_down()
    assert wait.done
    assert not world.listening
    with pytest.raises(LocalProtocolError):
        world.engine.serve(world.now, Bell()).raise_error()


def test_close() -> None:
    world = World()
    wait = waiting(world)
    client, worker = world.connect(), world.worker(b"f")
    unread = world.connect(reads=False)
    unread.send(EchoReq(b"x"))
    client.submit(job())
    assigned(worker)
    world.call(world.engine.close, world.now)
    assert client.closed
    assert unread.closed
    assert unread.inbox == b""
    assert wait.done
    world.call(world.engine.close, world.now)
    assert wait.wake.count == 1


def test_close_during_shutdown_closes_links() -> None:
    world = World()
    slow = world.connect(reads=False)
    slow.send(EchoReq(b"x"))
    world.shut_down()
    assert not slow.closed
    world.call(world.engine.close, world.now)
    assert slow.closed
    world.sleep(10)


def test_released_wait_is_not_woken() -> None:
    world = World()
    wait = waiting(world)
    world.engine.release(wait, world.now)
    world.engine.release(wait, world.now)
    world.call(world.engine.close, world.now)
    assert not wait.done


def test_abandon_ends_the_server() -> None:
    world = World()
    wait = waiting(world)
    client = world.connect(reads=False)
    client.send(EchoReq(b"x"))
    assert world.engine.abandon(IndexError("a bug")) == [wait]
    with pytest.raises(GearmanError, match="a bug"):
        wait.raise_error()
    assert world.engine.closed
    assert not world.engine.links
    assert not world.engine.data_to_send(client.link, world.now)
    assert world.engine.next_action() is None
    assert world.engine.next_deadline() is None


# Links.


def test_links() -> None:
    world = World()
    peer = world.connect("10.0.0.1")
    assert repr(peer.link) == "<ServerLink 1 from 10.0.0.1>"
    world.call(world.engine.connected, peer.link, world.now)
    peer.send(EchoReq(b"x"))
    assert peer.take() == [EchoRes(b"x")]
    peer.closed = True
    world.call(world.engine.connect_failed, peer.link, OSError(), world.now)
    assert not world.engine.links


def test_calls_for_closed_link_are_ignored() -> None:
    world = World()
    client, gone = world.connect(), world.worker(b"f")
    gone.close()
    client.submit(job())
    engine = world.engine
    world.call(engine.connected, gone.link, world.now)
    world.call(engine.receive_data, gone.link, raw(GrabJob()), world.now)
    world.call(engine.receive_eof, gone.link, world.now)
    world.call(engine.connection_lost, gone.link, None, world.now)
    world.call(engine.connect_failed, gone.link, OSError(), world.now)
    assert world.call(engine.data_to_send, gone.link, world.now) == b""
    assert client.ask(b"status") == b"f\t1\t0\t0\n.\n"


def test_link_lost_before_write_has_no_data_to_send() -> None:
    world = World()
    peer = world.connect()
    engine = world.engine
    engine.receive_data(peer.link, raw(EchoReq(b"x")), world.now)
    peer.close()
    assert engine.data_to_send(peer.link, world.now) == b""


@pytest.mark.parametrize(
    "options",
    [
        {"job_retries": -1},
        {"max_packet_size": 0},
        {"max_packet_size": 2**31},
        {"max_unread": 0},
        {"max_memory": -1},
        {"max_queue_size": -1},
    ],
)
def test_invalid_options_raise(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        ServerEngine(rng=random.Random(1), wall_clock=lambda: 0.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[300_000], [10, 300_000], [300_000, 10], [5000] * 200])
def test_everything_is_sent_in_order(sizes: list[int]) -> None:
    world = World()
    client = world.connect(reads=False)
    echoes = [b"%d" % n + b"x" * size for n, size in enumerate(sizes)]
    client.send(*[EchoReq(data) for data in echoes])
    chunks = []
    while data := world.engine.data_to_send(client.link, world.now):
        chunks.append(data)
        world.check()
    largest = max(map(len, echoes)) + 12
    assert all(len(chunk) <= max(largest, 256 * 1024) for chunk in chunks)
    assert len(chunks) <= 4
    client.inbox = b"".join(chunks)
    assert client.take() == [EchoRes(data) for data in echoes]


# Misbehaving peers, and limits.


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0XXX",
        b"\0REQ\0\0\0\x2b\0\0\0\0",
        b"\0REQ\0\0\0\0\0\0\0\0",
        b"\0REQ\xff\xff\xff\xff\0\0\0\0",
        b"\0REQ\0\0\0\x12\0\0\0\x03f\0u",
        b"\0REQ\0\0\0\x07\xff\xff\xff\xff",
        b"\0REQ\0\0\0\x01\0\x01\0\x01",
        b"one two three four five six\n",
        b"x" * 8193,
    ],
)
def test_garbage_disconnects_peer_after_responses(garbage: bytes) -> None:
    world = World()
    client, bad = world.connect(), world.worker(b"f")
    client.submit(job(b"1", b"u"))
    own = bad.submit(job(b"own"))
    shared = bad.submit(job(b"1", b"u"))
    assert assigned(bad) == shared
    sound = bad.connection.send(EchoReq(b"x")) + bad.connection.send(EchoReq(b"y"))
    bad.send_raw(sound + garbage + raw(job(b"never")))
    assert bad.closed
    # The server has answered the packets before the garbage, and taken the job from the worker.
    assert bad.take() == [EchoRes(b"x"), EchoRes(b"y")]
    assert list(world.engine.queue.jobs) == [shared]
    assert status(client, own) == UNKNOWN
    assert world.worker(b"f").grab() == JobAssign(shared, b"f", b"1")


def test_garbage_from_peer_that_does_not_read_starts_timeout() -> None:
    world = World()
    bad = world.connect(reads=False)
    bad.send(EchoReq(b"x"))
    bad.send_raw(b"\0XXX")
    assert not bad.closed
    assert world.engine.next_deadline() == 5
    bad.send_raw(raw(job()))
    assert not world.engine.queue.jobs
    bad.close()
    assert world.engine.next_deadline() is None


def test_ending_worker_is_not_woken() -> None:
    world = World()
    client, bad = world.connect(), world.worker(b"f").stop_reading()
    bad.send(PreSleep(), EchoReq(b""))
    bad.send_raw(b"\0XXX")
    client.submit(job())
    assert client.ask(b"status") == b"f\t1\t0\t0\n.\n"
    bad.read_on()
    assert bad.take() == [EchoRes(b"")]


def test_too_large_packet_disconnects_peer() -> None:
    world = World(max_packet_size=1000)
    client = world.connect()
    client.send(EchoReq(b"x" * 1000))
    assert client.take() == [EchoRes(b"x" * 1000)]
    client.send_raw(raw(EchoReq(b"x" * 1001))[:12])
    assert client.closed
    assert world.engine.queue.memory == 0


@pytest.mark.parametrize("reducer", [None, b"reducer"])
def test_job_that_workers_would_receive_in_too_large_a_packet_is_refused(
    reducer: bytes | None,
) -> None:
    world = World(max_packet_size=1000)
    client = world.connect()

    def submit(size: int) -> list[Any]:
        if reducer is None:
            client.send(SubmitJob(b"f", b"u", bytes(size)))
        else:
            client.send(SubmitReduceJob(b"f", b"u", reducer, b"", bytes(size)))
        return client.take()

    room = 1000 - 66 - len(b"fu") - (len(reducer) + 1 if reducer else 0)
    (refusal,) = submit(room + 1)
    text = b"1001 bytes with the handle; max_packet_size is 1000"
    assert refusal == Error(b"ARGUMENT_TOO_LARGE", text)
    assert client.ask(b"status") == b".\n"
    (created,) = submit(room)
    assert isinstance(created, JobCreated)


def test_unfinished_packets_beyond_max_memory_disconnect_largest() -> None:
    """A packet can exceed the memory limit together with unfinished packets of other peers."""
    world = World(max_memory=1_000_000)
    peers = [world.connect() for _ in range(3)]
    head = raw(EchoReq(b"x" * 900_000))
    peers[0].send_raw(head[:400_000])
    peers[1].send_raw(head[:300_000])
    peers[2].send_raw(head[:200_000])
    assert not any(peer.closed for peer in peers)
    assert world.engine.queue.memory == 900_000
    peers[2].send_raw(head[200_000:310_000])
    assert [peer.closed for peer in peers] == [True, False, False]
    assert world.engine.queue.memory == 610_000


def test_listeners_count_towards_max_memory() -> None:
    world = World(max_memory=16_000)
    first = world.connect()
    first.submit(job(b"x" * 1_000, b"u"))
    clients = [world.connect() for _ in range(40)]
    answers = []
    for client in clients:
        client.send(job(unique=b"u"))
        answers += client.take()
    assert isinstance(answers[0], JobCreated)
    refused = answers.index(NO_MEMORY)
    assert set(map(str, answers[refused:])) == {str(NO_MEMORY)}
    # A second submit of the same client, or a background submit, uses no more memory.
    clients[0].send(job(unique=b"u"))
    first.send(job_bg(unique=b"u"))
    assert clients[0].take() == first.take() == answers[:1]
    # A client that disconnects makes room.
    clients[0].close()
    clients[-1].send(job(unique=b"u"))
    assert clients[-1].take() == answers[:1]


def test_small_unfinished_packets_disconnect_no_peer() -> None:
    world = World(max_memory=100_000)
    peers = [world.connect() for _ in range(10)]
    for peer in peers:
        peer.send_raw(raw(EchoReq(b"x" * 900_000))[:20_000])
    assert world.engine.queue.memory == 200_000
    assert not any(peer.closed for peer in peers)


def test_unread_output_beyond_limit_disconnects_peer() -> None:
    world = World(max_unread=10_000)
    client = world.connect(reads=False)
    echo = raw(EchoReq(b"x" * 988))
    for _ in range(12):
        client.send_raw(echo)
    assert not client.closed
    assert world.engine.queue.memory == 12_000
    client.send_raw(echo)
    assert client.closed
    assert world.engine.queue.memory == 0


def test_bytes_in_transport_count_as_unread() -> None:
    world = World(max_unread=1000)
    client = world.connect(reads=False)
    client.send(EchoReq(b"x" * 5000))
    first = world.engine.data_to_send(client.link, world.now)
    assert len(first) == world.engine.queue.memory == 5012
    # The transport still has bytes of the first packet, so the next one counts as unread.
    client.send(EchoReq(b"y" * 5000))
    assert not client.closed
    client.send(EchoReq(b"z"))
    assert client.closed
    assert world.engine.queue.memory == 0


def test_small_write_clears_has_more() -> None:
    world = World()
    client = world.connect(reads=False)
    client.send(EchoReq(b"x" * 4084))
    assert len(world.engine.data_to_send(client.link, world.now)) == 4096
    assert not client.link.has_more
    assert world.engine.queue.memory == 0
    client.send(EchoReq(b"x" * 4085))
    assert len(world.engine.data_to_send(client.link, world.now)) == 4097
    assert client.link.has_more
    assert world.engine.queue.memory == 4097
    # After the last bytes, the link is closed.
    client.send(EchoReq(b"x"))
    world.call(world.engine.receive_eof, client.link, world.now)
    assert len(world.engine.data_to_send(client.link, world.now)) == 13
    assert client.link.has_more
    assert not client.closed
    client.read_on()
    assert client.closed
    assert world.engine.queue.memory == 0


def test_has_more_is_set_after_chunk() -> None:
    world = World()
    client = world.connect(reads=False)
    client.send(EchoReq(b"x"), EchoReq(b"y" * 262_144))
    assert len(world.engine.data_to_send(client.link, world.now)) == 13
    assert client.link.has_more
    # A packet larger than a chunk is sent in pieces.
    assert len(world.engine.data_to_send(client.link, world.now)) == 262_144
    assert client.link.has_more
    assert len(world.engine.data_to_send(client.link, world.now)) == 12
    assert world.engine.data_to_send(client.link, world.now) == b""
    assert world.engine.queue.memory == 0


def test_unread_output_of_one_write_stops_processing() -> None:
    world = World(max_unread=10_000)
    client = world.connect()
    client.send_raw(raw(EchoReq(b"x" * 988)) * 13 + raw(job_bg()))
    assert client.closed
    # The server has not processed the packets after the excess.
    assert not world.engine.queue.jobs


def test_single_packet_can_exceed_max_unread() -> None:
    world = World(max_unread=1000)
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(job())
    assigned(worker)
    sent = [WorkData(handle, b"x" * 100_000), WorkData(handle, b"y"), WorkComplete(handle, b"z")]
    worker.send(*sent)
    assert client.take() == sent


def test_peer_that_resumes_reading_stays_connected() -> None:
    world = World(max_unread=10_000)
    client = world.connect()
    for _ in range(5):
        client.stop_reading()
        client.send(EchoReq(b"x" * 9000))
        client.send(EchoReq(b"x" * 9000))
        client.read_on()
    assert len(client.take()) == 10


def test_broadcast_disconnects_only_slow_listeners() -> None:
    world = World(max_unread=1000)
    clients = [world.connect() for _ in range(4)]
    worker = world.worker(b"f")
    for client in clients:
        client.submit(job(unique=b"u"))
    handle = assigned(worker)
    for client in clients[1:3]:
        client.stop_reading()
    sent = [WorkData(handle, b"x" * 600) for _ in range(4)]
    for packet in sent:
        worker.send(packet)
    worker.send(WorkComplete(handle, b"out"))
    for client in (clients[0], clients[3]):
        assert client.take() == [*sent, WorkComplete(handle, b"out")]
    assert [client.closed for client in clients] == [False, True, True, False]
    assert not worker.closed


def test_disconnect_causes_further_disconnect() -> None:
    """Disconnecting a worker can exceed the limit of a client that waits for the worker's job."""
    world = World(max_unread=1000, job_retries=0)
    worker, first, second = world.worker(b"f"), world.worker(b"g"), world.connect()
    a = first.submit(job())
    b = second.submit(SubmitJob(b"g", b"", b""))
    assert (assigned(worker), assigned(first)) == (a, b)
    for peer in (first, second):
        peer.stop_reading()
        peer.send(EchoReq(b"1"), EchoReq(b"x" * 2000))
    # This packet exceeds the limit of `first`, and the WORK_FAIL for its job that of `second`.
    worker.send(WorkData(a, b"y"))
    assert first.closed
    assert second.closed
    assert list(world.engine.queue.jobs) == [a]


def test_endless_registrations_disconnect_worker() -> None:
    world = World(max_memory=2_000_000)
    client, good, bad = world.connect(), world.worker(b"f"), world.connect()
    number = 0
    while not bad.closed:
        bad.send_raw(raw(*[CanDo(b"%d" % n) for n in range(number, number + 100)]))
        number += 100
        assert number < 10_000
    assert not good.closed
    assert world.engine.queue.memory <= 2_000_000
    # The remaining functions do not prevent new jobs.
    client.submit(job())
    assigned(good)


def test_registrations_with_long_names_disconnect_worker() -> None:
    world = World(max_memory=2_000_000)
    client, bad = world.connect(), world.connect()
    for number in range(40):
        bad.send_raw(raw(CanDo(b"%d" % number + b"x" * 60_000)))
    assert bad.closed
    assert world.engine.queue.memory <= 2_000_000
    client.submit(job())


def test_repeated_registration_uses_no_memory() -> None:
    world = World()
    worker = world.worker(b"f")
    memory = world.engine.queue.memory
    worker.send(*[CanDo(b"f")] * 10, CanDoTimeout(b"f", b"1"))
    assert world.engine.queue.memory == memory
    assert worker.ask(b"status") == b"f\t0\t0\t1\n.\n"
    worker.send(CantDo(b"f"))
    assert worker.ask(b"status") == b"f\t0\t0\t0\n.\n"


def test_full_memory_refuses_jobs_until_workers_finish() -> None:
    world = World(max_memory=1_000_000)
    client, worker = world.connect(), world.connect()
    handles: list[bytes] = []
    while True:
        client.send(job(b"x" * 200_000, b"%d" % len(handles)))
        answer = client.one()
        if not isinstance(answer, JobCreated):
            break
        handles.append(answer.handle)
    assert answer == NO_MEMORY
    assert len(handles) == 3
    # A submit that joins a job of the same client uses no memory.
    assert client.submit(job(b"x" * 200_000, b"0")) == handles[0]
    assert world.engine.queue.memory <= 750_000
    # Workers can still register and run the jobs.
    worker.send(CanDo(b"f"))
    for number, handle in enumerate(handles):
        assert assigned(worker) == handle
        worker.send(WorkComplete(handle, b"y" * 200_000))
        assert client.take() == [WorkComplete(handle, b"y" * 200_000)] * (1 if number else 2)
    client.submit(job(b"x" * 200_000))


def test_full_memory_of_small_jobs_can_be_assigned() -> None:
    world = World(max_memory=1_000_000)
    client = world.connect()
    client.send(*[job_bg()] * 1000)
    answers = Counter(type(event) for event in client.take())
    assert answers[JobCreated] > 600
    assert answers[Error] > 200
    worker = world.worker(b"f", b"g")
    worker.send(*[GrabJob()] * 1000)
    assert Counter(type(event) for event in worker.take())[JobAssign] == answers[JobCreated]
    assert not worker.closed


def test_job_larger_than_reserve_is_refused() -> None:
    world = World(max_memory=1_000_000)
    client = world.connect()
    client.send(job(b"x" * 260_000))
    assert client.take() == [NO_MEMORY]
    assert not world.engine.queue.functions


@pytest.mark.unmeasured
def test_idle_functions_are_dropped_for_jobs() -> None:
    world = World(max_memory=200_000)
    client, worker = world.connect(), world.connect()
    for number in range(200):
        function = b"%d" % number
        client.submit(SubmitJob(function, b"", b"x"))
        worker.send(CanDo(function))
        handle = assigned(worker)
        worker.send(WorkComplete(handle, b""), CantDo(function))
        assert client.take() == [WorkComplete(handle, b"")]
    assert len(world.engine.queue.functions) < 100


def test_idle_functions_are_dropped_before_links() -> None:
    world = World(max_memory=1_000_000)
    worker, client = world.connect(), world.connect()
    for number in range(8):
        worker.send_raw(raw(CanDo(b"%d" % number + b"x" * 50_000)))
    worker.send(ResetAbilities())
    client.send_raw(raw(EchoReq(b"x" * 900_000))[:700_000])
    assert not client.closed
    assert world.engine.queue.memory == 700_000


def test_many_functions_drop_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobqueue, "MANY_FUNCTIONS", 10)
    world = World()
    peer = world.connect()
    for number in range(8):
        peer.ask(b"create function idle%d" % number)
    peer.ask(b"maxqueue idle1 1")
    peer.submit(SubmitJob(b"has a job", b"", b""))
    peer.send(CanDo(b"has a worker"))
    assert len(world.engine.queue.functions) == 10
    peer.ask(b"create function new")
    assert list(world.engine.queue.functions) == [b"idle1", b"has a job", b"has a worker", b"new"]


def test_many_functions_keep_used_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobqueue, "MANY_FUNCTIONS", 10)
    world = World()
    names = [b"%d" % number for number in range(100)]
    peer = world.worker(*names)
    assert list(world.engine.queue.functions) == names
    peer.send(ResetAbilities())
    assert list(world.engine.queue.functions) == names
    world.worker(*[b"new%d" % number for number in range(100)])
    assert len(world.engine.queue.functions) < 150


def test_create_function_is_refused_when_memory_is_full() -> None:
    world = World(max_memory=200_000)
    admin = world.connect()
    number = 0
    while (answer := admin.ask(b"create function f%d" % number)) == b"OK\r\n":
        admin.ask(b"maxqueue f%d 1" % number)
        number += 1
    assert answer == b"ERR CREATE_FUNCTION f%d\r\n" % number
    assert world.engine.queue.memory < 152_000
    assert admin.ask(b"drop function f0") == b"OK\r\n"
    assert admin.ask(b"create function f%d" % number) == b"OK\r\n"


def test_unread_text_replies_disconnect_admin() -> None:
    world = World(max_unread=100_000)
    admin, other = world.connect(), world.connect()
    for number in range(100):
        admin.ask(b"create function " + b"%d" % number + b"x" * 100)
    admin.stop_reading()
    admin.send_raw(b"status\n" * 10_000)
    assert admin.closed
    assert len(admin.inbox) == 0
    assert world.engine.queue.memory < 500_000
    assert other.ask(b"version") == b"OK \n"


def test_many_text_commands_get_replies() -> None:
    world = World()
    admin = world.connect()
    admin.send_raw(b"foo\n" * 10_000)
    assert admin.take_raw().count(b"\r\n") == 10_000


def test_packet_inside_data_is_not_parsed() -> None:
    """Bytes in a packet's data can look like another packet."""
    client = World().connect()
    inner = raw(EchoReq(b"inner"))
    client.send(EchoReq(inner + MAGIC_REQUEST))
    assert client.take() == [EchoRes(inner + MAGIC_REQUEST)]


def test_closed_links_release_memory() -> None:
    world = World()
    for _ in range(5):
        peer = world.worker(b"f")
        peer.submit(job())
        assigned(peer)
        peer.submit(job())
        peer.send_raw(raw(job())[:-1])
        peer.close()
    assert not world.engine.queue.jobs
    assert world.engine.queue.memory == 2048 + 1
    assert all(isinstance(peer.link, ServerLink) and not peer.link.held for peer in world.peers)
