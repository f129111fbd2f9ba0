"""The surface: names, parameters and defaults as documented; bad input is refused, unsent."""

from __future__ import annotations

import inspect
import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto import errors as proto_errors
from gearman_proto.wire.events import Event, JobCreated, SubmitJob, SubmitJobBg
from gearman_sync import GearmanClient, GearmanJob, GearmanJobRequest
from tests.support import FakeServer, Gearmand, Peer, Worker, echo, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]

# As the documentation has them: name and default of each parameter, in order.
REQUIRED = inspect.Parameter.empty
DOCUMENTED: dict[str, list[tuple[str, Any]]] = {
    "__init__": [("host_list", None), ("random_unique_bytes", 16)],
    "submit_job": [
        ("task", REQUIRED),
        ("data", REQUIRED),
        ("unique", None),
        ("priority", None),
        ("background", False),
        ("wait_until_complete", True),
        ("max_retries", 0),
        ("poll_timeout", None),
    ],
    "submit_multiple_jobs": [
        ("jobs_to_submit", REQUIRED),
        ("background", False),
        ("wait_until_complete", True),
        ("max_retries", 0),
        ("poll_timeout", None),
    ],
    "submit_multiple_requests": [
        ("job_requests", REQUIRED),
        ("wait_until_complete", True),
        ("poll_timeout", None),
    ],
    "wait_until_jobs_accepted": [("job_requests", REQUIRED), ("poll_timeout", None)],
    "wait_until_jobs_completed": [("job_requests", REQUIRED), ("poll_timeout", None)],
    "get_job_status": [("current_request", REQUIRED), ("poll_timeout", None)],
    "get_job_statuses": [("job_requests", REQUIRED), ("poll_timeout", None)],
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signature(name: str) -> None:
    parameters = list(inspect.signature(getattr(GearmanClient, name)).parameters.values())[1:]
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in positional] == DOCUMENTED[name]
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in positional)
    assert all(p.default is not REQUIRED for p in parameters[len(positional) :])


def test_names() -> None:
    assert gearman.PRIORITY_NONE is None
    states = ("UNKNOWN", "PENDING", "CREATED", "FAILED", "COMPLETE")
    assert tuple(getattr(gearman, f"JOB_{state}") for state in states) == states
    for name in proto_errors.__all__:
        assert getattr(gearman.errors, name) is getattr(proto_errors, name)
    assert gearman.constants.PRIORITY_HIGH is gearman.PRIORITY_HIGH
    assert gearman.job.GearmanJobRequest is gearman.GearmanJobRequest
    assert gearman.job.GearmanJob is gearman.GearmanJob
    for name in gearman.__all__:
        assert getattr(gearman, name) is not None or name == "PRIORITY_NONE"
    for name in ("ServerUnavailable", "ExceededConnectionAttempts", "ConnectionError"):
        assert issubclass(getattr(gearman.errors, name), gearman.errors.GearmanError)


def test_modules_that_old_programs_import_from() -> None:
    program = """
from gearman_sync.constants import PRIORITY_HIGH, JOB_UNKNOWN
from gearman_sync.errors import ConnectionError, ServerUnavailable
from gearman_sync.job import GearmanJob, GearmanJobRequest
"""
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["GearmanJobRequest"] is GearmanJobRequest
    assert namespace["PRIORITY_HIGH"] == gearman.PRIORITY_HIGH


def test_all_parameters_by_position(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    one = client.submit_job(task, b"1", "unique", gearman.PRIORITY_LOW, False, True, 0, 20.0)
    assert one.result == b"1"
    assert one.unique == "unique"
    (two,) = client.submit_multiple_jobs([{"task": task, "data": b"2"}], False, True, 0, 20.0)
    assert two.result == b"2"
    three = GearmanJobRequest(GearmanJob(None, None, task, "u", b"3"), None, False, 1)
    requests = [three]
    assert client.submit_multiple_requests(requests, False, 20.0) is requests
    assert client.wait_until_jobs_accepted(requests, 20.0) is requests
    assert client.wait_until_jobs_completed(requests, 20.0) is requests
    assert client.get_job_status(three, 20.0) is three
    assert client.get_job_statuses(requests, 20.0) is requests
    assert three.result == b"3"
    assert (
        GearmanClient([gearmand.address], 4).submit_job(task, b"", background=True).unique
        is not None
    )


def test_random_unique_bytes(make_client: MakeClient, gearmand: Gearmand, task: str) -> None:
    for size in (1, 31):
        client = make_client(gearmand.address, random_unique_bytes=size)
        unique = client.submit_job(task, b"", background=True).unique
        assert unique is not None
        assert len(bytes.fromhex(unique)) == size


@pytest.mark.parametrize("container", [list, tuple, set, frozenset])
def test_same_container_out(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker, container: Any
) -> None:
    start_worker(gearmand.address, {task: echo})
    requests = container(
        GearmanJobRequest(GearmanJob(None, None, task, None, b"%d" % n)) for n in range(3)
    )
    assert client.submit_multiple_requests(requests, wait_until_complete=False) is requests
    assert client.wait_until_jobs_accepted(requests) is requests
    assert client.wait_until_jobs_completed(requests) is requests
    assert client.get_job_statuses(requests) is requests
    assert {request.result for request in requests} == {b"0", b"1", b"2"}
    jobs = ({"task": task, "data": b"x"}, {"task": task, "data": b"y"})
    assert [r.result for r in client.submit_multiple_jobs(jobs)] == [b"x", b"y"]


@pytest.mark.parametrize("empty", [[], (), set()])
def test_nothing_to_do(client: GearmanClient, empty: Any) -> None:
    assert client.submit_multiple_requests(empty) is empty
    assert client.wait_until_jobs_accepted(empty) is empty
    assert client.wait_until_jobs_completed(empty) is empty
    assert client.get_job_statuses(empty) is empty
    assert client.submit_multiple_jobs([]) == []
    assert list(client.as_completed(empty)) == []


def test_subclass_is_gone_through(gearmand: Gearmand, task: str, start_worker: StartWorker) -> None:
    calls = []

    class Client(GearmanClient):
        def submit_multiple_jobs(self, jobs_to_submit: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append("jobs")
            return super().submit_multiple_jobs(jobs_to_submit, *args, **kwargs)

        def submit_multiple_requests(self, job_requests: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append("requests")
            return super().submit_multiple_requests(job_requests, *args, **kwargs)

    start_worker(gearmand.address, {task: echo})
    with Client([gearmand.address]) as client:
        assert client.submit_job(task, b"data").result == b"data"
        assert calls == ["jobs", "requests"]


def test_repr(gearmand: Gearmand, client: GearmanClient) -> None:
    assert repr(client) == f"<GearmanClient [127.0.0.1:{gearmand.port}]>"


# Shutting down.


def test_context_manager(gearmand: Gearmand, task: str) -> None:
    with GearmanClient([gearmand.address]) as client:
        client.submit_job(task, b"", background=True)
        (server,) = client.connection_list
        assert server.connected
    assert not server.connected
    with pytest.raises(gearman.errors.InvalidClientState):
        client.submit_job(task, b"")


def test_after_shutdown(gearmand: Gearmand, client: GearmanClient, task: str) -> None:
    request = client.submit_job(task, b"", wait_until_complete=False)
    (server,) = client.connection_list
    client.shutdown()
    client.shutdown()
    assert request.state == gearman.JOB_UNKNOWN
    assert not request.timed_out
    calls: list[Callable[[], object]] = [
        lambda: client.submit_job(task, b""),
        lambda: client.submit_multiple_jobs([{"task": task, "data": b""}]),
        lambda: client.submit_multiple_requests([request]),
        lambda: client.wait_until_jobs_accepted([request]),
        lambda: client.get_job_status(request),
        lambda: client.establish_connection(server),
        lambda: client.poll_connections_until_stopped([], lambda activity: False),
    ]
    for call in calls:
        with pytest.raises(gearman.errors.InvalidClientState, match="shut down"):
            call()


def test_request_goes_from_a_shut_down_client_to_another(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    first, second = make_client(gearmand.address), make_client(gearmand.address)
    request = first.submit_job(task, b"data", wait_until_complete=False)
    with pytest.raises(gearman.errors.InvalidClientState, match="another client"):
        second.submit_multiple_requests([request])
    with pytest.raises(gearman.errors.InvalidClientState, match="another client"):
        second.wait_until_jobs_completed([request])
    first.shutdown()
    start_worker(gearmand.address, {task: echo})
    assert second.submit_multiple_requests([request])[0].result == b"data"


def test_unused_client_has_nothing_to_close() -> None:
    GearmanClient().shutdown()
    del_only = GearmanClient([("127.0.0.1", free_port())])
    del del_only


# Bad input.


def request_of(task: str = "task", data: Any = b"", **kwargs: Any) -> GearmanJobRequest:
    return GearmanJobRequest(GearmanJob(None, None, task, None, data), **kwargs)


NOW = datetime.now(UTC)
JOB: dict[str, Any] = {"task": "task", "data": b""}
BAD_CALLS: dict[str, tuple[type[Exception], Callable[[GearmanClient], object]]] = {
    "NUL in the task": (ValueError, lambda c: c.submit_job("a\0b", b"")),
    "NUL in the bytes of the task": (ValueError, lambda c: c.submit_job(b"a\0b", b"")),
    "long task": (ValueError, lambda c: c.submit_job("t" * 8192, b"")),
    "task is no name": (TypeError, lambda c: c.submit_job(5, b"")),  # type: ignore[arg-type]
    "surrogate in the task": (ValueError, lambda c: c.submit_job("\ud800", b"")),
    "unique of 64 bytes": (ValueError, lambda c: c.submit_job("t", b"", unique="u" * 64)),
    "unique of 64 bytes in 32 letters": (
        ValueError,
        lambda c: c.submit_job("t", b"", unique="ü" * 32),
    ),
    "NUL in the unique": (ValueError, lambda c: c.submit_job("t", b"", unique="a\0b")),
    "unique is no name": (
        TypeError,
        lambda c: c.submit_job("t", b"", unique=5),  # type: ignore[arg-type]
    ),
    "data is an object": (TypeError, lambda c: c.submit_job("t", object())),
    "data is a number": (TypeError, lambda c: c.submit_job("t", 5)),
    "data is None": (TypeError, lambda c: c.submit_job("t", None)),
    "unknown priority": (ValueError, lambda c: c.submit_job("t", b"", priority="URGENT")),
    "negative max_retries": (ValueError, lambda c: c.submit_job("t", b"", max_retries=-1)),
    "max_retries is no number": (
        TypeError,
        lambda c: c.submit_job("t", b"", max_retries="3"),  # type: ignore[arg-type]
    ),
    "timeout is nan": (ValueError, lambda c: c.submit_job("t", b"", poll_timeout=math.nan)),
    "timeout is text": (
        TypeError,
        lambda c: c.submit_job("t", b"", poll_timeout="1"),  # type: ignore[arg-type]
    ),
    "a dict in place of a list": (
        TypeError,
        lambda c: c.submit_multiple_jobs(JOB),  # type: ignore[arg-type]
    ),
    "a generator": (
        TypeError,
        lambda c: c.submit_multiple_jobs({} for _ in range(2)),  # type: ignore[arg-type]
    ),
    "a str as a job": (TypeError, lambda c: c.submit_multiple_jobs(["t"])),  # type: ignore[list-item]
    "a request as a job": (
        TypeError,
        lambda c: c.submit_multiple_jobs([request_of()]),  # type: ignore[list-item]
    ),
    "no task": (ValueError, lambda c: c.submit_multiple_jobs([{"data": b""}])),
    "no data": (ValueError, lambda c: c.submit_multiple_jobs([{"task": "t"}])),
    "an unknown key": (
        ValueError,
        lambda c: c.submit_multiple_jobs([{"task": "t", "data": b"", "uniqe": "u"}]),
    ),
    "the last of many": (
        TypeError,
        lambda c: c.submit_multiple_jobs([{"task": "t", "data": d} for d in (b"", b"", 1)]),
    ),
    "a dict of requests": (
        TypeError,
        lambda c: c.submit_multiple_requests({1: request_of()}),  # type: ignore[type-var]
    ),
    "one request": (
        TypeError,
        lambda c: c.submit_multiple_requests(request_of()),  # type: ignore[type-var]
    ),
    "a dict as a request": (
        TypeError,
        lambda c: c.submit_multiple_requests([{"task": "t"}]),  # type: ignore[type-var]
    ),
    "wait for no request": (TypeError, lambda c: c.wait_until_jobs_completed([None])),  # type: ignore[type-var]
    "as_completed of no request": (TypeError, lambda c: c.as_completed([None])),  # type: ignore[list-item]
    "updates of no request": (TypeError, lambda c: c.updates(None)),  # type: ignore[arg-type]
    "status of no request": (TypeError, lambda c: c.get_job_status(None)),  # type: ignore[arg-type]
    "run_at in the foreground": (ValueError, lambda c: c.submit_job("t", b"", run_at=NOW)),
    "run_at with a priority": (
        ValueError,
        lambda c: c.submit_job("t", b"", priority="HIGH", background=True, run_at=NOW),
    ),
    "run_at is text": (
        TypeError,
        lambda c: c.submit_job("t", b"", background=True, run_at="now"),  # type: ignore[arg-type]
    ),
    "run_at is nan": (
        ValueError,
        lambda c: c.submit_job("t", b"", background=True, run_at=math.nan),
    ),
    "run_at too late": (ValueError, lambda c: c.submit_job("t", b"", background=True, run_at=1e30)),
    "long reducer": (ValueError, lambda c: c.submit_job("t", b"", reducer="r" * 65)),
    "reducer with a priority": (
        ValueError,
        lambda c: c.submit_job("t", b"", priority="LOW", reducer="r"),
    ),
}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_bad_call_sends_nothing(
    start_server: Callable[..., FakeServer], make_client: MakeClient, what: str
) -> None:
    def script(peer: Peer) -> None:
        event: Event
        while True:
            event = peer.receive()
            assert isinstance(event, (SubmitJob, SubmitJobBg))
            peer.send(JobCreated(b"H:1"))

    server = start_server(script)
    client = make_client(server.address)
    error, call = BAD_CALLS[what]
    with pytest.raises(error) as caught:
        call(client)
    assert type(caught.value) is error
    assert str(caught.value)
    # The first that the server hears of is this one.
    client.submit_job("good", b"", unique="u", background=True)
    assert server.events == [SubmitJobBg(b"good", b"u", b"")]


BAD_CLIENTS: dict[str, tuple[type[Exception], tuple[Any, ...], dict[str, Any]]] = {
    "a str in place of a list": (TypeError, ("localhost:4730",), {}),
    "a dict in place of a list": (TypeError, ({"host": "localhost"},), {}),
    "a number": (TypeError, ([5],), {}),
    "None": (TypeError, ([None],), {}),
    "an empty host": (ValueError, ([""],), {}),
    "no host": (ValueError, ([":4730"],), {}),
    "a host with a blank": (ValueError, (["local host"],), {}),
    "a URL": (ValueError, (["http://localhost:4730/"],), {}),
    "a port that is none": (ValueError, (["localhost:gearman"],), {}),
    "port 0": (ValueError, ([("localhost", 0)],), {}),
    "port 65536": (ValueError, (["localhost:65536"],), {}),
    "a port that is a float": (TypeError, ([("localhost", 4730.0)],), {}),
    "a tuple of three": (TypeError, ([("localhost", 4730, 1)],), {}),
    "an unknown key": (ValueError, ([{"host": "localhost", "prot": 1}],), {}),
    "a dict without a host": (ValueError, ([{"port": 4730}],), {}),
    "a key without its certificate": (ValueError, ([{"host": "h", "keyfile": "k"}],), {}),
    "an ssl_context that is none": (TypeError, ([{"host": "h", "ssl_context": True}],), {}),
    "a file that is not there": (OSError, ([{"host": "h", "ca_certs": "/nowhere/ca.pem"}],), {}),
    "0 random bytes": (ValueError, ([], 0), {}),
    "32 random bytes": (ValueError, ([], 32), {}),
    "random bytes that are no number": (TypeError, ([], "16"), {}),
    "an unknown routing": (ValueError, ([],), {"routing": "round"}),
    "no time to connect": (ValueError, ([],), {"connect_timeout": 0}),
    "nan to connect": (ValueError, ([],), {"connect_timeout": math.nan}),
    "an ssl_context that is text": (TypeError, (["h"],), {"ssl_context": "ca.pem"}),
}


@pytest.mark.parametrize("what", BAD_CLIENTS)
def test_bad_client(what: str) -> None:
    error, args, kwargs = BAD_CLIENTS[what]
    with pytest.raises(error):
        GearmanClient(*args, **kwargs)


def test_no_servers_at_all() -> None:
    with GearmanClient([]) as client, pytest.raises(gearman.errors.ServerUnavailable) as caught:
        client.submit_job("task", b"")
    assert len(list(caught.value.job_requests)) == 1


def test_time_that_has_passed_is_no_error(client: GearmanClient, task: str) -> None:
    deadline = time.monotonic()
    request = client.submit_job(task, b"", poll_timeout=deadline - time.monotonic())
    assert request.timed_out
