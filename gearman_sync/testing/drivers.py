"""Tests of a driver: the code that runs an engine in some event loop.

A subclass of `DriverTests` defines how to make the driver, and pytest runs the tests. In each test,
the driver runs a `ClientEngine`, since the transport side is the same for all engines, and a script
is the server. The engine is in a `gearman_proto.testing.StrictEngine`.

Theory of operation
    The test and the driver run in the thread of pytest, and the scripts in threads of a
    ScriptedServer. A driver with a fault can sleep forever. So a watchdog closes all connections
    after `patience` seconds. That wakes a driver which polls its sockets, and the test fails. If
    the driver sleeps on, the watchdog interrupts the main thread after the same time.

    `make_driver` gets a function that makes an engine, because a driver needs another engine after
    a fork or an exception. A test keeps all engines, and checks each at the end.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import socket
import threading
import time
import unittest
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from gearman_proto import (
    ClientEngine,
    GearmanError,
    NoopEncoder,
    constants,
    make_requests,
    parse_host_list,
    prepare,
)
from gearman_proto.testing import StrictEngine
from gearman_proto.wire.packets import (
    GetStatus,
    JobCreated,
    StatusRes,
    SubmitJob,
    WorkComplete,
)

from .scripted import ScriptedServer
from .sockets import black_hole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gearman_proto import GearmanJobRequest

    from .conversation import Peer

# Jobs and their size in bytes, which exceed all buffers of the sockets.
_MANY: Final = 32
_LARGE: Final = 1024 * 1024
# Bytes that the buffers of both sockets may hold at most.
_BUFFERS: Final = 16 * 1024 * 1024
_POLL: Final = 0.01
_handles: Final = itertools.count()


class DriverUnderTest(Protocol):
    """A driver, which runs one engine at a time, as `DriverTests` uses it.

    The methods block, and are called in the thread that has called `make_driver`. An adapter for an
    event loop runs the loop in them, or uses a loop in another thread.
    """

    def call(self, method: str, *args: Any, **options: Any) -> None:
        """Make a call of the engine, and block until its Wait is done.

        Call ``getattr(engine, method)(now, wake, *args, **options)``, release the Wait, and then
        call its `raise_error`.
        """

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        """Begin a call of the engine as `call` does, and give it up while it waits."""

    def close(self) -> None:
        """Close the engine, all sockets, and everything that `make_driver` has opened."""


class DriverTests:
    """Tests of a driver, for pytest.

    Subclass it, and define `make_driver`::

        class TestMyDriver(DriverTests):
            def make_driver(self, make_engine):
                return MyDriver(make_engine)

    ===============================  ===============================================================
    case                             the driver
    ===============================  ===============================================================
    jobs, a slow peer                reads packets in any pieces
    a peer that does not read        reads while it can't write, and does not buffer all output
    a half-closed peer               processes data before the end of a stream, closes sockets
    large payloads                   sends and receives packets that no buffer can hold
    lost bytes                       reports a connection that ends inside a packet
    an unwatched timer               sleeps until the deadline, and then writes and acts
    a cancelled call                 releases its Wait, and keeps the connection in use
    a crash                          ends all calls, closes all sockets, and makes a new engine
    a fork                           closes connections although a child has copies of the sockets,
                                     and makes a new engine in the child (`forks`)
    ===============================  ===============================================================

    All tests also check that the driver closes its sockets at the end and makes none of the
    mistakes that `gearman_proto.testing.StrictEngine` finds. To skip a test, set it to None in the
    subclass.

    Attributes:
        patience: Seconds until a test counts as hanging, and fails.
        forks: True if the driver works in the child of a fork. Otherwise, that test is skipped.
    """

    patience: ClassVar[float] = 60.0
    forks: ClassVar[bool] = False

    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        """Return a driver of the engine that `make_engine` makes.

        Args:
            make_engine: Makes an engine: the first one, or the successor of an engine that has
                raised an exception, or of the one of the parent process. It connects to IPv4
                addresses, without TLS.
        """
        raise NotImplementedError("define make_driver in your subclass of DriverTests")

    # The tests.

    def test_jobs(self) -> None:
        """A call ends when all its jobs have ended."""
        with self._gm_run(_work) as driver:
            requests = _requests(b"%d" % number for number in range(100))
            driver.call("submit", requests)
            _check_done(requests)

    def test_slow_peer(self) -> None:
        """The server sends each byte separately."""

        def script(peer: Peer) -> None:
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                for byte in _answers(peer):
                    peer.send_raw(bytes([byte]))
                    time.sleep(0.001)

        with self._gm_run(script) as driver:
            requests = _requests([b"one", b"two"])
            driver.call("submit", requests)
            _check_done(requests)

    def test_peer_that_does_not_read(self) -> None:
        """The server sends much, and reads the driver's data only afterwards."""
        backlogs: list[int] = []

        def script(peer: Peer) -> None:
            event = peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:first"), WorkComplete(b"H:first", bytes(_BUFFERS)))
            # The driver has read most of that, so it had time to write as well.
            backlogs.append(self._gm_handed - len(event.data))
            _work(peer)

        with self._gm_run(script, receive_buffer=65536) as driver:
            requests = _requests([bytes(_LARGE)] * _MANY)
            driver.call("submit", requests)
            _check_states(requests, constants.JOB_COMPLETE)
            if backlogs[0] > _BUFFERS:
                raise AssertionError(
                    f"the driver has taken {backlogs[0]} bytes for a server that does not read: "
                    "call data_to_send again only when the socket has accepted all earlier bytes"
                )

    def test_half_closed_peer(self) -> None:
        """The server ends its stream right after an answer. The driver closes the connection."""

        def script(peer: Peer) -> None:
            peer.send_raw(_answers(peer))
            peer.half_close()
            peer.hold()

        with self._gm_run(script) as driver:
            for _ in range(2):
                # The driver might notice the end of the stream only after the second submit.
                requests = _requests([b"data"], max_retries=10)
                driver.call("submit", requests)
                _check_done(requests)
            self._gm_wait_for_ends(1)

    def test_half_closed_peer_with_a_job(self) -> None:
        """The server ends its stream while it has a job, and the driver connects again."""

        def script(peer: Peer) -> None:
            if peer.number > 0:
                _work(peer)
            peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:1"))
            peer.half_close()
            peer.hold()

        with self._gm_run(script) as driver:
            self._gm_lose(driver)

    def test_large_payload(self) -> None:
        """A job and its result are larger than all buffers."""
        with self._gm_run(_work) as driver:
            requests = _requests([bytes(range(256)) * (_BUFFERS // 256)])
            driver.call("submit", requests)
            _check_done(requests)

    def test_connection_cut_inside_a_packet(self) -> None:
        """The server closes the connection in the middle of a packet."""
        self._gm_test_cut(lambda peer: peer.close())

    def test_connection_reset_inside_a_packet(self) -> None:
        """The server resets the connection in the middle of a packet."""
        self._gm_test_cut(lambda peer: peer.reset())

    def test_connection_reset_during_a_write(self) -> None:
        """The server resets the connection before the driver has written a packet."""

        def script(peer: Peer) -> None:
            if peer.number > 0:
                _work(peer)
            peer.sock.recv(1)
            peer.reset()

        with self._gm_run(script, receive_buffer=65536) as driver:
            self._gm_lose(driver, bytes(_BUFFERS))

    def test_time_limit_without_any_data(self) -> None:
        """A call ends at its time limit although the server sends nothing."""

        def script(peer: Peer) -> None:
            peer.hold()

        with self._gm_run(script) as driver:
            requests = _requests([b"data"])
            driver.call("submit", requests, timeout=1.0)
            (request,) = requests
            if not request.timed_out:
                raise AssertionError(
                    f"the request did not time out, but is {request!r}: sleep only until the time "
                    "of next_deadline, and then call handle_timeout"
                )

    def test_time_limit_of_connecting(self) -> None:
        """A call ends although the connection neither opens nor fails."""
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(black_hole())
            with self._gm_drive(address, stack.close) as driver:
                requests = _requests([b"data"])
                driver.call("submit", requests, timeout=1.0)
                _check_states(requests, constants.JOB_PENDING)

    def test_timer_that_sends(self) -> None:
        """A deadline passes without any data, and the driver sends the engine's new output."""

        def script(peer: Peer) -> None:
            event = peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:1"))
            peer.expect(GetStatus)  # The heartbeat.
            peer.send(StatusRes(b"H:1", b"1", b"1", b"0", b"0"))
            peer.send(WorkComplete(b"H:1", event.data[::-1]))
            peer.hold()

        with self._gm_run(script, heartbeat=1.0) as driver:
            requests = _requests([b"data"])
            driver.call("submit", requests)
            _check_done(requests)

    def test_cancelled_call(self) -> None:
        """A call is given up. Its request goes on, and the next call gets its own answer."""

        def script(peer: Peer) -> None:
            peer.send_raw(_answers(peer))
            first, second = peer.expect(SubmitJob), peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:first"), JobCreated(b"H:second"))
            peer.send(WorkComplete(b"H:first", first.data[::-1]))
            peer.send(WorkComplete(b"H:second", second.data[::-1]))
            peer.hold()

        with self._gm_run(script) as driver:
            driver.call("submit", _requests([b"connect"]))
            first, second = _requests([b"first"]), _requests([b"second"])
            driver.cancel("submit", first)
            driver.call("submit", second)
            _check_done(second)
            _check_done(first)

    def test_crash_when_connected(self) -> None:
        """The engine raises an exception in `connected`."""
        self._gm_test_crash("connected")

    def test_crash_in_a_read(self) -> None:
        """The engine raises an exception in `receive_data`."""
        self._gm_test_crash("receive_data")

    def test_crash_in_a_write(self) -> None:
        """The engine raises an exception in `data_to_send`."""
        self._gm_test_crash("data_to_send")

    def test_crash_in_a_timer(self) -> None:
        """The engine raises an exception in `handle_timeout`."""
        self._gm_test_crash("handle_timeout")

    def test_connection_ends_although_a_child_has_a_copy(self) -> None:
        """The driver closes a connection whose socket a forked child has inherited."""
        _require_fork()
        reading, writing = os.pipe()
        child = 0
        try:
            with self._gm_run(_work) as driver:
                driver.call("submit", _requests([b"data"]))
                child = _fork()
                if child == 0:
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
        finally:
            os.close(writing)
            os.close(reading)
            if child != 0:
                os.waitpid(child, 0)

    def test_child_of_a_fork(self) -> None:
        """The child of a fork makes its own connection, and the parent keeps the old one."""
        _require_fork()
        if not self.forks:
            raise unittest.SkipTest("this driver does not work in the child of a fork (`forks`)")
        with self._gm_run(_work) as driver:
            driver.call("submit", _requests([b"data"]))
            child = _fork()
            if child == 0:
                status = 1
                with contextlib.suppress(BaseException):
                    requests = _requests([b"child"])
                    driver.call("submit", requests)
                    _check_done(requests)
                    status = 0
                os._exit(status)
            status = self._gm_status_of(child)
            requests = _requests([b"parent"])
            driver.call("submit", requests)
            _check_done(requests)
            if status != 0:
                raise AssertionError(
                    f"a job of the child of a fork has failed (status {status}): make a new engine "
                    "in the child, and close the sockets that it has inherited"
                )
            if self._gm_connections != 2:
                raise AssertionError(
                    f"parent and child have made {self._gm_connections} connections instead of one "
                    "each: neither may end or use a connection of the other"
                )

    # The parts of the tests.

    @contextlib.contextmanager
    def _gm_run(
        self, script: Callable[[Peer], object], *, receive_buffer: int = 0, **options: Any
    ) -> Iterator[DriverUnderTest]:
        """Run the driver with a server that follows `script` on each connection."""
        self._gm_connections = 0
        self._gm_open: list[Peer] = []

        def play(peer: Peer) -> None:
            self._gm_connections += 1
            self._gm_open.append(peer)
            try:
                script(peer)
            finally:
                self._gm_open.remove(peer)

        server = ScriptedServer(play, timeout=self.patience, receive_buffer=receive_buffer)
        stop = functools.partial(server.stop, raising=False)
        with server:
            with self._gm_drive(server.address, stop, **options) as driver:
                yield driver
            self._gm_wait_for_ends(0)

    @contextlib.contextmanager
    def _gm_drive(
        self,
        address: tuple[str, int],
        give_up: Callable[[], object],
        crashing: str | None = None,
        **options: Any,
    ) -> Iterator[DriverUnderTest]:
        """Run the driver with a server at `address`."""
        engines: list[StrictEngine[Any]] = []
        self._gm_handed = 0
        hung, ended = threading.Event(), threading.Event()
        can_interrupt = hasattr(signal, "pthread_kill") and (
            threading.current_thread() is threading.main_thread()
        )

        def make_engine() -> Any:
            engine = ClientEngine(
                parse_host_list([address]),
                rng=random.SystemRandom(),
                wall_clock=time.time,
                exceptions=False,
                **{"heartbeat": None, **options},
            )
            self._gm_count_bytes(engine)
            if crashing is not None and not engines:
                _break(engine, crashing)
            engines.append(StrictEngine(engine))
            return engines[-1]

        def bark() -> None:
            hung.set()
            give_up()
            if not ended.wait(self.patience) and can_interrupt:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        self._gm_watchdog = watchdog = threading.Timer(self.patience, bark)
        watchdog.daemon = True
        driver = self.make_driver(make_engine)
        # A shell's background processes ignore SIGINT, and other tests might have changed it.
        if can_interrupt:
            old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        watchdog.start()
        failure: BaseException | None = None
        try:
            try:
                yield driver
            finally:
                driver.close()
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not hung.is_set():
                raise
            failure = error  # Something else might explain it.
        finally:
            watchdog.cancel()
            ended.set()
            if can_interrupt:
                signal.signal(signal.SIGINT, old_handler)
        if hung.is_set():
            raise AssertionError(
                f"the driver did not end its call within {self.patience} seconds: sleep only until "
                "the time of next_deadline, and process what the sockets receive"
            ) from failure
        for engine in engines:
            if engine.mistakes:
                raise engine.mistakes[0] from failure
        if failure is not None:
            raise failure
        for engine in engines:
            engine.check_end()

    def _gm_count_bytes(self, engine: Any) -> None:
        """Count the bytes that `engine` hands over."""
        data_to_send = engine.data_to_send

        def count(*args: Any) -> bytes:
            data: bytes = data_to_send(*args)
            self._gm_handed += len(data)
            return data

        engine.data_to_send = count

    def _gm_wait_for_ends(self, count: int) -> None:
        """Wait until the driver has closed all connections but `count`, at the end of a test."""
        self._gm_watchdog.cancel()
        deadline = time.monotonic() + self.patience
        while len(self._gm_open) > count:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"the driver has not closed {len(self._gm_open) - count} of its connections: "
                    "carry out each Close, also after `close` and `abandon`, and shut a socket "
                    "down before you close it"
                )
            time.sleep(_POLL)

    def _gm_status_of(self, child: int) -> int:
        """Return the exit status of `child`, and kill it if it hangs."""
        deadline = time.monotonic() + self.patience
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(_POLL)
        return os.waitstatus_to_exitcode(ended[1])

    def _gm_lose(self, driver: DriverUnderTest, data: bytes = b"data") -> None:
        """Submit a job whose connection is lost, and another one."""
        lost, requests = _requests([data]), _requests([b"again"])
        with contextlib.suppress(GearmanError):
            driver.call("submit", lost)
        _check_states(lost, constants.JOB_UNKNOWN)
        driver.call("submit", requests)
        _check_done(requests)
        self._gm_wait_for_ends(1)

    def _gm_test_cut(self, end: Callable[[Peer], object]) -> None:
        def script(peer: Peer) -> None:
            if peer.number > 0:
                _work(peer)
            peer.send_raw(_answers(peer)[:-2])
            end(peer)

        with self._gm_run(script) as driver:
            self._gm_lose(driver)

    def _gm_test_crash(self, method: str) -> None:
        def script(peer: Peer) -> None:
            if peer.number == 0 and method == "handle_timeout":
                peer.hold()
            _work(peer)

        with self._gm_run(script, crashing=method) as driver:
            requests = _requests([b"data"])
            try:
                driver.call("submit", requests, timeout=1.0 if method == "handle_timeout" else None)
            except GearmanError:
                pass
            else:
                raise AssertionError(
                    f"the engine has raised an exception in `{method}`, but the call has not: call "
                    "`abandon` of the engine, `wake` of the Waits, and `raise_error` at the end"
                )
            again = _requests([b"again"])
            driver.call("submit", again)
            _check_done(again)
            self._gm_wait_for_ends(1)


def _break(engine: Any, name: str) -> None:
    """Make a method of `engine` raise an exception while a call waits."""
    real = getattr(engine, name)

    def crash(*args: Any) -> Any:
        if engine._waits:  # noqa: SLF001 - no public attribute tells
            raise ZeroDivisionError("this bug of the engine is part of the test")
        return real(*args)

    setattr(engine, name, crash)


def _fork() -> int:
    with warnings.catch_warnings():
        # The threads of the server. The child does not use them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _require_fork() -> None:
    if not hasattr(os, "fork"):
        raise unittest.SkipTest("this system has no fork")


# The server's side.


def _answers(peer: Peer) -> bytes:
    """Receive a job, and return the packets that answer it: its data in reverse order."""
    event = peer.expect(SubmitJob)
    peer.events.clear()  # The data can be large.
    handle = b"H:%d" % next(_handles)
    send = peer.connection.send
    return send(JobCreated(handle)) + send(WorkComplete(handle, event.data[::-1]))


def _work(peer: Peer) -> None:
    """Do jobs until the driver closes the connection."""
    while True:
        peer.send_raw(_answers(peer))


# Requests.


def _requests(jobs: Iterable[bytes], max_retries: int = 0) -> list[GearmanJobRequest]:
    """Return a request for each of `jobs`, ready for `submit`."""
    requests = make_requests(
        [{"task": "reverse", "data": data} for data in jobs], max_retries=max_retries
    )
    prepare(requests, NoopEncoder)
    return requests


def _check_states(requests: list[GearmanJobRequest], state: str) -> None:
    for request in requests:
        if request.state != state:
            raise AssertionError(f"expected the state {state}, not {request!r}: {request.error!r}")


def _check_done(requests: list[GearmanJobRequest]) -> None:
    """Check that each request has its own result."""
    _check_states(requests, constants.JOB_COMPLETE)
    for request in requests:
        if request.result != request.data[::-1]:
            raise AssertionError(f"expected the data of {request!r} in reverse order as its result")
