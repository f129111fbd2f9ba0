"""The job server's engine: what neither the conformance cases nor the recordings prove.

`test_conformance` runs the cases of the conformance suite against the engine, and
`test_server_vectors` replays the recorded exchanges with gearmand.
"""

from __future__ import annotations

import itertools
import random
import re
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import MAX_EPOCH, MAX_HANDLE_SIZE
from gearman_proto.engines.server import jobqueue
from gearman_proto.errors import LocalProtocolError
from gearman_proto.testing import pack
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJobAll,
    JobAssign,
    JobAssignAll,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitReduceJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
)

from .harness import EPOCH, Bell
from .server_harness import Peer, World, raw

if TYPE_CHECKING:
    from gearman_proto.engines.waits import Wait

FULL = Error(b"QUEUE_ERROR", b"Job queue is full")
NO_MEMORY = Error(b"QUEUE_ERROR", b"The memory of the server is full")
TOO_LARGE = Error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
OUT_OF_RANGE = Error(b"ARGUMENT_TOO_LARGE", b"Epoch out of range")
NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")


def start(*, limit: bytes = b"", **options: Any) -> tuple[World, Peer, Peer]:
    """Return a server, a client, and a worker of f, perhaps with a time limit."""
    world = World(**options)
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", limit) if limit else CanDo(b"f"))
    return world, client, worker


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


def given(client: Peer, worker: Peer) -> bytes:
    """Submit a job that the worker gets, and return its handle."""
    handle = client.submit(job())
    assert assigned(worker) == handle
    return handle


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


# Handles and uniques.


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


def test_handles_keep_their_length_after_the_largest_number() -> None:
    """Otherwise one could begin with another, and libgearman 2.0.0's client would confuse them."""

    class Last(random.Random):
        def randrange(self, *args: Any) -> int:
            return 10**12 - 3

    handles = list(itertools.islice(jobqueue.make_handles("h", Last()), 1000))
    assert len(set(handles)) == 1000
    assert {len(handle) for handle in handles} == {len(b"H:h:") + 12}


# Lost clients and workers.


@pytest.mark.parametrize("retries", [0, 3, None])
def test_retries_are_limited(retries: int | None) -> None:
    world = World(job_retries=retries)
    client = world.connect()
    handle = client.submit(job(unique=b"u"))
    background = client.submit(job_bg(unique=b"v"))
    for _ in range(20 if retries is None else retries + 1):
        assert client.take() == []
        worker = world.worker(b"f")
        assert {assigned(worker), assigned(worker)} == {handle, background}
        worker.close()
    if retries is None:
        lines = b"%b\t20\t0\t0\n%b\t20\t0\t1\n.\n" % (handle, background)
        assert client.ask(b"show jobs") == lines
    else:
        assert client.take() == [WorkFail(handle)]
        assert not world.engine.queue.jobs
        assert client.submit(job(unique=b"u")) != handle


# Time limits.


def test_time_limit() -> None:
    world = World(job_retries=1)
    client, slow, other = world.connect(), world.connect(), world.worker(b"f")
    slow.send(CanDoTimeout(b"f", b"1500"))
    handle = client.submit(job())
    world.now = 7.0
    assigned(slow)
    other.send(PreSleep())
    assert world.engine.next_deadline() == 8.5
    world.sleep(1.4)
    assert other.take() == []
    world.sleep(0.1)
    assert other.take() == [Noop()]
    # The server ignores further packets of the slow worker about the job.
    slow.send(WorkData(handle, b""), WorkException(handle, b""), WorkComplete(handle, b"late"))
    assert slow.take() == []
    # It can assign the job to the slow worker again, and then accepts its packets.
    assert assigned(slow) == handle
    slow.send(WorkData(handle, b"again"))
    assert client.take() == [WorkData(handle, b"again")]
    world.sleep(1.5)
    assert client.take() == [WorkFail(handle)]
    assert slow.grab() == NoJob()


def test_time_limit_is_of_each_job() -> None:
    world = World()
    client, worker = world.connect(), world.connect()
    worker.send(CanDoTimeout(b"f", b"1000"), CanDoTimeout(b"g", b"3000"), CanDo(b"h"))
    handles = [client.submit(SubmitJob(name, b"", b"")) for name in (b"f", b"g", b"h")]
    assert [assigned(worker) for _ in handles] == handles
    world.sleep(0.5)
    second = client.submit(job())
    assert assigned(worker) == second
    worker.send(WorkComplete(handles[0], b""), PreSleep())
    client.take()
    for seconds, due in ((0.9, []), (0.1, [second]), (1.4, []), (0.1, handles[1:2]), (1e6, [])):
        world.sleep(seconds)
        running = [each for each in (second, *handles[1:]) if status(client, each) == RUNNING]
        assert worker.take() == [Noop()] * bool(due)
        for handle in due:
            assert handle not in running
            assert assigned(worker) == handle
            worker.send(WorkComplete(handle, b""), PreSleep())
            client.take()
    assert running == handles[2:]


@pytest.mark.parametrize("timeout", [b"0", b"-5", b"", b"abc"])
def test_no_time_limit(timeout: bytes) -> None:
    world = World()
    client, worker = world.connect(), world.worker()
    worker.send_raw(raw(CanDoTimeout(b"f", b"1000"), CanDoTimeout(b"f", timeout)))
    given(client, worker)
    assert world.engine.next_deadline() is None


def test_latest_former_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.engines.server.engine._FORMER_JOBS", 3)
    world, client, worker = start(limit=b"1000", job_retries=0)
    handles = [client.submit(job_bg()) for _ in range(4)]
    for handle in handles:
        assert assigned(worker) == handle
    world.sleep(1)
    worker.send(*[WorkComplete(handle, b"") for handle in handles])
    assert worker.take() == [NOT_FOUND]


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
    # Submits that join the job do not change its epoch.
    assert client.submit(job(unique=b"u")) == client.submit(at(5, unique=b"u")) == handle
    world.sleep(9.75)
    assert worker.take() == []
    assert world.engine.next_deadline() == 10
    world.sleep(0.25)
    assert worker.take() == [Noop()]
    assert awake.take() == []
    assert worker.grab() == JobAssign(handle, b"f", b"x")
    assert world.engine.next_deadline() is None


@pytest.mark.parametrize("epoch", [b"%d" % (MAX_EPOCH + 1), b"1" * 20, b"-" + b"1" * 20])
def test_epoch_out_of_range_is_refused(epoch: bytes) -> None:
    world = World()
    client = world.connect()
    client.send_raw(raw(SubmitJobEpoch(b"f", b"u", epoch, b"x")))
    assert client.take_raw() == pack(Error.packet, (OUT_OF_RANGE.code, OUT_OF_RANGE.text), b"\0RES")
    assert not world.engine.queue.jobs
    client.submit(SubmitJobEpoch(b"f", b"", b"%d" % MAX_EPOCH, b"x"))
    world.wait(3600)
    assert client.ask(b"status") == b"f\t1\t0\t0\n.\n"


@pytest.mark.parametrize(("step", "before", "after"), [(86400, 1000, 60), (-3600, 86400 + 3599, 1)])
def test_delayed_job_follows_the_wall_clock(step: int, before: int, after: int) -> None:
    world, client, worker = start()
    client.submit(at(86400))
    worker.send(PreSleep())
    if step < 0:
        world.ahead += step
    world.wait(before)
    assert worker.take() == []
    if step > 0:
        world.ahead += step
    world.wait(after)
    assert worker.take() == [Noop()]


@pytest.mark.parametrize("seconds", [-1, 0, 10])
def test_due_job_stays_due_when_wall_clock_is_set_back(seconds: int) -> None:
    world, client, worker = start()
    handle = client.submit(at(seconds))
    assert (world.engine.next_deadline() is None) == (seconds <= 0)
    world.wait(10)
    assert assigned(worker) == handle
    world.ahead -= 3600
    worker.close()
    assert world.worker(b"f").grab() == JobAssign(handle, b"f", b"x")


# Status, and other requests.


def test_text_after_nul_is_no_part_of_a_name() -> None:
    world = World()
    client = world.connect()
    handle = client.submit(job(unique=b"u"))
    client.send_raw(raw(GetStatus(handle + b"\0x"), GetStatusUnique(b"u\0x")))
    answers = [StatusRes(handle, *KNOWN), StatusResUnique(b"u", *KNOWN, b"1")]
    assert client.take_raw() == b"".join(
        pack(event.packet, type(event).arguments(event), b"\0RES") for event in answers
    )


@pytest.mark.parametrize(
    ("numerator", "denominator", "stored"),
    [
        (b"", b"", (b"0", b"0")),
        (b"007", b" 8x", (b"7", b"8")),
        (b"9" * 500, b"4294967296", (b"9" * 19, b"4294967296")),
    ],
)
def test_status_numbers(numerator: bytes, denominator: bytes, stored: tuple[bytes, bytes]) -> None:
    _, client, worker = start()
    handle = given(client, worker)
    # The server passes the numbers on unchanged, but cuts them at a NUL, which no client expects.
    worker.send_raw(raw(WorkStatus(handle, numerator, denominator + b"\0x")))
    assert client.take() == [WorkStatus(handle, numerator, denominator)]
    assert status(client, handle) == (b"1", b"1", *stored)


def test_reducer_too_large() -> None:
    _, client, worker = start()
    client.send_raw(raw(SubmitReduceJob(b"f", b"u", b"r" * 65, b"", b"x")))
    assert client.take_raw() == pack(Error.packet, (TOO_LARGE.code, TOO_LARGE.text), b"\0RES")
    handle = client.submit(SubmitReduceJob(b"f", b"u", b"r" * 64, b"", b"x"))
    assert worker.grab(GrabJobAll()) == JobAssignAll(handle, b"f", b"u", b"r" * 64, b"x")


# Queue limits.


def test_limits_of_each_priority() -> None:
    _, client, worker = start(max_queue_size=1)
    # A running job counts.
    given(client, worker)
    client.send(job())
    assert client.take() == [FULL]
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


def test_lists() -> None:
    world = World(pid=345)
    client, worker = world.connect("::1"), world.worker(b"f", b"two words", b"g", b"f")
    assert repr(client.link) == "<ServerLink 1 from ::1>"
    assert client.ask(b"getpid") == b"OK 345\n"
    assert client.ask(b"verbose") == b"OK ERROR\n"
    client.submit(job(unique=b"u"))
    abandoned = world.connect().submit(SubmitJobLow(b"f", b"", b""))
    assert {assigned(worker), assigned(worker)} == set(world.engine.queue.jobs)
    world.peers[2].close()
    client.submit(SubmitJobHighBg(b"g", b"v", b""))
    client.submit(at(10))
    assert client.ask(b"status") == b"f\t3\t2\t1\ntwo words\t0\t0\t1\ng\t1\t0\t1\n.\n"
    assert client.ask(b"prioritystatus") == (
        b"f\t0\t1\t0\t1\ntwo words\t0\t0\t0\t1\ng\t1\t0\t0\t1\n.\n"
    )
    # The list starts with the latest registration. The worker has registered f again.
    assert client.ask(b"workers") == b"1 ::1 - :\n2 127.0.0.1 - : f g two words\n.\n"
    assert client.ask(b"show unique jobs") == b"u\n\nv\n\n.\n"
    flags = [b"0\t0", b"1\t0", b"0\t1", b"0\t1"]
    handles = list(world.engine.queue.jobs)
    assert handles[1] == abandoned
    lines = [b"%b\t0\t%b\n" % each for each in zip(handles, flags, strict=True)]
    assert client.ask(b"show jobs") == b"".join([*lines, b".\n"])


def test_names_do_not_break_the_lists() -> None:
    world = World()
    peer = world.connect()
    peer.send_raw(raw(CanDo(b"a\tb\nc\0d\x7f"), SetClientId(b"x\ny\0z"), job_bg(unique=b".\n")))
    peer.take_raw()
    assert peer.ask(b"status") == b"a?b?c?d?\t0\t0\t1\nf\t1\t0\t0\n.\n"
    assert peer.ask(b"prioritystatus") == b"a?b?c?d?\t0\t0\t0\t1\nf\t0\t1\t0\t0\n.\n"
    assert peer.ask(b"workers") == b"1 127.0.0.1 x?y : a?b?c?d?\n.\n"
    assert peer.ask(b"show unique jobs") == b".?\n.\n"


UNKNOWN_COMMAND = b"ERR UNKNOWN_COMMAND Unknown+server+command"
INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b" version", UNKNOWN_COMMAND),
        (b"\xff\xfe bar", UNKNOWN_COMMAND + b"\xff\xfe"),
        (b"cancel", UNKNOWN_COMMAND + b"cancel"),
        (b"cancel job", UNKNOWN_COMMAND + b"cancel"),
        (b"cancel x", UNKNOWN_COMMAND + b"cancel"),
        (b"cancel x y", b"ERR UNKNOWN_ERROR"),
        (b"cancel job ", b"ERR UNKNOWN_JOB"),
        (b"show", UNKNOWN_COMMAND + b"show"),
        (b"show ", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show unique", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show jobs x", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"show unique jobs ", b"ERR UNKNOWN_SHOW_ARGUMENTS"),
        (b"version\t", UNKNOWN_COMMAND + b"version\t"),
        (b"x\0 y", UNKNOWN_COMMAND + b"x"),
        (b"cancel job a b", b"ERR UNKNOWN_ERROR"),
        (b"maxqueue", INCOMPLETE + b"maxqueue"),
        (b"create", INCOMPLETE + b"create"),
        (b"CREATE x y", INCOMPLETE + b"CREATE"),
        (b"create function a b", INCOMPLETE + b"create"),
        (b"create function a ", INCOMPLETE + b"create"),
        (b"drop", INCOMPLETE + b"drop"),
        (b"drop x y", INCOMPLETE + b"drop"),
        (b"drop function a", b"ERR function not found"),
        (b"drop function a b", INCOMPLETE + b"drop"),
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


@pytest.mark.parametrize("state", ["queued", "running", "delayed"])
def test_cancel(state: str) -> None:
    world, client, worker = start(limit=b"1000")
    handle = client.submit(at(10, unique=b"u") if state == "delayed" else job_bg(unique=b"u"))
    assert client.submit(job(unique=b"u")) == handle
    if state == "running":
        assert assigned(worker) == handle
    worker.send(PreSleep())
    worker.take()
    world.connect().ask(b"cancel job " + handle)
    assert client.take() == [WorkFail(handle)]
    assert status(client, handle) == UNKNOWN
    assert client.ask(b"status") == b"f\t0\t0\t1\n.\n"
    world.wait(20)
    if state == "running":
        # The worker does not know about the cancellation, and the server ignores its packets.
        worker.send(WorkData(handle, b"d"), WorkComplete(handle, b"out"))
    assert worker.take() == client.take() == []
    assert worker.grab() == NoJob()
    assert client.submit(job(unique=b"u")) != handle


# The end of the server.


def waiting(world: World) -> Wait:
    wait: Wait = world.call(world.engine.serve, world.now, Bell())
    assert not wait.done
    return wait


def ended(wait: Wait) -> bool:
    """Return True if the Wait is done and was woken once."""
    assert isinstance(wait.wake, Bell)
    assert wait.wake.count == wait.done
    return wait.done


def test_shutdown_sends_queued_packets_first() -> None:
    world = World()
    wait = waiting(world)
    admin, slow, dead = world.connect(), world.connect().stop_reading(), world.connect(reads=False)
    worker = world.worker(b"f")
    admin.submit(job())
    assigned(worker)
    slow.send(EchoReq(b"x"))
    dead.send(EchoReq(b"x"))
    world.now = 100.0
    assert admin.ask(b"shutdown") == b"OK\r\n"
    assert not world.listening
    assert [peer.closed for peer in (admin, worker, slow, dead)] == [True, True, False, False]
    # The server accepts neither packets nor connections. Another shutdown changes nothing.
    slow.send(job())
    assert world.connect().closed
    world.shut_down(graceful=True)
    slow.read_on()
    assert slow.take() == [EchoRes(b"x")]
    assert slow.closed
    assert not ended(wait)
    assert world.engine.next_deadline() == 105.0
    world.sleep(5)
    assert dead.closed
    assert dead.inbox == b""
    assert ended(wait)
    wait.raise_error()
    with pytest.raises(LocalProtocolError):
        world.engine.serve(world.now, Bell()).raise_error()


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
    assert not ended(wait)
    world.wait(10)
    assert worker.take() == [Noop()]
    assert assigned(worker) == later
    worker.send(WorkComplete(later, b""))
    assert client.closed
    assert ended(wait)


@pytest.mark.parametrize("end", ["no link", "shutdown"])
def test_graceful_shutdown_ends(end: str) -> None:
    world = World()
    wait, released = waiting(world), waiting(world)
    world.engine.release(released, world.now)
    client = world.connect()
    client.submit(job_bg())
    world.shut_down(graceful=True)
    assert not ended(wait)
    if end == "no link":
        client.close()
    else:
        assert client.ask(b"shutdown") == b"OK\r\n"
    assert ended(wait)
    assert not released.done


# Links.


@pytest.mark.parametrize(
    ("option", "bad", "good"),
    [
        ("job_retries", [-1, True, "1", 1.0], [None, 0]),
        ("max_packet_size", [0, 63, 2**31, "1"], [64]),
        ("max_unread", [0, "1", None], [1]),
        ("max_memory", [-1, 0, "1", None], [1]),
        ("max_queue_size", [-1, "1", None, True], [0]),
    ],
)
def test_option_out_of_range_is_named(option: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"{option} is "):
            World(**{option: value})
    for value in good:
        World(**{option: value})


# Misbehaving peers.


def test_garbage_from_peer_that_does_not_read_starts_timeout() -> None:
    world = World()
    bad = world.worker(b"f").stop_reading()
    bad.send(PreSleep(), EchoReq(b"x"))
    bad.send_raw(b"\0XXX")
    assert not bad.closed
    assert world.engine.next_deadline() == 5
    bad.send_raw(raw(job()))
    assert not world.engine.queue.jobs
    # The worker is not woken.
    client = world.connect()
    client.submit(job())
    assert bad.take() == []
    bad.read_on()
    assert bad.take() == [EchoRes(b"x")]
    assert world.engine.next_deadline() is None


@pytest.mark.parametrize("reducer", [b"", b"reducer"])
def test_job_that_workers_would_receive_in_too_large_a_packet_is_refused(reducer: bytes) -> None:
    world = World(max_packet_size=1000)
    client = world.connect()
    room = 1000 - 66 - len(b"fu") - (len(reducer) + 1 if reducer else 0)
    client.send(SubmitReduceJob(b"f", b"u", reducer, b"", bytes(room + 1)))
    text = b"1001 bytes with the handle; max_packet_size is 1000"
    assert client.take() == [Error(b"ARGUMENT_TOO_LARGE", text)]
    assert client.ask(b"status") == b".\n"
    client.submit(SubmitReduceJob(b"f", b"u", reducer, b"", bytes(room)))


# Unread output.


def test_broadcast_disconnects_only_slow_listeners() -> None:
    world = World(max_unread=1000)
    clients, worker = [world.connect() for _ in range(3)], world.worker(b"f")
    for client in clients:
        client.submit(job(unique=b"u"))
    handle = assigned(worker)
    clients[1].stop_reading()
    # A single packet can exceed the limit.
    sent = [WorkData(handle, b"x" * size) for size in (5000, 600, 600, 600)]
    for packet in sent:
        worker.send(packet)
    assert clients[0].take() == clients[2].take() == sent
    assert [client.closed for client in clients] == [False, True, False]
    assert not worker.closed


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


def test_unread_output_of_one_write_stops_processing() -> None:
    world = World(max_unread=10_000)
    client = world.connect()
    client.send_raw(raw(EchoReq(b"x" * 988)) * 13 + raw(job_bg()))
    assert client.closed
    # The server has not processed the packets after the excess.
    assert not world.engine.queue.jobs


@pytest.mark.parametrize(("copies", "cut_off"), [(2, False), (3, False), (4, True), (9999, True)])
def test_unread_copies_count_towards_max_unread(copies: int, cut_off: bool) -> None:
    """Copies count as unread output. If they exceed the limit, the engine does not create them."""
    _, client, worker = start(max_unread=10_000)
    client.send(*[job(unique=b"u")] * copies)
    client.take()
    client.stop_reading()
    part = WorkData(assigned(worker), b"x" * 5000)
    worker.send(part)
    assert client.closed == cut_off
    assert not worker.closed
    if not cut_off:
        client.read_on()
        assert client.take() == [part] * copies


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


# Memory.


def test_unfinished_packets_beyond_max_memory_disconnect_largest() -> None:
    """A packet can exceed the memory limit together with unfinished packets of other peers."""
    world = World(max_memory=1_000_000)
    peers = [world.connect() for _ in range(3)]
    head = raw(EchoReq(b"x" * 900_000))
    for peer, size in zip(peers, (400_000, 300_000, 200_000), strict=True):
        peer.send_raw(head[:size])
    assert not any(peer.closed for peer in peers)
    assert world.engine.queue.memory == 900_000
    peers[2].send_raw(head[200_000:310_000])
    assert [peer.closed for peer in peers] == [True, False, False]
    assert world.engine.queue.memory == 610_000
    # Packets of a few bytes disconnect no peer.
    world = World(max_memory=100_000)
    peers = [world.connect() for _ in range(10)]
    for peer in peers:
        peer.send_raw(head[:20_000])
    assert not any(peer.closed for peer in peers)


def test_listeners_count_towards_max_memory() -> None:
    world = World(max_memory=16_000)
    first = world.connect()
    created = JobCreated(first.submit(job(b"x" * 1_000, b"u")))
    clients = [world.connect() for _ in range(40)]
    answers = []
    for client in clients:
        client.send(job(unique=b"u"))
        answers.append(client.one())
    assert answers[0] == created
    assert answers == sorted(answers, key=lambda answer: answer == NO_MEMORY)
    assert answers[-1] == NO_MEMORY
    # A second submit of the same client, or a background submit, uses no more memory.
    clients[0].send(job(unique=b"u"))
    first.send(job_bg(unique=b"u"))
    assert clients[0].take() == first.take() == [created]
    # A client that disconnects makes room.
    clients[0].close()
    clients[-1].send(job(unique=b"u"))
    assert clients[-1].take() == [created]


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


def test_full_memory_refuses_jobs_until_workers_finish() -> None:
    world = World(max_memory=1_000_000)
    client, worker = world.connect(), world.connect()
    client.send(*[job(b"x" * 200_000, b"%d" % number) for number in range(4)])
    *created, refused = client.take()
    assert refused == NO_MEMORY
    # A submit that joins a job of the same client uses no memory.
    client.send(job(b"x" * 200_000, b"0"))
    assert client.take() == created[:1]
    assert world.engine.queue.memory <= 750_000
    # Workers can still register and run the jobs.
    worker.send(CanDo(b"f"))
    for number in range(3):
        result = WorkComplete(assigned(worker), b"y" * 200_000)
        worker.send(result)
        assert client.take() == [result] * (1 if number else 2)
    client.submit(job(b"x" * 200_000))


def test_job_larger_than_reserve_is_refused() -> None:
    world = World(max_memory=1_000_000)
    client = world.connect()
    client.send(job(b"x" * 260_000))
    assert client.take() == [NO_MEMORY]
    assert not world.engine.queue.functions


# Idle functions.


@pytest.mark.unmeasured
def test_idle_functions_are_dropped_for_jobs() -> None:
    world = World(max_memory=200_000)
    client, worker = world.connect(), world.connect()
    for number in range(200):
        function = b"%d" % number
        client.submit(SubmitJob(function, b"", b"x"))
        worker.send(CanDo(function))
        result = WorkComplete(assigned(worker), b"")
        worker.send(result, CantDo(function))
        assert client.take() == [result]
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
