"""Odd arguments in memory: one for a constructor, and several at once for a method.

The client and the worker are those of gearman_sync. Their driver connects the engine to a scripted
server and handles exceptions as real drivers do. In tests/contract, a list of values is passed to
all adapters.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gearman_anyio
import gearman_sync
from gearman_proto import GearmanError, GearmanJobRequest, WorkerEngine
from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    GetStatus,
    GetStatusUnique,
    JobAssignUniq,
    JobCreated,
    StatusRes,
    StatusResUnique,
    WorkComplete,
)
from gearman_sync._driver import Call
from tests.contract.test_odd_arguments import good_arguments, parameters
from tests.engines.harness import Peer, World
from tests.profiles import examples
from tests.support import odd

from .test_in_memory import Peer as ServerPeer
from .test_in_memory import (
    make_admin_client,
    make_client,
    make_job_server,
    make_worker,
    reverse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import ServerAddress
    from gearman_proto.wire.packets import Event

CLEAR: Final = (TypeError, ValueError, GearmanError, odd.StubbornError)


# Constructors.

MAKERS: dict[str, Callable[..., Any]] = {
    "Client": make_client,
    "Worker": make_worker,
    "AdminClient": make_admin_client,
    "JobServer": make_job_server,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_constructors_refuse_odd_values(kind: str) -> None:
    """Refuse wrong arguments in the constructor, not when the object connects."""
    make = MAKERS[kind]
    refused: set[str] = set()
    names = [name for name in inspect.signature(make).parameters if name != "self"]
    for name in names:
        for value in odd.VALUES:
            # An admin client has exactly one server.
            options: dict[str, Any] = {} if kind == "JobServer" else {"host_list": ["h"]}
            try:
                made = make(**{**options, name: value})
            except CLEAR as error:
                refused.add(name)
                assert isinstance(error, odd.StubbornError) or str(error)  # noqa: PT017 - may pass
            else:
                assert repr(made)
    # Flags accept any truth value. Only an adapter with the module `ssl` checks the context.
    assert set(names) - refused <= {"exceptions", "ssl_context"}


NUMBERS: list[tuple[str, str, list[Any], list[Any]]] = [
    ("Client", "max_packet_size", [63, 0, -1, 2**32, 2**70, "1000", 1e6, True, None], [64, 1000]),
    ("Client", "random_unique_bytes", [0, 32, True, None, "8", 8.0], [1, 31]),
    ("Client", "connect_timeout", [0, 1e-9, -1, float("nan"), True, None, "1"], [1e-3, 5, 1e9]),
    ("Client", "heartbeat", [0, 0.05, -1, float("nan"), True, "30"], [None, 0.1, 30]),
    ("Client", "max_abandoned", [-1, True, None, "1", 1e6], [0, 1000]),
    ("Worker", "look_again", [0, 1e-9, 0.0099, -1, float("nan"), True, None, "5"], [0.01, 5, 1e9]),
    ("Worker", "max_outage", [-1, float("nan"), True, "5"], [0, 0.5, None]),
    ("Worker", "max_jobs", [0, -1, True, 1.0, None, "1"], [1, 1000]),
    ("Worker", "max_packet_size", [0, "1", 2**32], [64]),
    ("AdminClient", "max_reply_size", [0, -1, "1", None, True, 1e6], [1, 1000]),
    ("AdminClient", "poll_timeout", [True, "1", float("nan")], [None, 0, -1, float("inf")]),
    ("JobServer", "port", [-1, 65536, "1", None, True, 1.0], [0, 65535]),
    ("JobServer", "host", [None, 5, b"h", ["h"]], ["h"]),
    ("JobServer", "job_retries", [-1, True, "1", 1.0], [None, 0]),
    ("JobServer", "max_packet_size", [0, 63, 2**31, "1"], [64]),
    ("JobServer", "max_unread", [0, "1", None], [1]),
    ("JobServer", "max_memory", [0, "1", None], [1]),
    ("JobServer", "max_queue_size", [-1, "1", None, True], [0]),
]


@pytest.mark.parametrize(("kind", "name", "bad", "good"), NUMBERS)
def test_number_out_of_range_is_named(
    kind: str, name: str, bad: list[Any], good: list[Any]
) -> None:
    options: dict[str, Any] = {} if kind == "JobServer" else {"host_list": ["h"]}
    for value in bad:
        # The error names the argument.
        with pytest.raises((TypeError, ValueError), match=f"^{name} is "):
            MAKERS[kind](**options, **{name: value})
    for value in good:
        MAKERS[kind](**options, **{name: value})


@pytest.mark.parametrize("kind", ["GearmanClient", "GearmanWorker", "GearmanAdminClient"])
def test_connect_that_is_not_a_function_is_refused(kind: str) -> None:
    bad: list[Any] = [5, "host", [], 0, False]
    for value in bad:
        with pytest.raises(TypeError, match="connect is a function that opens a stream"):
            getattr(gearman_anyio, kind)(["h"], connect=value)


def test_request_of_odd_values_raises_only_clear_errors() -> None:
    for value in odd.VALUES:
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest(value)
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest.from_handle(value)
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest.from_unique("u", value)
    job = gearman_sync.GearmanJob(None, None, "t", None, b"")
    bad: list[Any] = [0, -1, True, "1", None, 1.5]
    for value in bad:
        with pytest.raises((TypeError, ValueError), match="max_attempts is "):
            GearmanJobRequest(job, max_attempts=value)
    with pytest.raises(TypeError, match="a request is made of a GearmanJob, not None"):
        GearmanJobRequest(None)  # type: ignore[arg-type]


def test_enum_name_is_replaced_by_its_value() -> None:
    job = gearman_sync.GearmanJob(None, odd.Name.ODD, odd.Name.ODD, odd.Name.ODD, b"")
    assert (job.handle, job.task, job.unique) == ("odd", "odd", "odd")
    assert {type(name) for name in (job.handle, job.task, job.unique)} == {str}


# Methods of a client.


class Driver:
    """A driver that runs a client's engine with a server that acknowledges jobs but runs none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = world.engine
        self.handles: list[bytes] = []

    def call(self, function: Callable[..., Any]) -> Any:
        try:
            return function(self.engine, 0.0)
        except BaseException as error:
            self.engine.abandon(error)  # type: ignore[arg-type]
            raise

    def begin(self, call: Any, method: Any, *args: Any, **options: Any) -> None:
        def begin(engine: Any, now: float) -> Any:
            return getattr(engine, method.__name__)(now, call.bell.ring, *args, **options)

        call.wait = self.call(begin)

    def block(self, wait: Any, bell: object) -> None:
        """Expire the wait's timeout, since the server has sent all its data."""
        self.serve()
        if not wait.ready:
            wait.expire(0.0)

    def during(self, body: Any, method: Any, *args: Any, **options: Any) -> Any:
        call: Call[Any] = Call(self)  # type: ignore[arg-type]
        try:
            call.begin(method, *args, **options)
            return body(call)
        finally:
            self.over(call.wait)

    def run(self, method: Any, *args: Any, **options: Any) -> None:
        self.during(Call.block, method, *args, **options).raise_error()

    def over(self, wait: Any) -> None:
        if wait is not None:
            self.engine.release(wait, 0.0)

    def tidy(self) -> None:
        """Do nothing: `over` has released the wait."""

    def close(self) -> None:
        """Do nothing, since the driver has no sockets."""

    def serve(self) -> Peer:
        server = self.world.serve()
        for event in server.take():
            if isinstance(event, GetStatus):
                server.send(StatusRes(event.handle, b"0", b"0", b"0", b"0"))
            elif isinstance(event, GetStatusUnique):
                server.send(StatusResUnique(event.unique, b"0", b"0", b"0", b"0", b"0"))
            else:
                self.handles.append(b"H:%d" % len(self.handles))
                server.send(JobCreated(self.handles[-1]))
        return server


class Client(gearman_sync.GearmanClient):
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self.world = World(addresses, **options)
        # The attributes of an odd request may contradict each other.
        self.world.check = lambda: None  # type: ignore[method-assign]
        self._gm_driver: Any = Driver(self.world)


class Odd(NamedTuple):
    """The index of one of odd.VALUES, since Hypothesis cannot print all of those values."""

    number: int


def given_as(value: Any) -> Any:
    """Return the value that an example represents."""
    if isinstance(value, Odd):
        return odd.VALUES[value.number]
    if isinstance(value, list):
        return [given_as(each) for each in value]
    if isinstance(value, dict):
        return {name: given_as(each) for name, each in value.items()}
    return value


ODD = st.builds(Odd, st.integers(0, len(odd.VALUES) - 1))
ANYTHING = st.one_of(
    ODD,
    st.floats(),
    st.integers(),
    st.text(max_size=100),
    st.binary(max_size=100),
    st.lists(ODD, max_size=3),
    st.dictionaries(st.sampled_from(["task", "data", "unique", "host"]), ODD),
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(good_arguments(Client(["h"]), "t"))))
    names = parameters(getattr(Client, name))[1:]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return name, {each: draw(ANYTHING) for each in chosen}


def held(client: Client) -> tuple[GearmanJobRequest, bytes]:
    """Submit a job. Return its request, which stays in flight, and its handle."""
    request: GearmanJobRequest = client.submit_job("held", b"in", wait_until_complete=False)
    assert request.state == JOB_CREATED
    return request, client._gm_driver.handles[-1]


@given(st.lists(calls(), min_size=1, max_size=5), st.sampled_from(["random", "unique"]))
@settings(examples(3, suppress_health_check=[HealthCheck.too_slow]))
def test_client_survives_any_arguments(
    made: list[tuple[str, dict[str, Any]]], routing: str
) -> None:
    client = Client(["h"], routing=routing)
    request, handle = held(client)
    link = client.world.peer().link
    for name, arguments in made:
        try:
            good = good_arguments(client, "t")[name]
            returned = getattr(client, name)(**{**good, **given_as(arguments)})
            if hasattr(returned, "__next__"):
                for _ in returned:
                    pass
        except CLEAR as error:
            assert "internal error" not in repr_of(error)  # noqa: PT017 - others are raised
    assert client.world.peer().link is link
    client._gm_driver.serve().send(WorkComplete(handle, b"out"))
    assert (request.state, request.result) == (JOB_COMPLETE, b"out")


def repr_of(error: BaseException) -> str:
    try:
        return str(error)
    except odd.StubbornError:
        return ""


def acknowledge(peer: Peer, events: list[Event]) -> None:
    """Reply to the received events."""
    for number, event in enumerate(events):
        if isinstance(event, EchoReq):
            peer.send(EchoRes(event.data))
        else:
            peer.send(JobCreated(b"H:%d" % number))


ATTRIBUTES: Final = (
    *("task", "data", "unique", "handle", "connection", "timed_out", "error", "priority"),
    *("background", "max_connection_attempts", "connection_attempts", "run_at", "reducer"),
)


@given(
    st.lists(st.tuples(st.sampled_from(ATTRIBUTES), ANYTHING), min_size=1, max_size=3),
    st.sampled_from(["random", "unique"]),
    st.sampled_from(["unsent", "sent", "acknowledged"]),
)
@settings(examples(3))
def test_request_changed_in_flight_leaves_others_intact(
    changes: list[tuple[str, Any]], routing: str, when: str
) -> None:
    """Keep another request intact, even if the changed one or the connection is lost."""
    world = World(2, routing=routing)
    world.check = lambda: None  # type: ignore[method-assign]
    changed = world.request(data=b"changed", retries=2, unique="u1")
    other = world.request(data=b"other", retries=2, unique="u2")
    world.submit(changed)
    world.submit(other)
    for peer in world.peers:
        peer.up()
        events = [] if when == "unsent" else peer.take()
        if when == "acknowledged":
            acknowledge(peer, events)
    for name, value in changes:
        setattr(changed, name, given_as(value))
    if when != "acknowledged":
        for peer in [peer for peer in world.peers if peer.link.alive]:
            peer.lose()
        for _ in range(3):
            world.act()
            for peer in [peer for peer in world.peers if peer.link.alive]:
                if not peer.link.is_up:
                    peer.up()
                acknowledge(peer, peer.take())
    assert other.state == JOB_CREATED
    (peer,) = (peer for peer in world.peers if peer.link is other._gm_link)
    assert other.handle is not None
    peer.send(WorkComplete(other.handle.encode(), b"out"))
    assert (other.state, other.result) == (JOB_COMPLETE, b"out")


# Methods of a worker.


class WorkerDriver:
    """A driver that runs a worker's engine and handles its exceptions as real drivers do."""

    def __init__(self, engine: WorkerEngine) -> None:
        self.engine = engine

    def call(self, function: Callable[..., Any]) -> Any:
        try:
            return function(self.engine, 0.0)
        except BaseException as error:
            self.engine.abandon(error)  # type: ignore[arg-type]
            raise

    tell = call

    def run(self, method: Any, *args: Any, **options: Any) -> None:
        def begin(engine: Any, now: float) -> Any:
            return getattr(engine, method.__name__)(now, lambda: None, *args, **options)

        self.call(begin).raise_error()

    def post(self, function: Callable[..., Any]) -> None:
        """Do nothing, because a posted call could stop the worker."""

    def close(self) -> None:
        """Do nothing, since the driver has no sockets."""


class Worker(gearman_sync.GearmanWorker):
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self._gm_driver: Any = WorkerDriver(
            WorkerEngine(addresses, rng=random.Random(1), **options)
        )


#: Methods with valid arguments. JOB stands for the current job.
JOB: Final = object()
METHODS: Final[dict[str, dict[str, Any]]] = {
    "register_task": {"task": "another", "callback": reverse},
    "unregister_task": {"task": "another"},
    "set_client_id": {"client_id": "id"},
    "stop": {},
    "send_job_status": {"current_job": JOB, "numerator": 1, "denominator": 2},
    "send_job_data": {"current_job": JOB, "data": b""},
    "send_job_warning": {"current_job": JOB, "data": b""},
    # With the current job, these methods would end it.
    "send_job_complete": {"current_job": None, "data": b""},
    "send_job_failure": {"current_job": None},
    "send_job_exception": {"current_job": None, "data": b""},
}


@st.composite
def worker_calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(METHODS)))
    names = parameters(getattr(Worker, name))[1:]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return name, {each: draw(ANYTHING) for each in chosen}


@given(st.lists(worker_calls(), min_size=1, max_size=5))
@settings(examples(3))
def test_worker_survives_any_arguments(made: list[tuple[str, dict[str, Any]]]) -> None:
    worker = Worker(["h"])
    worker.register_task("a", reverse)
    engine = worker._gm_driver.engine
    stream = worker._gm_driver.call(lambda engine, now: engine.work(now, lambda: None))
    server = ServerPeer(engine)
    server.receive()
    server.send(JobAssignUniq(b"H:1", b"a", b"u", b"in"))
    job = engine.next_job(0.0)
    for name, arguments in made:
        good = {key: job if value is JOB else value for key, value in METHODS[name].items()}
        try:
            getattr(worker, name)(**{**good, **given_as(arguments)})
        except CLEAR as error:
            assert "internal error" not in repr_of(error)  # noqa: PT017 - others are raised
    assert server.link.alive
    assert not stream.done
    worker.send_job_complete(job, b"out")
    assert WorkComplete(b"H:1", b"out") in server.receive()
