"""The engines of `gearman_proto` as programs in memory, and lies about their bytes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.address import parse_host_list
from gearman_proto.constants import JOB_COMPLETE
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.worker.engine import WorkerEngine
from gearman_proto.engines.worker.outcomes import CallbackResult, to_send
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.judge import Judge, Selection
from gearman_proto.testing.conformance.program_kit import ClientKit, WorkerKit
from gearman_proto.testing.conformance.server_kit import ServerKit
from gearman_proto.testing.conformance.suites import SUITES
from gearman_proto.testing.memory import World
from gearman_proto.testing.units import Cutter
from gearman_proto.wire.packets import WorkData, WorkStatus, WorkWarning
from tests.conformance.lying import CLOSE, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearman_proto.testing.conformance.judge import Outcome
    from gearman_proto.testing.memory import MemoryStream
    from tests.conformance.lying import Lie

# Number of bytes to read at once.
_ALL: Final = 1 << 30
# Seconds that a job takes whose data begins with `slow`.
_WHILE: Final = 0.2


def reverse(worker: Any, job: Any) -> bytes:
    """Return the data in reverse order, optionally after updates, or fail."""
    data: bytes = job.data
    if data.startswith(b"fail"):
        raise ValueError("asked to fail")
    if data.startswith(b"updates"):
        worker.send_job_data(job, b"some")
        worker.send_job_warning(job, b"careful")
        worker.send_job_status(job, 1, 2)
    return data[::-1]


# Functions of the workers.
_FUNCTIONS: Final = {"reverse": reverse, "other": reverse}


class LyingStream:
    """A connection to an engine, with lies in both directions.

    Args:
        world: The engine's world.
        inner: The connection.
        lies: The lies. The first one that matches a packet applies.
        serves: True if this end is the server's.
    """

    def __init__(
        self, world: World, inner: MemoryStream, lies: Sequence[Lie], *, serves: bool = False
    ) -> None:
        self._world = world
        self._inner = inner
        self._lies = lies
        self._out, self._in = ("<", ">") if serves else (">", "<")
        self._cutters = {way: Cutter() for way in "<>"}
        self._received = bytearray()
        self._is_closed = False
        self.settimeout = inner.settimeout
        self.gettimeout = inner.gettimeout

    def sendall(self, data: bytes) -> None:
        self._inner.sendall(self._change(data, self._out))

    def send(self, data: bytes) -> int:
        return self._inner.send(data)

    def recv(self, size: int) -> bytes:
        while not (self._received or self._is_closed):
            data = self._inner.recv(_ALL)
            self._received += self._change(data, self._in) if data else self._end(self._in)
            if not data and not self._received:
                if not self._hides_end(self._in):
                    return b""
                self._world.sleep(self.gettimeout() or 0)
                raise TimeoutError("the end of the connection does not pass")
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def shutdown(self, how: int) -> None:
        self._finish(lambda: self._inner.shutdown(how))

    def close(self) -> None:
        self._finish(self._inner.close)

    def reset(self) -> None:
        self._finish(self._inner.reset)

    def _finish(self, end: Callable[[], object]) -> None:
        self._inner.sendall(self._end(self._out))
        if not self._hides_end(self._out):
            end()

    def _hides_end(self, way: str) -> bool:
        return any(lie.name == f"{way}END" for lie in self._lies)

    def _end(self, way: str) -> bytes:
        """Return the bytes that pass in place of the end of the stream."""
        rest = self._cutters[way].rest
        self._cutters[way] = Cutter()
        lies = [lie for lie in self._lies if lie.name == f"{way}END"]
        return rest + b"".join([lie.change([]) for lie in lies])

    def _change(self, data: bytes, way: str) -> bytes:
        """Return the bytes that pass in place of `data`."""
        cutter = self._cutters[way]
        parts = []
        for unit in cutter.cut(data):
            part = told(self._lies, unit, way, id(self._inner))
            if part is CLOSE:
                self._is_closed = True
                self._inner.close()
                break
            parts.append(part)
        if cutter.lost:
            parts.append(told(self._lies, cutter.rest, way, id(self._inner), "LOST"))
            self._cutters[way] = Cutter()
        return b"".join(parts)


class LyingWorld(World):
    """A world of a server whose connections lie."""

    def __init__(
        self, make: Callable[[Callable[[], float]], Any], lies: Sequence[Lie] = ()
    ) -> None:
        super().__init__(make)
        self.lies = lies

    def connect(self, side: str = "", /) -> Any:
        return LyingStream(self, super().connect(side), self.lies)


def _nothing() -> None:
    """Do nothing: the program polls its Wait after each call."""


class ProgramWorld(World):
    """A program in memory: its engine, its application, and lies about its connections.

    Attributes:
        status: The exit status, or None while it runs.
        output: Its output.
        errors: Its error output.
    """

    def __init__(self, lies: Sequence[Lie] = ()) -> None:
        self.status: int | None = None
        self.output: bytes = b""
        self.errors: bytes = b""
        self.lies = lies
        self._wait: Any = None
        # Lies that hide that the server is down.
        self._hidden: list[Lie] = []
        super().__init__(self._make_engine)

    def _make_engine(self, wall_clock: Callable[[], float]) -> Any:
        raise NotImplementedError

    def accept(self, seconds: float, side: str = "", /) -> Any:
        return LyingStream(self, super().accept(seconds, side), self.lies, serves=True)

    def stop_listening(self) -> None:
        self._hidden = [lie for lie in self.lies if lie.name == "<END"]
        if not self._hidden:
            super().stop_listening()

    def pump(self) -> None:
        super().pump()
        while self._hidden and self._arrivals:
            self._arrivals.popleft().sendall(b"".join([lie.change([]) for lie in self._hidden]))
        if self._wait is not None and self._wait.ready:
            self._go_on()
            super().pump()

    def _go_on(self) -> None:
        raise NotImplementedError

    def _exit(self, status: int) -> None:
        self.engine.release(self._wait, self.now)
        self._wait = None
        self.status = status
        self.close()

    def end(self) -> None:
        """Do nothing: the kit closes the world."""


class WorkerWorld(ProgramWorld):
    """A worker in memory."""

    def __init__(self, lies: Sequence[Lie] = ()) -> None:
        # The end times of running jobs.
        self._jobs: list[tuple[float, Any]] = []
        super().__init__(lies)

    def _make_engine(self, _: Callable[[], float]) -> WorkerEngine:
        return WorkerEngine(parse_host_list(["server"]), rng=random.Random(1), poll_interval=0.5)

    def start(self, _function: str, _payloads: Sequence[str]) -> Any:
        for name in _FUNCTIONS:
            self.engine.register(self.now, name.encode(), None)
        self._wait = self.engine.work(self.now, _nothing)
        self.pump()
        return self

    def signal(self, _number: int = 15) -> None:
        self.engine.stop(self.now)
        self.pump()

    def send_job_data(self, job: Any, data: bytes) -> None:
        self.engine.send(self.now, _nothing, job, WorkData(job.wire_handle, data))

    def send_job_warning(self, job: Any, data: bytes) -> None:
        self.engine.send(self.now, _nothing, job, WorkWarning(job.wire_handle, data))

    def send_job_status(self, job: Any, numerator: int, denominator: int) -> None:
        event = WorkStatus(job.wire_handle, b"%d" % numerator, b"%d" % denominator)
        self.engine.send(self.now, _nothing, job, event)

    def _go_on(self) -> None:
        is_finished = self._wait.done
        while (job := self.engine.next_job(self.now)) is not None:
            self._jobs.append((self.now + _WHILE * job.data.startswith(b"slow"), job))
        while self._jobs and self._jobs[0][0] <= self.now:
            self._run(self._jobs.pop(0)[1])
        if is_finished:
            self.engine.end_work(self.now)
            self._exit(int(self._wait.error is not None))

    def _run(self, job: Any) -> None:
        value: Any
        try:
            happened, value = CallbackResult.RETURNED, _FUNCTIONS[job.task](self, job)
        except (KeyError, ValueError) as error:
            happened, value = CallbackResult.RAISED, error
        for event in to_send(happened, job, NoopEncoder, value):
            self.engine.send(self.now, _nothing, job, event)
        self.engine.job_done(self.now, job)

    def step(self, until: float) -> bool:
        ends_at = self._jobs[0][0] if self._jobs else math.inf
        if ends_at > min(until, self.engine.next_deadline() or math.inf):
            return super().step(until)
        self.now = ends_at
        self._run(self._jobs.pop(0)[1])
        self.pump()
        return True


class ClientWorld(ProgramWorld):
    """A client in memory, which submits jobs and prints their results."""

    def _make_engine(self, wall_clock: Callable[[], float]) -> ClientEngine:
        addresses = parse_host_list(["server"])
        return ClientEngine(addresses, rng=random.Random(1), wall_clock=wall_clock)

    def start(self, function: str, payloads: Sequence[str]) -> Any:
        jobs = [
            {"task": function, "data": payload.encode(errors="surrogateescape")}
            for payload in payloads
        ]
        self._requests = make_requests(jobs)
        prepare(self._requests, NoopEncoder)
        self._wait = self.engine.submit(self.now, _nothing, self._requests)
        self.pump()
        return self

    def _go_on(self) -> None:
        failed = [request for request in self._requests if request.state != JOB_COMPLETE]
        if self._wait.error is not None or failed:
            self.errors = repr(self._wait.error or failed).encode()
            self._exit(1)
        else:
            # A line for each result.
            self.output = b"\n".join([each._gm_raw_result or b"" for each in self._requests])
            self._exit(0)


# Cases with lies.

HAS: Final = frozenset(CAPABILITIES) | {"several"}
# Seconds of virtual time that a case waits for a server.
_SERVER_TIMEOUT: Final = 2.0


def _make_server(wall_clock: Callable[[], float]) -> ServerEngine:
    return ServerEngine(rng=random.Random(1), wall_clock=wall_clock)


def _make_kit(side: str, name: str, lies: Sequence[Lie], timeout: float) -> Any:
    function = f"conformance-{name}"
    if side == "server":
        return ServerKit(LyingWorld(_make_server, lies), function, _SERVER_TIMEOUT, HAS)
    if side == "worker":
        return WorkerKit(WorkerWorld(lies), function, timeout)
    return ClientKit(ClientWorld(lies), function, timeout)


def outcome_with(side: str, name: str, lies: Sequence[Lie], timeout: float) -> Outcome:
    """Return the outcome of a case with one of our engines behind lying connections.

    Args:
        side: The side of the case.
        name: The name of the case.
        lies: The lies.
        timeout: Seconds of virtual time to wait for a worker or a client.
    """
    judge = Judge(
        lambda _: _make_kit(side, name, lies, timeout), HAS, selection=Selection(slow=True)
    )
    return judge.judge(SUITES[side].cases[name])
