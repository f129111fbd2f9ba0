"""Slow links in simulated time: the engines keep links with progress and close stalled ones.

`SlowLink` simulates a driver and a network. The system's send buffer drains at a constant rate,
and the server answers each packet on arrival.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gearman_proto.address import ServerAddress
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED
from gearman_proto.engines.base import Connect
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.delivery import MAX_HIDDEN, RATE, Delivery
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.worker.engine import WorkerEngine
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Role,
    StatusRes,
    SubmitJob,
    WorkComplete,
    WorkData,
)

if TYPE_CHECKING:
    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.jobs.request import GearmanJobRequest

MEGABYTE = 1_000_000
STEP = 0.25

measuring = pytest.mark.parametrize("measures", [False, True], ids=["blind", "measures"])


def slow_links(test: Any) -> Any:
    """Run `test` with sizes of uploads, rates, and buffers of the system."""
    test = given(
        size=st.integers(0, 8 * MEGABYTE),
        rate=st.integers(RATE, 100 * RATE),
        buffer=st.integers(1, 8 * MEGABYTE),
    )(test)
    for buffer in (1, 4 * MEGABYTE):
        test = example(size=2 * MEGABYTE, rate=RATE, buffer=buffer)(test)
    return test


class SlowLink:
    """One link of a client or worker engine, and the server at its other end.

    Args:
        engine: The engine.
        measures: If True, the driver reports unacknowledged bytes.
        rate: Bytes that arrive per second.
        buffer: Bytes that the system accepts before the socket blocks.
        jobs: Number of jobs that the server has for a worker.
    """

    def __init__(
        self,
        engine: Any,
        *,
        measures: bool = True,
        rate: float = RATE,
        buffer: int = 200_000,
        jobs: int = 0,
    ) -> None:
        self.engine, self.measures, self.rate, self.buffer = engine, measures, rate, buffer
        self.now = 0.0
        #: The socket accepts data if the buffer holds fewer bytes than this.
        self.low = buffer
        self.jobs = [b"H:%d" % number for number in range(jobs)]
        #: Submits and WORK_* packets received by the server.
        self.received: list[Event] = []
        self.connection = Connection(Role.SERVER)
        self._in_flight = bytearray()
        self._credit = 0.0
        action = engine.next_action()
        assert isinstance(action, Connect)
        self.link: Any = action.link
        engine.connected(self.link, self.now)

    def run(self, seconds: float) -> float:
        """Advance the clock by `seconds`, or until the link is lost. Return the elapsed time."""
        start = self.now
        while True:
            # The system accepts a whole chunk if the buffer has any room.
            room = self.buffer if len(self._in_flight) < self.low else 0
            while len(self._in_flight) < room:
                data = self.engine.data_to_send(self.link, self.now)
                if not data:
                    break
                self._in_flight += data
            if not self.link.alive or self.now >= start + seconds:
                return self.now - start
            self.now += STEP
            self._transfer()
            deadline = self.engine.next_deadline()
            if deadline is not None and deadline <= self.now:
                if self.measures:
                    for link in self.engine.links_to_measure(self.now):
                        self.engine.measured(link, len(self._in_flight))
                self.engine.handle_timeout(self.now)

    def send(self, event: Event) -> None:
        self.engine.receive_data(self.link, self.connection.send(event), self.now)

    def hang(self) -> None:
        """Stop the server. Its system still acknowledges all bytes."""
        self.connection.receive_data = lambda data: None  # type: ignore[method-assign]

    def _transfer(self) -> None:
        self._credit += self.rate * STEP
        size = min(int(self._credit), len(self._in_flight))
        self._credit -= size or self._credit
        self.connection.receive_data(bytes(self._in_flight[:size]))
        del self._in_flight[:size]
        while (event := self.connection.next_event()) is not NEED_DATA:
            if isinstance(event, EchoReq):
                self.send(EchoRes(event.data))
            elif isinstance(event, GetStatus):
                self.send(StatusRes(event.handle, b"1", b"1", b"0", b"0"))
            elif isinstance(event, GrabJobUniq):
                job = JobAssignUniq(self.jobs.pop(), b"f", b"", b"") if self.jobs else NoJob()
                self.send(job)
            elif isinstance(event, SubmitJob):
                self.received.append(event)
                self.send(JobCreated(b"H:%d" % len(self.received)))
            elif isinstance(event, (WorkComplete, WorkData)):
                self.received.append(event)


def upload(size: int, **options: Any) -> tuple[SlowLink, GearmanJobRequest]:
    """Submit a job of `size` bytes without retries."""
    engine = ClientEngine(
        [ServerAddress("s")],
        rng=random.Random(1),
        wall_clock=lambda: 0.0,
        heartbeat=3.0,
        exceptions=False,
    )
    requests = make_requests([{"task": "f", "data": bytes(size)}])
    prepare(requests, NoopEncoder)
    engine.submit(0.0, lambda: None, requests)
    return SlowLink(engine, **options), requests[0]


def work(jobs: int, **options: Any) -> tuple[SlowLink, list[WorkerJob]]:
    """Start a worker and take all of the server's jobs."""
    engine = WorkerEngine([ServerAddress("s")], rng=random.Random(1), max_jobs=jobs)
    engine.register(0.0, b"f", None)
    engine.work(0.0, lambda: None)
    slow = SlowLink(engine, jobs=jobs, **options)
    slow.run(1.0)
    taken = [engine.next_job(slow.now) for _ in range(jobs)]
    return slow, [job for job in taken if job is not None]


def finish(slow: SlowLink, job: WorkerJob, size: int) -> None:
    """Send a result of `size` bytes and release the job's slot."""
    slow.engine.send(slow.now, lambda: None, job, WorkComplete(job.wire_handle, bytes(size)))
    slow.engine.job_done(slow.now, job)


# Healthy links.


@measuring
@slow_links
def test_upload_on_a_slow_link_arrives(measures: bool, size: int, rate: int, buffer: int) -> None:
    slow, request = upload(size, measures=measures, rate=rate, buffer=buffer)
    slow.run(size / rate + 10.0)
    assert slow.link.alive
    assert request.state == JOB_CREATED
    assert len(slow.received) == 1


@measuring
@pytest.mark.parametrize("stops", [False, True])
@slow_links
def test_result_on_a_slow_link_arrives(
    measures: bool, stops: bool, size: int, rate: int, buffer: int
) -> None:
    slow, (job,) = work(1, measures=measures, rate=rate, buffer=buffer)
    finish(slow, job, size)
    if stops:
        slow.engine.stop(slow.now)
    assert slow.run(size / rate + 10.0) < size / rate + (3.0 if stops else 11.0)
    assert slow.link.alive is not stops
    assert [type(event) for event in slow.received] == [WorkComplete]


@measuring
@pytest.mark.parametrize("buffer", [1, 4 * MEGABYTE])
@pytest.mark.parametrize("stops", [False, True])
def test_update_that_takes_long_costs_no_other_job(
    measures: bool, buffer: int, stops: bool
) -> None:
    slow, (first, second) = work(2, measures=measures, buffer=buffer)
    update = WorkData(first.wire_handle, bytes(2 * MEGABYTE))
    slow.engine.send(slow.now, lambda: None, first, update)
    finish(slow, second, 0)
    if stops:
        slow.engine.stop(slow.now)
    slow.run(110.0)
    finish(slow, first, 0)
    slow.run(10.0)
    assert [type(event) for event in slow.received] == [WorkData, WorkComplete, WorkComplete]


@measuring
def test_update_arrives_through_a_long_blocked_socket(measures: bool) -> None:
    slow, (job,) = work(1, measures=measures, buffer=4 * MEGABYTE)
    slow.low = 1
    for _ in range(3):
        update = WorkData(job.wire_handle, bytes(2 * MEGABYTE))
        wait = slow.engine.send(slow.now, lambda: None, job, update)
    assert not wait.done
    slow.run(320.0)
    assert wait.done
    assert len(slow.received) == 3


@pytest.mark.parametrize(("measures", "seconds"), [(True, 180.0), (False, 540.0)])
def test_worker_with_blocked_sender_disconnects_a_stalled_server(
    measures: bool, seconds: float
) -> None:
    slow, (job,) = work(1, measures=measures, buffer=9 * MEGABYTE)
    slow.low = 1
    slow.rate = 0.0
    update = WorkData(job.wire_handle, bytes(11 * MEGABYTE))
    slow.engine.send(slow.now, lambda: None, job, update)
    assert slow.run(1000.0) <= seconds
    assert "the server does not read" in slow.engine.notices[0]


def test_slow_answer_frees_the_slot_after_a_second() -> None:
    slow, (job,) = work(1)
    finish(slow, job, MEGABYTE)
    assert slow.engine._grabs == 1
    slow.run(1.5)
    assert slow.engine._grabs == 0


def test_answer_timeout_starts_when_the_question_is_written() -> None:
    """The driver can't measure and the tunnel is full, so only the socket shows progress."""
    slow, _ = upload(MEGABYTE, measures=False, buffer=1)
    slow.run(MEGABYTE / RATE)
    assert slow.link.alive
    slow.rate = 0.0
    slow.run(100.0)
    assert not slow.link.alive


# Stalled links.


@pytest.mark.parametrize(
    ("measures", "seconds"),
    [
        # The peer's system accepts no data, so the limit is twice the heartbeat.
        (True, 6.0),
        # A tunnel might hold the bytes, so the limit includes their transfer time.
        (False, 6.0 + MEGABYTE / RATE),
    ],
)
def test_upload_that_stands_still_is_given_up(measures: bool, seconds: float) -> None:
    slow, request = upload(MEGABYTE, measures=measures, rate=0, buffer=4 * MEGABYTE)
    assert seconds <= slow.run(1000.0) <= seconds + 1.0
    assert request.connection_attempts == 1


@measuring
@pytest.mark.parametrize(
    ("size", "shortest", "longest"),
    [
        (MEGABYTE, 6.0 + MEGABYTE / RATE, 6.0 + MEGABYTE / RATE + 4.0),
        # A tunnel might hide many bytes, but not all of these.
        (30 * MEGABYTE, 0.0, MAX_HIDDEN / RATE + 11.0),
    ],
)
def test_server_that_hangs_with_everything_is_given_up(
    measures: bool, size: int, shortest: float, longest: float
) -> None:
    slow, _ = upload(size, measures=measures, rate=1e9, buffer=40 * MEGABYTE)
    slow.hang()
    assert shortest <= slow.run(1000.0) <= longest


@measuring
def test_server_that_hangs_after_its_answer_gets_no_upload_time(measures: bool) -> None:
    slow, request = upload(MEGABYTE, measures=measures, rate=5 * RATE, buffer=4 * MEGABYTE)
    slow.run(11.0)
    assert request.state == JOB_CREATED
    slow.hang()
    assert slow.run(1000.0) <= 3 * 3.0


@measuring
@pytest.mark.parametrize("stops", [False, True])
def test_worker_gives_up_a_server_that_takes_nothing(measures: bool, stops: bool) -> None:
    slow, (job,) = work(1, measures=measures, buffer=1)
    finish(slow, job, MEGABYTE)
    if stops:
        slow.engine.stop(slow.now)
    slow.rate = 0.0
    assert 29.0 <= slow.run(1000.0) <= 32.0


# Measured deliveries.


def test_only_bytes_before_the_question_are_a_sign_of_life() -> None:
    delivery = Delivery()
    delivery.handed = 1000
    delivery.measured(600)
    delivery.handed = 2000
    delivery.ask(0, 10.0)
    delivery.handed += 50
    # Bytes 400 to 1200 have moved since the last figure.
    delivery.measured(850)
    assert delivery.deadline(20.0, 30.0, 0) == 50.0
    # An unchanged figure is no sign of life.
    assert delivery.deadline(30.0, 30.0, 0) == 50.0
    delivery.measured(50)
    assert delivery.deadline(40.0, 30.0, 0) == 70.0
    delivery.measured(0)
    assert delivery.deadline(50.0, 30.0, 0) == 70.0


# Incomplete packets.


@pytest.mark.parametrize("bytes_per_second", [0.5, 20.0])
def test_packet_that_hardly_grows_is_given_up(bytes_per_second: float) -> None:
    """A corrupt packet size makes all later bytes part of one packet."""
    slow, request = upload(10)
    slow.run(1.0)
    assert request.state == JOB_CREATED
    corrupted = bytearray(slow.connection.send(WorkComplete(b"H:1", b"")))
    corrupted[8:12] = (1_000_000).to_bytes(4)
    slow.engine.receive_data(slow.link, bytes(corrupted), slow.now)
    seconds = 0
    while slow.link.alive and seconds < 100:
        seconds += 1
        slow.run(1.0)
        for _ in range(int(bytes_per_second * seconds) - int(bytes_per_second * (seconds - 1))):
            slow.engine.receive_data(slow.link, b"x", slow.now)
    assert 6 <= seconds <= 15
    assert "bytes of a packet have arrived" in str(request.error)


def test_large_result_that_arrives_slowly_is_awaited() -> None:
    slow, request = upload(10)
    slow.run(1.0)
    packet = slow.connection.send(WorkComplete(b"H:1", bytes(2 * MEGABYTE)))
    for at in range(0, len(packet), RATE):
        slow.engine.receive_data(slow.link, packet[at : at + RATE], slow.now)
        slow.run(1.0)
    assert request.state == JOB_COMPLETE


# The job server.


@measuring
@pytest.mark.parametrize("rate", [0, RATE])
def test_server_sends_its_last_bytes_while_they_move(measures: bool, rate: int) -> None:
    engine = ServerEngine(rng=random.Random(1), wall_clock=lambda: 0.0)
    link = engine.accept("peer", 1, 0.0)
    size, now, in_flight = MEGABYTE, 0.0, 0
    engine.receive_data(link, Connection(Role.CLIENT).send(EchoReq(bytes(size))), now)
    engine.receive_eof(link, now)
    while link.alive and now < 100.0:
        if not in_flight:
            in_flight = len(engine.data_to_send(link, now))
        now += STEP
        in_flight = max(in_flight - int(rate * STEP), 0)
        if measures:
            for late in engine.links_to_measure(now):
                engine.measured(late, in_flight)
        engine.handle_timeout(now)
    if rate:
        assert size / rate <= now <= size / rate + 5.0
    else:
        assert now <= 5.5 + 256 * 1024 / RATE
