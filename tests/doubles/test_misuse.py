"""Misuse raises at once; the message names the argument, its value and the valid ones."""


# mypy: disable-error-code="arg-type,dict-item"

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import EchoReq
from gearman_sync import GearmanClient, JobServer
from gearman_sync.testing import (
    Bandwidth,
    Corrupt,
    Direction,
    Expectation,
    FaultyProxy,
    Gate,
    HalfOpen,
    Latency,
    LimitData,
    Raised,
    Recorder,
    Recording,
    ReplayServer,
    ResetPeer,
    ScriptedClient,
    ScriptedServer,
    ScriptedWorker,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
    Toxic,
    echo,
    replay,
)
from tests.support import PATIENCE, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")

# No server listens there, and these tests must not connect.
NOWHERE = ("127.0.0.1", 1)


class Unknown(Toxic):
    """A toxic of a kind that the proxy does not know."""


def expect(what: Any = EchoReq, connection: Any = None, **fields: object) -> Expectation:
    """Return the result of `ScriptedServer.expect` without a server."""
    return Expectation(what, fields, connection)


# Arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bandwidth(0), "rate is 0: it must be at least 1"),
        (lambda: Latency(-0.1), "latency is -0.1"),
        (lambda: Latency(0.1, jitter=math.nan), "jitter is nan"),
        (lambda: Slicer(0), "average_size is 0: it must be at least 1"),
        (lambda: Slicer(3, 3), "size_variation is more than 2"),
        (lambda: Slicer(delay=-1.0), "delay is -1.0"),
        (lambda: Slicer(length=-1), "length is -1"),
        (lambda: Timeout(math.nan), "timeout is nan"),
        (lambda: ResetPeer(-1), "timeout is -1"),
        (lambda: LimitData(-1), "bytes is -1"),
        (lambda: SlowClose(math.inf), "delay is inf"),
        (lambda: Stall(-1), "seconds is -1"),
        (lambda: Corrupt(0), "mask is 0"),
        (lambda: HalfOpen(after=-1), "after is -1"),
        (lambda: HalfOpen(toxicity=1.5), "toxicity is 1.5: it must be at most 1"),
        (lambda: FaultyProxy(("127.0.0.1", 0)), "port 0 is not between 1 and 65535"),
        (lambda: FaultyProxy(NOWHERE, buffer=-1), "buffer is -1"),
        (lambda: ScriptedClient(("", 4730)), "host"),
        (lambda: ScriptedClient(NOWHERE, timeout=0), "timeout is 0: it must be at least 0.001"),
        (lambda: ScriptedClient(NOWHERE, receive_buffer=-1), "receive_buffer is -1"),
        (lambda: ScriptedServer(timeout=-1), "timeout is -1"),
        (lambda: ScriptedServer(receive_buffer=-1), "receive_buffer is -1"),
        (lambda: ScriptedWorker(NOWHERE, {}, poll_interval=0), "poll_interval is 0"),
        (lambda: ScriptedWorker(NOWHERE, {}, timeout=math.nan), "timeout is nan"),
        (lambda: Gate(timeout=math.nan), "timeout is nan"),
        (lambda: replay(Recording([]), NOWHERE, timeout=math.inf), "timeout is inf"),
        (lambda: ReplayServer(Recording([]), timeout=math.nan), "timeout is nan"),
        (lambda: expect(connection=-1), "connection is -1"),
        (lambda: expect().times(-1), "count is -1: it must be at least 0"),
    ],
)
def test_invalid_value_raises_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HalfOpen(direction="up"), "direction is a Direction, not 'up'"),
        (lambda: HalfOpen(after=0.5), "after is a whole number, not 0.5"),
        (lambda: LimitData(bytes=9.5), "bytes is a whole number, not 9.5"),
        (lambda: Corrupt(mask=1.5), "mask is a whole number, not 1.5"),
        (lambda: Slicer(average_size=1.5), "average_size is a whole number, not 1.5"),
        (lambda: Slicer(9, size_variation=0.5), "size_variation is a whole number, not 0.5"),
        (lambda: Slicer(length=1.5), "length is a whole number, not 1.5"),
        (lambda: Latency("1"), "latency is a number of seconds, not '1'"),
        (lambda: FaultyProxy(5), "a server's address is"),
        (lambda: FaultyProxy(NOWHERE, [Latency()]), "plan is a function of a connection's number"),
        (lambda: FaultyProxy(NOWHERE, tap=5), "tap is a function of"),
        (lambda: FaultyProxy(NOWHERE, host=5), "host is the address to listen on, not 5"),
        (lambda: Recorder(None), "a server's address is"),
        (lambda: ScriptedClient(5), "a server's address is"),
        (lambda: ScriptedClient(NOWHERE, role=5), "role must be a Role, not 5"),
        (lambda: ScriptedServer(5), "script is a function of a Peer, not 5"),
        (lambda: ScriptedServer(host=None), "host is the address to listen on, not None"),
        (lambda: ScriptedWorker(NOWHERE, [echo]), "functions is a dict of functions by name"),
        (lambda: ScriptedWorker(NOWHERE, {b"f": echo}), "a function's name is a str, not b'f'"),
        (lambda: ScriptedWorker(NOWHERE, {"f": 5}), "the function 'f' is a function of"),
        (lambda: Gate(5), "function is a function of a ScriptedJob, not 5"),
        (lambda: Raised("no more"), "data is bytes, not 'no more'"),
        (lambda: replay("a file", NOWHERE), "recording is a Recording, not 'a file'"),
        (lambda: replay(Recording([]), 5), "a server's address is"),
        (lambda: ReplayServer([]), "recording is a Recording, not "),
        (lambda: expect(5), "5 says nothing about events"),
        (lambda: expect(text=b""), "EchoReq has no text"),
        (lambda: expect().answer(5), "an answer is an event, or a function"),
        (lambda: expect().answer_anyway(5), "an answer is an event, or a func"),
        (lambda: expect().send_raw("x"), "data is bytes, or a function of"),
        (lambda: expect().then(5), "action is a function of a Peer and an"),
    ],
)
def test_argument_of_a_wrong_type_raises_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("toxic", [5, Latency, Toxic(), Unknown(), [Latency()]])
@pytest.mark.parametrize("method", ["add", "inject"])
def test_unknown_toxic_is_refused_by_the_proxy(method: str, toxic: Any) -> None:
    with FaultyProxy(NOWHERE) as proxy:
        with pytest.raises(TypeError, match="a toxic is one of the kinds of toxics, such as"):
            getattr(proxy, method)(toxic)
        assert not proxy.toxics


# Call order.


PROXY_METHODS: list[Callable[[FaultyProxy], object]] = [
    lambda proxy: proxy.add(Latency()),
    lambda proxy: proxy.remove(Latency()),
    lambda proxy: proxy.inject(Latency()),
    FaultyProxy.down,
    FaultyProxy.refuse,
    FaultyProxy.ignore,
    FaultyProxy.up,
    FaultyProxy.reset,
    FaultyProxy.stop,
]


@pytest.mark.parametrize("call", PROXY_METHODS)
def test_proxy_before_its_start_and_after_its_end_refuses_calls(
    call: Callable[[FaultyProxy], object],
) -> None:
    proxy = FaultyProxy(NOWHERE)
    with pytest.raises(RuntimeError, match="does not run: use it in a `with`"):
        call(proxy)
    with proxy, pytest.raises(RuntimeError, match="was started before"):
        proxy.start()
    with pytest.raises(RuntimeError, match="does not run: use it in a `with`"):
        call(proxy)
    with pytest.raises(RuntimeError, match="was started before: make a new one"):
        proxy.start()


def test_scripted_server_after_its_end_refuses_calls() -> None:
    with (
        ScriptedServer() as server,
        pytest.raises(RuntimeError, match="was started or stopped before"),
    ):
        server.start()
    for call in (server.start, lambda: server.expect(EchoReq)):
        with pytest.raises(RuntimeError, match="stopped"):
            call()
    server.stop()
    unused = ScriptedServer()
    unused.stop()
    with pytest.raises(RuntimeError, match="make a new one"):
        unused.start()


# Calls from callbacks.


@pytest.fixture
def job_server() -> Iterator[JobServer]:
    with JobServer() as server:
        yield server


def echoed(proxy: FaultyProxy) -> None:
    """Send an ECHO_REQ through the proxy and receive the reply."""
    with ScriptedClient(proxy.address, timeout=PATIENCE) as client:
        client.echo()


@pytest.mark.parametrize(
    "toxic", [ResetPeer(), LimitData(), HalfOpen(direction=Direction.UP), HalfOpen()]
)
def test_tap_that_adds_a_toxic_ends_the_connection_before_these_bytes_pass(
    job_server: JobServer, toxic: Toxic
) -> None:
    taken: list[bytes] = []

    def tap(_number: int, direction: Direction, data: bytes) -> None:
        if direction is toxic.direction and not proxy.toxics:
            proxy.add(toxic)
            taken.append(data)

    with (
        FaultyProxy(job_server.address, tap=tap) as proxy,
        ScriptedClient(proxy.address, timeout=PATIENCE) as client,
    ):
        client.send(EchoReq(b"hello"))
        if toxic == HalfOpen(direction=Direction.UP):
            eventually(lambda: proxy.toxics)  # The client receives no notice.
        else:
            assert client.rest() == b""
    assert len(taken) == 1


def test_tap_that_stops_the_proxy_makes_stop_raise(job_server: JobServer) -> None:
    proxy = FaultyProxy(job_server.address, tap=lambda *_: proxy.stop())
    with (
        pytest.raises(RuntimeError, match=r"plan and tap can't call stop\(\)"),
        proxy,
        contextlib.suppress(OSError),
    ):
        echoed(proxy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": lambda number: Latency()}, "what plan returns is a list of toxics, not Latency"),
        ({"plan": lambda number: [Unknown()]}, "a toxic of the plan is one of the kinds"),
        ({"plan": lambda: [Latency()]}, "takes 0 positional arguments"),
        ({"tap": lambda data: None}, "takes 1 positional argument"),
    ],
)
def test_plan_or_tap_that_raises_resets_the_connection_and_stop_raises(
    job_server: JobServer, options: dict[str, Any], message: str
) -> None:
    with (
        pytest.raises(TypeError, match=message),
        FaultyProxy(job_server.address, **options) as proxy,
        contextlib.suppress(OSError),
    ):
        echoed(proxy)
    with pytest.raises(OSError) as caught, FaultyProxy(job_server.address, **options) as proxy:
        echoed(proxy)
    assert "plan or tap of the proxy has raised" in caught.value.__notes__[0]


@pytest.mark.parametrize("method", ["stop", "check"])
def test_scripted_server_that_its_own_script_stops_raises(method: str) -> None:
    server = ScriptedServer(lambda peer: getattr(server, method)())
    with (
        pytest.raises(RuntimeError, match=rf"{method}\(\) was called in a thread of this server"),
        server,
        ScriptedClient(server.address) as client,
    ):
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda job: "text", TypeError, "what the function 'f' returns is bytes, not 'text'"),
        (lambda job: 1 / 0, ZeroDivisionError, "division"),
        (lambda job: job.worker.stop(), RuntimeError, r"can't call stop\(\) of its worker"),
        (lambda job: job.send_data("text"), TypeError, "bytes"),
    ],
)
def test_scripted_function_that_raises_fails_its_job_and_stop_raises(
    job_server: JobServer, function: Any, error: type[Exception], message: str
) -> None:
    worker = ScriptedWorker(job_server.address, {"f": function})
    with GearmanClient([job_server.address]) as client:
        assert client.submit_job("f", "", poll_timeout=PATIENCE).state == "FAILED"
    with pytest.raises(error, match=message):
        worker.stop()


def test_call_during_the_stop_of_the_proxy_returns() -> None:
    """Return from the call if another thread stops the proxy meanwhile."""
    proxy = FaultyProxy(NOWHERE)
    proxy.start()
    held = threading.Event()
    proxy._loop.call_soon_threadsafe(held.wait, PATIENCE)
    calls = [spawn(proxy.stop), spawn(proxy.up)]
    held.set()
    for call in calls:
        assert isinstance(call.exception(PATIENCE), (RuntimeError, type(None)))
