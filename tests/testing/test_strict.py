"""A StrictEngine finds each mistake of a driver, and a driver without mistakes never sees it."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import (
    AdminEngine,
    ClientEngine,
    Close,
    Connect,
    ConnectionError,
    Engine,
    NoopEncoder,
    ServerEngine,
    WorkerEngine,
    events,
    make_requests,
    parse_host_list,
    prepare,
    text,
)
from gearman_proto.testing import DriverError, StrictEngine

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = parse_host_list(["server"])
ERROR = ConnectionError("lost")


def nothing() -> None: ...


def make_client() -> ClientEngine:
    return ClientEngine(HOSTS, rng=random.Random(1), wall_clock=lambda: 0.0)


def make_server() -> ServerEngine:
    return ServerEngine(rng=random.Random(1), wall_clock=lambda: 0.0)


class Network:
    """Correct drivers of engines that connect to a server, in memory."""

    def __init__(self) -> None:
        self.now = 0.0
        self.server: Any = StrictEngine(make_server())
        self.engines = [self.server]
        # The other end of each link, with its engine.
        self.ends: dict[Any, tuple[Any, Any]] = {}

    def add(self, engine: Any) -> Any:
        strict = StrictEngine(engine)
        self.engines.append(strict)
        return strict

    def run(self) -> None:
        """Move bytes and carry out actions until all engines would sleep, and let time pass."""
        while True in [self.carry_out(engine) for engine in self.engines]:
            self.now += 0.001
        deadlines = [engine.next_deadline() for engine in self.engines]
        self.now = max(self.now, min(each for each in deadlines if each is not None))
        for engine in self.engines:
            for link in engine.links_to_measure(self.now):
                engine.measured(link, 0)
            engine.handle_timeout(self.now)

    def carry_out(self, engine: Any) -> bool:
        """Write data and carry out one action. Return True if there was anything to do."""
        has_written = False
        for link in list(engine.links_to_write()):
            while data := engine.data_to_send(link, self.now):
                has_written = True
                if link in self.ends:
                    other, end = self.ends[link]
                    other.receive_data(end, data, self.now)
        action = engine.next_action()
        if isinstance(action, Connect):
            end = self.server.accept("memory", 1, self.now)
            self.ends[action.link] = self.server, end
            self.ends[end] = engine, action.link
            engine.connected(action.link, self.now)
        elif isinstance(action, Close) and action.link in self.ends:
            other, end = self.ends.pop(action.link)
            del self.ends[end]
            other.receive_eof(end, self.now)
        return has_written or action is not None

    def close(self) -> None:
        for engine in reversed(self.engines):
            engine.close(self.now)
            self.carry_out(engine)
        for engine in self.engines:
            engine.check_end()


def submit(client: Any, now: float, wake: Callable[[], Any] = nothing) -> Any:
    requests = make_requests([{"task": "reverse", "data": b"hello"}])
    prepare(requests, NoopEncoder)
    return client.submit(now, wake, requests)


def test_correct_drivers_of_all_engines_make_no_mistake() -> None:
    network = Network()
    client = network.add(make_client())
    worker = network.add(WorkerEngine(HOSTS, rng=random.Random(1)))
    admin = network.add(AdminEngine(HOSTS))
    served = network.server.serve(network.now, nothing)
    worker.register(network.now, b"reverse", None)
    working = worker.work(network.now, nothing)
    wait = submit(client, network.now)
    question = admin.ask(network.now, nothing, text.version())
    while not (wait.done and question.done):
        network.run()
        if (job := worker.next_job(network.now)) is not None:
            assert worker.has_jobs()
            event = events.WorkComplete(job.wire_handle, job.data[::-1])
            sent = worker.send(network.now, nothing, job, event)
            worker.release(sent, network.now)
            worker.job_done(network.now, job)
    assert [request.result for request in wait.requests] == [b"olleh"]
    client.release(wait, network.now)
    admin.release(question, network.now)
    worker.release(working, network.now)
    network.server.release(served, network.now)
    network.close()


def test_proxy_has_the_attributes_of_its_engine() -> None:
    engine = make_server()
    strict: Any = StrictEngine(engine)
    typed: Engine[Any] = StrictEngine(engine)
    assert typed.closed is False
    assert typed.notices is engine.notices
    assert strict.queue is engine.queue
    assert strict._life is engine._life
    strict.version = "7"
    assert engine.version == "7"
    assert repr(strict) == f"StrictEngine({engine!r})"
    with pytest.raises(AttributeError):
        _ = strict.missing


def test_replaced_method_of_a_proxy_can_call_the_proxy() -> None:
    strict: Any = StrictEngine(make_client())
    real = strict.next_deadline
    strict.next_deadline = lambda: (real(), "and more")
    assert strict.next_deadline() == (None, "and more")


class Mistakes:
    """Drivers of one client. Each method makes the mistake of its name, and no other."""

    def __init__(self) -> None:
        self.engine: Any = StrictEngine(make_client())
        self.woken: list[int] = []

    def pump(self) -> Any:
        """Carry out the actions, and return the last link to connect."""
        link = None
        while (action := self.engine.next_action()) is not None:
            link = action.link
        list(self.engine.links_to_write())
        return link

    def begin(self, wake: Callable[[], Any] = nothing) -> Any:
        self.wait = submit(self.engine, 1.0, wake)
        return self.pump()

    def connect(self, wake: Callable[[], Any] = nothing) -> Any:
        link = self.begin(wake)
        self.engine.connected(link, 1.0)
        self.pump()
        while self.engine.data_to_send(link, 1.0):
            pass
        self.pump()
        return link

    def call_inside_wake(self) -> None:
        self.begin(lambda: self.engine.release(self.wait, 1.0))
        self.engine.close(1.0)

    def call_inside_a_call(self) -> None:
        inner = self.engine._gm_engine
        inner.next_deadline = self.engine.next_action
        self.engine.next_deadline()

    def clock_backwards(self) -> None:
        self.begin()
        self.engine.handle_timeout(0.5)

    def clock_backwards_of_a_call(self) -> None:
        self.engine.handle_timeout(2.0)
        self.begin()

    def no_number(self) -> None:
        self.engine.handle_timeout(float("nan"))

    def actions_left_at_sleep(self) -> None:
        submit(self.engine, 1.0)
        self.engine.links_to_write()
        self.engine.next_deadline()

    def actions_left_by_data_to_send(self) -> None:
        link = self.connect()
        self.engine.data_to_send(link, 1.0)
        self.engine.next_deadline()

    def actions_left_by_release(self) -> None:
        self.connect()
        self.engine.release(self.wait, 1.0)
        self.engine.next_deadline()

    def actions_left_at_the_next_frame(self) -> None:
        self.engine.handle_timeout(1.0)
        self.engine.handle_timeout(2.0)

    def output_left_at_sleep(self) -> None:
        link = self.begin()
        self.engine.connected(link, 1.0)
        self.engine.next_action()
        self.engine.next_deadline()

    def data_before_connected(self) -> None:
        self.engine.receive_data(self.begin(), b"", 1.0)

    def data_after_eof(self) -> None:
        link = self.connect()
        self.engine.receive_eof(link, 1.0)
        self.engine.receive_data(link, b"", 1.0)

    def data_after_the_loss(self) -> None:
        link = self.connect()
        self.engine.connection_lost(link, ERROR, 1.0)
        self.engine.connection_lost(link, ERROR, 1.0)  # It is ignored.
        self.engine.receive_data(link, b"", 1.0)

    def data_after_connect_failed(self) -> None:
        link = self.begin()
        self.engine.connect_failed(link, ERROR, 1.0)
        self.engine.receive_data(link, b"", 1.0)

    def data_after_close(self) -> None:
        link = self.connect()
        self.engine.close(1.0)
        self.pump()
        self.engine.receive_eof(link, 1.0)  # It is ignored.
        self.engine.receive_data(link, b"", 1.0)

    def data_of_another_engine(self) -> None:
        link = self.connect()
        self.engine = StrictEngine(make_client())
        self.engine.connection_lost(link, ERROR, 1.0)  # It is ignored.
        self.engine.receive_data(link, b"", 1.0)

    def connected_after_close(self) -> None:
        link = self.begin()
        self.engine.connecting(link, 1.0)
        self.engine.close(1.0)
        self.pump()
        self.engine.connected(link, 1.0)

    def data_despite_backlog(self) -> None:
        self.engine = StrictEngine(make_server())
        link = self.engine.accept("memory", 1, 1.0)
        many = b"\0REQ\0\0\0\x10\0\0\0\0" * 100_000
        self.engine.receive_data(link, many, 1.0)
        self.engine.receive_data(link, many, 1.0)

    def data_before_the_handshake(self) -> None:
        self.engine = StrictEngine(make_server())
        link = self.engine.accept("memory", 1, 1.0, handshake=True)
        self.engine.receive_data(link, b"", 1.0)

    def measured_a_punctual_link(self) -> None:
        link = self.connect()
        assert self.engine.links_to_measure(1.0) == []
        self.engine.measured(link, 0)

    def broken_engine_in_use(self) -> None:
        def broken(now: float) -> None:
            raise ZeroDivisionError

        self.engine._gm_engine.handle_timeout = broken
        with contextlib.suppress(ZeroDivisionError):
            self.engine.handle_timeout(1.0)
        self.engine.next_action()

    def type_error_of_the_transport_side(self) -> None:
        link = self.connect()
        with contextlib.suppress(TypeError):
            self.engine.receive_data(link, None, 1.0)
        self.engine.next_deadline()

    def abandoned_engine_in_use(self) -> None:
        self.begin()
        self.abandon()
        self.engine.release(self.wait, 1.0)  # It is ignored.
        self.begin()

    def wait_not_released(self) -> None:
        self.begin()
        self.engine.close(1.0)
        self.engine.check_end()

    def wait_of_a_refused_call_not_released(self) -> None:
        self.engine.close(1.0)
        self.begin()
        self.engine.check_end()

    def not_closed(self) -> None:
        self.engine.check_end()

    def callers_not_woken(self) -> None:
        self.begin()
        self.engine.abandon(ERROR)
        self.engine.check_end()

    def suppressed_error(self) -> None:
        with contextlib.suppress(DriverError):
            self.engine.receive_data(self.begin(), b"", 1.0)
        self.engine.check_end()

    def abandon(self) -> None:
        for wait in self.engine.abandon(ERROR):
            wait.wake()


#: The texts of the errors. Each names the call, the mistake and the cure.
TEXTS: dict[Any, str] = {
    Mistakes.call_inside_wake: (
        "`wake` has called `release` in the middle of `close`; `wake` must only wake"
    ),
    Mistakes.call_inside_a_call: (
        "`next_action` was called in the middle of `next_deadline`; make one call at a time"
    ),
    Mistakes.clock_backwards: (
        "`handle_timeout` was called at 0.5, after a call at 1.0; get all times from one monotonic"
    ),
    Mistakes.clock_backwards_of_a_call: "`submit` was called at 1.0, after a call at 2.0; ",
    Mistakes.no_number: "`handle_timeout` was called at nan, after a call at -inf; ",
    Mistakes.actions_left_at_sleep: (
        "`next_deadline` was called, but not `next_action` after `submit`; carry out the actions"
    ),
    Mistakes.actions_left_by_data_to_send: "but not `next_action` after `data_to_send`; ",
    Mistakes.actions_left_by_release: "but not `next_action` after `release`; ",
    Mistakes.actions_left_at_the_next_frame: (
        "`handle_timeout` was called, but not `next_action` after `handle_timeout`; "
    ),
    Mistakes.output_left_at_sleep: (
        "`next_deadline` was called, but not `links_to_write` after `connected`; write the data"
    ),
    Mistakes.data_before_connected: (
        "`receive_data` was called before `connected`: <ClientLink to server:4730, connecting>; "
        "report `connected` first"
    ),
    Mistakes.data_after_eof: (
        "`receive_data` was called after `receive_eof`: <ClientLink to server:4730, gone>; "
        "read no more"
    ),
    Mistakes.data_after_the_loss: "after the report of its end: <ClientLink to server:4730, gone>;",
    Mistakes.data_after_connect_failed: "after the report of its end: <ClientLink to server:4730",
    Mistakes.data_after_close: (
        "`receive_data` was called after `next_action` had returned its Close: <ClientLink to "
        "server:4730, gone>; close the socket"
    ),
    Mistakes.data_of_another_engine: "from a link of another engine: <ClientLink to server:4730, g",
    Mistakes.connected_after_close: "`connected` was called after `next_action` had returned its C",
    Mistakes.data_despite_backlog: "has a backlog; do not read from a link while",
    Mistakes.data_before_the_handshake: "`receive_data` was called before `connected`: ",
    Mistakes.measured_a_punctual_link: "which is not late; measure the links that the last call of",
    Mistakes.broken_engine_in_use: (
        "`next_action` was called although `handle_timeout` has raised ZeroDivisionError(); call "
        "`abandon`"
    ),
    Mistakes.type_error_of_the_transport_side: (
        "`next_deadline` was called although `receive_data` has raised TypeError"
    ),
    Mistakes.abandoned_engine_in_use: "`submit` was called after `abandon`; make a new engine",
    Mistakes.wait_not_released: "the Wait of `submit` was not released; call `release` as soon as",
    Mistakes.wait_of_a_refused_call_not_released: "the Wait of `submit` was not released; ",
    Mistakes.not_closed: "the engine was not closed; call `close` at the end",
    Mistakes.callers_not_woken: "`wake` of `submit` was not called after `abandon`; call `wake` of",
    Mistakes.suppressed_error: "`receive_data` was called before `connected`: ",
}


@pytest.mark.parametrize("mistake", TEXTS, ids=lambda mistake: mistake.__name__)
def test_mistake_is_found(mistake: Callable[[Mistakes], None]) -> None:
    driver = Mistakes()
    with pytest.raises(DriverError) as caught:
        mistake(driver)
    assert TEXTS[mistake] in str(caught.value)
    assert driver.engine.mistakes == [caught.value]


def test_refused_argument_leaves_the_engine_usable() -> None:
    driver = Mistakes()
    with pytest.raises(TypeError):
        driver.engine.submit(0.0, nothing, [], timeout="soon")
    driver.engine.close(0.0)
    driver.engine.check_end()


def test_abandoned_engine_needs_neither_close_nor_release() -> None:
    driver = Mistakes()
    woken: list[int] = []
    driver.connect(lambda: woken.append(1))
    driver.abandon()
    driver.abandon()  # As after an interrupted one.
    driver.engine.check_end()
    assert woken


def test_interrupted_proxy_can_be_abandoned() -> None:
    driver = Mistakes()
    driver.engine._gm_current = "submit"  # A signal handler has raised an exception here.
    driver.abandon()
    driver.engine.check_end()


def test_abandoned_engine_that_was_closed_can_be_asked_for_its_end() -> None:
    engine: Any = StrictEngine(make_server())
    engine.abandon(ERROR)
    assert engine.next_action() is None
    engine.close(0.0)
    engine.check_end()


def test_replaced_wake_need_not_be_called() -> None:
    driver = Mistakes()
    driver.begin()
    woken: list[int] = []
    driver.wait.wake = lambda: woken.append(1)
    driver.abandon()
    driver.engine.check_end()
    assert woken == [1]
