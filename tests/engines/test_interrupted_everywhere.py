"""Tests that raise a signal handler's exception before every line of an engine, then abandon it.

CPython checks for signals in fewer places, but these differ between versions. The tests interrupt
each line once for each line of its callers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import gearman_proto
from gearman_proto import text
from gearman_proto.constants import JOB_COMPLETE, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import prepare
from gearman_proto.wire.packets import (
    CanDo,
    EchoReq,
    GrabJob,
    JobAssign,
    JobCreated,
    NoJob,
    Noop,
    PreSleep,
    StatusResUnique,
    SubmitJob,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
)

from . import admin_harness, harness, server_harness, worker_harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Self

    from gearman_proto.jobs.request import GearmanJobRequest

pytestmark = [
    pytest.mark.slow,
    # An interrupted generator might end in a place where Python ignores exceptions.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_CORE = os.path.dirname(gearman_proto.__file__) + os.sep


class Signalled(BaseException):
    """The exception of a signal handler."""


class Interrupted:
    """Context manager that raises Signalled before one line of the core.

    Args:
    number: Index of the line among the executed ones, from 0.

    Attributes:
    where: The interrupted line, or None if fewer lines were executed.
    """

    def __init__(self, number: int) -> None:
        self.where: str | None = None
        self._left = number
        self._seen: set[Any] = set()

    def __enter__(self) -> Self:
        self._before = sys.gettrace()  # The trace function of the coverage measurement.
        sys.settrace(self._enter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._look if frame.f_code.co_filename.startswith(_CORE) else None

    def _look(self, frame: FrameType, event: str, argument: Any) -> Any:
        beneath = frame.f_back
        while beneath is not None and not beneath.f_code.co_filename.startswith(_CORE):
            beneath = beneath.f_back  # Skip frames of the test between two of the core.
        if beneath is None:
            beneath = frame
        place = (event, frame.f_code, frame.f_lineno, beneath.f_code, beneath.f_lineno)
        if event in ("line", "return") and place not in self._seen:
            self._seen.add(place)
            self._left -= 1
            if self._left < 0:
                self.where = f"{event} {frame.f_code.co_filename}:{frame.f_lineno}"
                raise Signalled
        return self._look


def is_interrupted(
    world: Any, use: Callable[[Any], object], look: Callable[[Any], object], number: int
) -> bool:
    """Interrupt `use` of a world at a line, abandon its engine, and check it with `look`.

    Return False if fewer than `number` lines were executed.
    """
    interrupted = Interrupted(number)
    with contextlib.suppress(Signalled), interrupted:
        use(world)
    if interrupted.where is None:
        return False
    try:
        waits = world.engine.abandon(ConnectionError("interrupted"))
        assert all(wait.done for wait in waits)
        assert world.engine.next_action() is None
        assert world.engine.next_deadline() is None
        look(world)
    except BaseException as error:
        error.add_note(f"interrupted at {interrupted.where}, the {number}th line")
        raise
    return True


# The client.


def submit_and_wait(world: harness.World) -> None:
    world.first = world.request(unique="u")  # type: ignore[attr-defined]
    request: GearmanJobRequest = world.first  # type: ignore[attr-defined]
    others = [world.request(), world.request(background=True)]
    wait = world.submit(request, *others, timeout=5.0)
    server = world.serve()
    server.take()
    handles = [b"H:1", b"H:2", b"H:3"]
    server.send(*[JobCreated(handle) for handle in handles])
    stream = world.updates(request)
    server.send(WorkData(b"H:1", b"part"), WorkStatus(b"H:1", b"1", b"2"))
    stream.take()
    server.send(WorkComplete(b"H:1", b"out"), WorkFail(b"H:2"))
    world.release(stream)
    world.release(wait)


def ask_and_retry(world: harness.World) -> None:
    status = world.statuses(world.request(unique="u"), by_unique=True, timeout=5.0)
    server = world.serve()
    server.take()
    server.send(StatusResUnique(b"u", b"0", b"0", b"0", b"0", b"0"))
    world.release(status)
    lost = world.submit(world.request(retries=1), timeout=5.0)
    server.take()
    server.lose()
    world.serve().take()
    world.sleep(6.0)
    world.release(lost)


def look_at_client(world: harness.World) -> None:
    assert all(wait.done for wait in world.waits)
    first: GearmanJobRequest | None = getattr(world, "first", None)
    if first is None:
        return
    # Another engine can wait for the request. It can also submit it again if its job was lost.
    other = harness.World()
    wait = other.wait_completed(first)
    assert wait.done
    assert first.state in (JOB_UNKNOWN, JOB_COMPLETE)
    other.release(wait)
    is_lost = first.state == JOB_UNKNOWN
    prepare([first], NoopEncoder)
    wait = other.submit(first)
    if is_lost:
        server = other.serve()
        assert [type(event) for event in server.take()] == [SubmitJob]
        server.send(JobCreated(b"H:7"), WorkComplete(b"H:7", b"out"))
    assert wait.done
    assert first.state == JOB_COMPLETE
    assert first.result == b"out"


# The worker.


def use_worker(world: worker_harness.World) -> None:
    world.register(b"g", 5.0)
    world.work(timeout=60.0)
    one = world.serve("s0")
    one.send(NoJob())
    one.send(Noop())
    job = one.assign()
    world.send(job, WorkData(b"H:1", b"part"))
    two = world.serve("s1")
    world.finish(job)
    world.unregister(b"g")
    two.lose()
    world.sleep(2.0)
    if one.grabbing:
        one.send(NoJob())
    world.stop(timeout=5.0)
    world.sleep(6.0)
    world.end_work()


def look_at_worker(world: worker_harness.World) -> None:
    assert all(wait.done for wait in world.waits)
    for peer in world.peers:
        assert world.engine.data_to_send(peer.link, world.now) == b""


# The server. Any exception ends it.


def use_server(world: server_harness.World) -> None:
    world.engine.serve(world.now, harness.Bell())
    worker = world.worker(b"f")
    worker.send(PreSleep())
    client = world.connect()
    client.send(SubmitJob(b"f", b"u", b"in"))
    worker.send(GrabJob())
    (assigned,) = [event for event in worker.take() if isinstance(event, JobAssign)]
    worker.send(WorkData(assigned.handle, b"part"), WorkComplete(assigned.handle, b"out"))
    client.send(EchoReq(b"x"))
    worker.send(CanDo(b"g"))
    world.sleep(1.0)
    worker.closed = True
    world.call(world.engine.connection_lost, worker.link, OSError(), world.now)


def look_at_server(world: server_harness.World) -> None:
    assert world.engine.closed
    assert not world.engine.links
    assert not world.engine.links_to_write()
    world.engine.handle_timeout(1e9)
    world.engine.close(world.now)


# The admin client.


def use_admin(world: admin_harness.World) -> None:
    first, second = world.ask(text.version(), timeout=5.0), world.ask()
    server = world.serve()
    server.take()
    server.send(b"OK 1\n")
    world.release(first)
    server.take()
    server.send(b"f\t1\t2", b"\t3\n.\n")
    world.release(second)
    third = world.ask(timeout=5.0)
    server.take()
    world.call(world.engine.handle_timeout, world.now + 6.0)
    world.release(third)


def look_at_admin(world: admin_harness.World) -> None:
    assert all(question.done for question in world.questions)
    for peer in world.peers:
        assert world.engine.data_to_send(peer.link, world.now) == b""


@pytest.mark.parametrize(
    ("make", "use", "look", "lines"),
    [
        pytest.param(harness.World, submit_and_wait, look_at_client, 500, id="submits"),
        pytest.param(harness.World, ask_and_retry, look_at_client, 300, id="retries"),
        pytest.param(
            partial(worker_harness.World, 2), use_worker, look_at_worker, 500, id="worker"
        ),
        pytest.param(server_harness.World, use_server, look_at_server, 500, id="server"),
        pytest.param(admin_harness.World, use_admin, look_at_admin, 200, id="admin"),
    ],
)
def test_interrupted_engine_can_be_abandoned(make: Any, use: Any, look: Any, lines: int) -> None:
    number = 0
    while is_interrupted(make(), use, look, number):
        number += 1
    assert number > lines
