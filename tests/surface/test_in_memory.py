"""The surface's own behaviour, with an in-memory adapter that passes calls to engines."""

from __future__ import annotations

import copy
import functools
import logging
import math
import pickle
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import (
    AdminEngine,
    ClientEngine,
    Connect,
    GearmanJobRequest,
    HostAndPort,
    NoopEncoder,
    Server,
    ServerAddress,
    ServerEngine,
    WorkerEngine,
    WorkerJob,
    surface,
)
from gearman_proto.engines.driver import BaseDriver
from gearman_proto.engines.waits import RequestsWait
from gearman_proto.engines.worker.outcomes import exc_info_of
from gearman_proto.errors import ArgumentValueError, InvalidClientState, ServerUnavailable
from gearman_proto.jobs.batch import SLICE, Batch, untouched
from gearman_proto.jobs.submitting import finish
from gearman_proto.surface.client import cancelling, make_job
from gearman_proto.surface.worker import Ability, check_main_thread
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    CanDoTimeout,
    Event,
    GetStatus,
    GetStatusUnique,
    GrabJobUniq,
    JobAssignUniq,
    Role,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.support import PATIENCE, spawn

if TYPE_CHECKING:
    from collections.abc import Callable


class Driver(BaseDriver[Any]):
    """A driver that calls an engine at time 0 and transfers no data."""

    def __init__(self, engine: Any) -> None:
        super().__init__(lambda: engine, logging.getLogger("gearman"))

    def call(self, function: Callable[[Any, float], Any]) -> Any:
        return function(self.engine, 0.0)

    apply = call_or_post = call

    def run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return getattr(self.engine, method.__name__)(0.0, lambda: None, *args, **options)


class Client(surface.Client[Server, object]):
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self.options = options
        self._gm_driver = Driver(
            ClientEngine(addresses, rng=random.Random(1), wall_clock=lambda: 0.0, **options)
        )


class Worker(surface.Worker[Server, object]):
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self.options = options
        make = functools.partial(WorkerEngine, addresses, rng=random.Random(1), **options)
        self._gm_driver = Driver(self._gm_engines(make)())


class AdminClient(surface.AdminClient[Server, object]):
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self.options = options
        self._gm_driver = Driver(AdminEngine(addresses, **options))


class JobServer(surface.JobServer[object]):
    def _gm_setup(self, options: dict[str, Any], ssl_context: object | None) -> None:
        self.options = options
        self._gm_driver = Driver(
            ServerEngine(rng=random.Random(1), wall_clock=lambda: 0.0, pid=1, **options)
        )


def concrete(kind: Any) -> Any:
    """Return the class without its abstract methods, which these tests do not use."""
    kind.__abstractmethods__ = frozenset()
    return kind


make_client, make_worker = concrete(Client), concrete(Worker)
make_admin_client, make_job_server = concrete(AdminClient), concrete(JobServer)


# The client.


@pytest.mark.parametrize("make", [make_client, make_worker])
def test_empty_host_list_is_refused(make: Callable[..., Any]) -> None:
    empty: list[Any] = [(), [], iter(())]
    for hosts in empty:
        with pytest.raises(ArgumentValueError, match=r"^host_list is empty: it must have at least"):
            make(hosts)


def test_a_client() -> None:
    client = make_client(["one:1", {"host": "two", "ssl_context": "own"}], 8, ssl_context="context")
    assert repr(client) == "<Client [one:1, two:4730]>"
    assert [server.address.ssl_context for server in client.connection_list] == ["context", "own"]
    assert client.connection_list is not client.connection_list
    assert client.data_encoder is NoopEncoder
    assert client.options == {
        "routing": "random",
        "unique_bytes": 8,
        "connect_timeout": 10.0,
        "exceptions": True,
        "max_packet_size": 256 * 1024 * 1024,
        "heartbeat": 30.0,
        "max_abandoned": 64 * 1024 * 1024,
        "warn_after": 10.0,
    }
    with pytest.raises(ValueError, match="routing"):
        make_client(routing="round")
    assert client._gm_check([], 5) == 5.0
    with pytest.raises(TypeError, match="list"):
        client._gm_check(None, 5)


def test_updates_are_for_foreground_requests() -> None:
    client = make_client(["one:1"])
    foreground, background = (
        finish(client._gm_requests_of([{"task": "t", "data": b"x"}], background, 0, {}))[0]
        for background in (False, True)
    )
    assert client._gm_check_followed(foreground, 5) == 5.0
    assert client._gm_check_followed([foreground], None) is None
    for wrong in (background, [foreground, background]):
        with pytest.raises(ValueError, match="background"):
            client._gm_check_followed(wrong, None)


def test_results_take_iterables_and_make_requests_one_by_one() -> None:
    client = make_client(["one:1"])
    make = client._gm_maker(iter([]), 1, True, 2)
    request = make({"task": "t", "data": b"x"})
    assert (request.background, request.max_connection_attempts) == (True, 3)
    assert request._gm_payload == b"x"
    with pytest.raises(ValueError, match="data"):
        make({"task": "t"})

    class Async:
        def __aiter__(self) -> None: ...

    client._gm_maker(Async(), 1, False, 0, can_be_async=True)
    for jobs, window, retries in [(Async(), 1, 0), ([], 0, 0), ([], 1, -1)]:
        with pytest.raises((TypeError, ValueError)):
            client._gm_maker(jobs, window, False, retries)


def test_only_submitted_requests_can_be_cancelled() -> None:
    client = make_client(["one:1"])
    assert client._gm_check_cancelled(GearmanJobRequest.from_handle("H:1"), 5) == 5.0
    with pytest.raises(TypeError):
        client._gm_check_cancelled("H:1", None)
    assert cancelling(True) == {"cancel_if_abandoned": True}
    assert cancelling(False) == {}


def test_client_finds_its_servers() -> None:
    client = make_client(["one:1", "two"])
    first, second = client.connection_list
    assert client._gm_find("one:1") is client._gm_find(first) is first
    assert client._gm_find(("two", 4730)) is second
    with pytest.raises(InvalidClientState):
        client._gm_find("three")


def submit(client: Any, requests: Any) -> RequestsWait:
    """Submit requests as `submit_multiple_requests` does."""
    assert finish(client._gm_prepare(requests, 5)) == 5.0
    wait: RequestsWait = client._gm_driver.run(ClientEngine.submit, requests, accepted_only=True)
    return wait


def test_status_queries_use_the_servers_of_the_client() -> None:
    client = make_client(["one:1", "two:2"])
    first, second = client.connection_list
    known = GearmanJobRequest.from_handle("H:1", "one:1")
    somewhere = GearmanJobRequest.from_unique("u")
    queries = client._gm_status_queries([known, somewhere], 0)
    assert queries == [
        (known, GetStatus(b"H:1"), [first]),
        (somewhere, GetStatusUnique(b"u"), [first, second]),
    ]


def test_requests_of_many_jobs_are_created_lazily() -> None:
    """Create the requests of many jobs lazily, and those of a few jobs at once."""
    client = make_client(["one:1"])
    jobs = [{"task": "t", "data": b"x"}] * (SLICE + 1)
    many = finish(client._gm_requests_of(jobs, True, 2, {}))
    assert untouched(many) is not None
    accepted = submit(client, many)
    assert isinstance(accepted, RequestsWait)
    assert accepted.unaccepted == len(many) == SLICE + 1
    assert accepted.members == ()
    assert client._gm_batch_of(many) is many
    few = finish(client._gm_requests_of(jobs[:1], True, 2, {}))
    (request,) = few
    assert (request.background, request.max_connection_attempts) == (True, 3)
    assert type(client._gm_batch_of(few)) is Batch
    assert client._gm_batch_of(few)[0] is request


def test_changed_requests_of_many_jobs_are_checked_again() -> None:
    """Check the requests again if an application's `submit_multiple_requests` changed them."""
    client = make_client(["one:1"])
    jobs = [{"task": "t", "data": b"x"}] * (SLICE + 1)
    many = finish(client._gm_requests_of(jobs, True, 2, {}))
    many[SLICE].data = b"changed"
    accepted = submit(client, many)
    assert many[SLICE]._gm_payload == b"changed"
    assert {request.state for request in many} == {"PENDING"}
    assert many == list(accepted.requests)
    bad = finish(client._gm_requests_of(jobs, True, 2, {}))
    bad[SLICE].unique = "u" * 100
    with pytest.raises(ValueError, match="unique"):
        finish(client._gm_prepare(bad, None))


def test_requests_of_many_jobs_are_reused_for_a_retry() -> None:
    """Submit the same requests again after no server has accepted them."""
    client = make_client(["one"])
    client._gm_setup([], client.options)
    many = finish(client._gm_requests_of([{"task": "t", "data": b"x"}] * (SLICE + 1), True, 0, {}))
    for _ in range(2):
        wait = submit(client, many)
        assert wait.done
        assert all(request._gm_payload is None for request in many)
        with pytest.raises(ServerUnavailable) as caught:
            wait.raise_error()
        assert list(caught.value.job_requests) == list(many)


def test_make_job_omits_defaults() -> None:
    assert make_job("t", b"x", None, None, None, None) == {"task": "t", "data": b"x"}
    special: dict[str, Any] = {"task": "t", "data": b"x", "unique": "u", "priority": "LOW"}
    special.update(run_at=5.0, reducer="r")
    assert make_job("t", b"x", "u", "LOW", 5.0, "r") == special


# Copies.


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda thing: pickle.loads(pickle.dumps(thing)),
]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("make", [make_client, make_worker, make_admin_client])
def test_copy_has_the_same_options(make: Any, copied: Callable[[Any], Any]) -> None:
    original = make(["one:1"], connect_timeout=3.0)
    original.data_encoder, original.mine = "an encoder", [1]
    other = copied(original)
    assert (type(other), repr(other), other.options) == (
        type(original),
        repr(original),
        original.options,
    )
    assert (other.data_encoder, other.mine) == ("an encoder", [1])
    assert other._gm_driver.engine is not original._gm_driver.engine


@pytest.mark.parametrize("copied", COPIES)
def test_copy_of_a_worker_has_its_tasks(copied: Callable[[Any], Any]) -> None:
    worker = make_worker(["one:1"])
    worker.register_task("reverse", reverse, 2.5)
    worker.set_client_id("me")
    other = copied(worker)
    worker.unregister_task("reverse")
    worker.register_task("later", reverse)
    assert (other.worker_abilities, other.worker_client_id) == ({"reverse": reverse}, "me")
    other._gm_driver.run(WorkerEngine.work)
    told = Peer(other._gm_driver.engine).receive()
    assert told == [SetClientId(b"me"), CanDoTimeout(b"reverse", b"2500"), GrabJobUniq()]


@pytest.mark.parametrize("copied", COPIES)
def test_connected_client_cannot_be_copied(copied: Callable[[Any], Any]) -> None:
    client = make_client(["one:1"])
    client._gm_driver.run(ClientEngine.connect, client.connection_list[0])
    closed = make_client(["one:1"])
    closed._gm_driver.apply(lambda engine, now: engine.close(now))
    for each in (client, closed):
        with pytest.raises(TypeError, match="has connected"):
            copied(each)


# The worker.


def reverse(worker: Any, job: WorkerJob) -> Any:
    return job.data[::-1]


class Peer:
    """The server of a running worker."""

    def __init__(self, engine: WorkerEngine) -> None:
        action = engine.next_action()
        assert isinstance(action, Connect)
        self.link = action.link
        self._engine = engine
        self._connection = Connection(Role.SERVER)
        engine.connected(self.link, 0.0)

    def receive(self) -> list[Event]:
        self._connection.receive_data(self._engine.data_to_send(self.link, 0.0))
        events: list[Event] = []
        while isinstance(event := self._connection.next_event(), Event):
            events.append(event)
        return events

    def send(self, event: Event) -> None:
        self._engine.receive_data(self.link, self._connection.send(event), 0.0)


def test_a_worker() -> None:
    worker = make_worker(["one:1"], max_jobs=2, ssl_context="context")
    assert repr(worker) == "<Worker [one:1] >"
    assert worker.options == {
        "max_jobs": 2,
        "connect_timeout": 10.0,
        "max_outage": 60.0,
        "poll_interval": 5.0,
        "max_packet_size": 256 * 1024 * 1024,
    }
    assert worker.register_task("a", reverse) == "a"
    assert worker.register_task(b"b", reverse, timeout=1.5) == "b"
    assert repr(worker) == "<Worker [one:1] a, b>"
    assert worker.unregister_task("a") == "a"
    assert worker.unregister_task("unknown") == "unknown"
    assert worker.worker_abilities == {"b": reverse}
    # The server might still assign jobs of the unregistered task.
    assert worker._gm_registered == {
        "a": Ability(reverse, None, False),
        "b": Ability(reverse, 1.5, False),
    }
    assert worker.set_client_id("me") == worker.worker_client_id == "me"
    assert worker.has_job_lock() is False
    worker.pause()
    worker.pause("c")
    worker.resume(b"c")
    worker.pause("a")
    assert worker._gm_paused == {None, "a"}
    engine = WorkerEngine([], rng=random.Random(1))
    worker._gm_introduce(engine)
    assert engine._paused == worker._gm_driver.engine._paused == {None, b"a"}
    worker.resume()
    assert worker._gm_paused == {"a"}
    assert (worker.after_job(), worker.after_poll(False)) == (True, True)


def test_worker_refuses_wrong_arguments() -> None:
    worker = make_worker(["one:1"])
    bad: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ValueError, lambda: worker.register_task("a\0b", reverse)),
        (TypeError, lambda: worker.register_task("a", None)),
        (TypeError, lambda: worker.register_task("a", reverse, "1")),
        (ValueError, lambda: worker.register_task("a", reverse, 0)),
        (TypeError, lambda: worker.unregister_task(5)),
        (TypeError, lambda: worker.pause(5)),
        (ValueError, lambda: worker.resume("a\0b")),
        (ValueError, lambda: worker.set_client_id("x" * 128)),
        (TypeError, lambda: worker._gm_make_stop("1")),
        (TypeError, lambda: worker._gm_failure(None)),
    ]
    for error, call in bad:
        with pytest.raises(error):
            call()
    assert (worker.worker_abilities, worker._gm_registered) == ({}, {})
    assert worker.worker_client_id is None


def test_only_the_main_thread_can_handle_signals() -> None:
    check_main_thread()
    thread = spawn(check_main_thread)
    with pytest.raises(RuntimeError, match=r"call work\(\) in this thread"):
        thread.result(PATIENCE)


def test_engine_is_replaced_after_its_worker_is_gone() -> None:
    """The driver doesn't keep the worker alive, and its finalizer might still need an engine."""
    worker = make_worker(["one:1"])
    worker.register_task("a", reverse)
    remembered = weakref.ref(worker)
    make = worker._gm_engines(lambda: WorkerEngine([], rng=random.Random(1)))
    del worker
    assert remembered() is None
    assert isinstance(make(), WorkerEngine)


def test_a_job(caplog: pytest.LogCaptureFixture) -> None:
    worker = make_worker(["one:1"])
    worker.register_task("a", reverse)
    stream = worker._gm_driver.run(WorkerEngine.work)
    peer = Peer(worker._gm_driver.engine)
    peer.receive()
    peer.send(JobAssignUniq(b"H:1", b"a", b"u", b"in"))
    job = worker._gm_driver.call(WorkerEngine.next_job)
    assert worker.has_job_lock() is True
    for packet in (WorkData, WorkWarning, WorkException):
        assert worker._gm_data(packet, job, "out") == packet(b"H:1", b"out")
    assert worker._gm_result(job, "out") == WorkComplete(b"H:1", b"out")
    assert worker._gm_returned(job, "out") == [WorkComplete(b"H:1", b"out")]
    assert worker._gm_status(job, 1, "2") == WorkStatus(b"H:1", b"1", b"2")
    assert worker._gm_raised(job, exc_info_of(OSError("gone"))) == [
        WorkWarning(b"H:1", b"OSError: gone"),
        WorkFail(b"H:1"),
    ]
    caplog.clear()
    with pytest.raises(TypeError):
        worker._gm_data(WorkData, job, 5)
    worker._gm_driver.run(WorkerEngine.send, job, WorkComplete(b"H:1", b"out"))
    assert peer.receive() == [WorkComplete(b"H:1", b"out")]
    worker._gm_driver.log_notices()
    assert not caplog.records
    worker._gm_driver.engine.connection_lost(peer.link, OSError("gone"), 0.0)
    worker._gm_driver.apply(worker._gm_make_stop(5))
    worker._gm_driver.log_notices()
    worker._gm_driver.log_notices()
    ((level, message),) = [(each.levelno, each.getMessage()) for each in caplog.records]
    assert (level, "no connection to one:1: gone" in message) == (logging.WARNING, True)
    assert not stream.done
    worker._gm_driver.apply(lambda engine, now: engine.job_done(now, job))
    assert stream.done


def test_worker_with_an_after_job_hook_does_not_end_at_once() -> None:
    class Plain(Worker):
        pass

    class Hooked(Plain):
        def after_job(self) -> bool:
            return True

    for kind, at_once in ((Worker, True), (Plain, True), (Hooked, False)):
        worker = concrete(kind)(["one:1"])
        worker._gm_look_at_hooks()
        assert worker._gm_ends_at_once is at_once
    worker = make_worker(["one:1"])
    worker.after_job = lambda: True
    worker._gm_look_at_hooks()
    assert worker._gm_ends_at_once is False


# The admin client.


def test_an_admin_client() -> None:
    client = make_admin_client(["one:1"], 5, ssl_context="context")
    assert repr(client) == "<AdminClient one:1>"
    (server,) = client.connection_list
    assert server.address == ServerAddress("one", 1, ssl_context="context")
    assert client.options == {"connect_timeout": 10.0, "max_reply_size": 128 * 1024 * 1024}
    assert repr(make_admin_client()) == "<AdminClient localhost:4730>"
    with pytest.raises(ValueError, match="nan"):
        make_admin_client(poll_timeout=math.nan)


# The job server.


def test_job_server_options_and_address() -> None:
    server = make_job_server(port=1, max_queue_size=5)
    assert server.options.pop("version").startswith("gearman-sansio-")
    assert server.options == {
        "job_retries": 10,
        "max_packet_size": 256 * 1024 * 1024,
        "max_unread": 64 * 1024 * 1024,
        "max_memory": 1024 * 1024 * 1024,
        "max_queue_size": 5,
        "max_abilities": 10_000,
        "exceptions": False,
    }
    assert repr(server) == "<JobServer not started>"
    for name in ("address", "port"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(server, name)
    server._gm_address = HostAndPort("one", 1)
    assert (repr(server), server.address, server.port) == ("<JobServer one:1>", ("one", 1), 1)
    with pytest.raises(TypeError, match="wall_clock is a function, not 1"):
        make_job_server(wall_clock=1)
