"""Invalid arguments raise the same exceptions in both adapters, before anything is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ArgumentTypeError, ArgumentValueError, InvalidClientState
from gearman_proto.wire.packets import SubmitJobBg
from tests.support import odd

from .kit import Kit, reverse
from .test_submitting import acknowledge_all, new_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import ScriptedServer

# Method, exception, positional arguments and options of each call.
WRONG_CALLS: dict[str, tuple[str, type[Exception], tuple[Any, ...], dict[str, Any]]] = {
    "NUL in the task": ("submit_job", ValueError, ("a\0b", b""), {}),
    "NUL in the bytes of the task": ("submit_job", ValueError, (b"a\0b", b""), {}),
    "task too long": ("submit_job", ValueError, ("t" * 8192, b""), {}),
    "task is a number": ("submit_job", TypeError, (5, b""), {}),
    "task with a surrogate": ("submit_job", ValueError, ("\ud800", b""), {}),
    "unique too long": ("submit_job", ValueError, ("t", b"", "u" * 64), {}),
    "unique too long in bytes": ("submit_job", ValueError, ("t", b"", "ü" * 32), {}),
    "NUL in the unique": ("submit_job", ValueError, ("t", b"", b"a\0b"), {}),
    "unique is a number": ("submit_job", TypeError, ("t", b"", 5), {}),
    "data is a number": ("submit_job", TypeError, ("t", 5), {}),
    "data is an object": ("submit_job", TypeError, ("t", object()), {}),
    "data is None": ("submit_job", TypeError, ("t", None), {}),
    "unknown priority": ("submit_job", ValueError, ("t", b""), {"priority": "URGENT"}),
    "priority is a list": ("submit_job", ValueError, ("t", b""), {"priority": []}),
    "priority is False": ("submit_job", ValueError, ("t", b""), {"priority": False}),
    "priority is empty": ("submit_job", ValueError, ("t", b""), {"priority": ""}),
    "max_retries is a bool": ("submit_job", TypeError, ("t", b""), {"max_retries": True}),
    "run_at is too early": (
        *("submit_job", ValueError, ("t", b"")),
        {"background": True, "run_at": odd.FIRST_DAY},
    ),
    "reducer is a list": ("submit_job", TypeError, ("t", b""), {"reducer": []}),
    "a connection to nobody": ("establish_connection", TypeError, (None,), {}),
    "a connection to a stranger": ("establish_connection", InvalidClientState, ("h:1",), {}),
    "negative max_retries": ("submit_job", ValueError, ("t", b""), {"max_retries": -1}),
    "max_retries is text": ("submit_job", TypeError, ("t", b""), {"max_retries": "3"}),
    "timeout is nan": ("submit_job", ValueError, ("t", b""), {"poll_timeout": math.nan}),
    "timeout is text": ("submit_job", TypeError, ("t", b""), {"poll_timeout": "1"}),
    "timeout is a bool": ("submit_job", TypeError, ("t", b""), {"poll_timeout": True}),
    "run_at is text": ("submit_job", TypeError, ("t", b""), {"background": True, "run_at": "1"}),
    "unknown parameter": ("submit_job", TypeError, ("t", b""), {"uniqe": "u"}),
    "a dict for jobs": ("submit_multiple_jobs", TypeError, ({"task": "t", "data": b""},), {}),
    "a generator for jobs": ("submit_multiple_jobs", TypeError, (iter([]),), {}),
    "a str for a job": ("submit_multiple_jobs", TypeError, (["t"],), {}),
    "a request for a job": ("submit_multiple_jobs", TypeError, ([new_request("t")],), {}),
    "a job without task": ("submit_multiple_jobs", ValueError, ([{"data": b""}],), {}),
    "a job without data": ("submit_multiple_jobs", ValueError, ([{"task": "t"}],), {}),
    "a job with an unknown key": (
        *("submit_multiple_jobs", ValueError),
        *(([{"task": "t", "data": b"", "uniqe": "u"}],), {}),
    ),
    "the last of many": (
        *("submit_multiple_jobs", TypeError),
        *(([{"task": "t", "data": data} for data in (b"", b"", 1)],), {}),
    ),
    "no list of requests": ("submit_multiple_requests", TypeError, (new_request("t"),), {}),
    "a dict of requests": ("submit_multiple_requests", TypeError, ({1: new_request("t")},), {}),
    "a dict for a request": ("submit_multiple_requests", TypeError, ([{"task": "t"}],), {}),
    "waiting for None": ("wait_until_jobs_completed", TypeError, ([None],), {}),
    "accepting None": ("wait_until_jobs_accepted", TypeError, ([None],), {}),
    "as_completed of None": ("as_completed", TypeError, ([None],), {}),
    "as_completed until nan": ("as_completed", ValueError, ([], math.nan), {}),
    "updates of None": ("updates", TypeError, (None,), {}),
    "updates until nan": ("updates", ValueError, (new_request("t"), math.nan), {}),
    "status of None": ("get_job_status", TypeError, (None,), {}),
    "polling until nan": (
        *("poll_connections_until_stopped", ValueError),
        *(([], lambda any_activity: False, math.nan), {}),
    ),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
async def test_wrong_call_sends_nothing(
    kit: Kit, start_server: Callable[..., ScriptedServer], what: str
) -> None:
    server = start_server(acknowledge_all)
    client = await kit.client(server.address)
    name, error, args, options = WRONG_CALLS[what]
    call = getattr(client, name)
    if name in ("as_completed", "updates"):
        # These raise when called, not when iterated.
        with pytest.raises(error) as caught:
            call(*args, **options)
    else:
        with pytest.raises(error) as caught:
            await call(*args, **options)
    assert type(caught.value) in (error, ArgumentTypeError, ArgumentValueError)
    assert str(caught.value)
    assert server.peers == []
    # The good job is the first one that the server receives.
    await client.submit_job("good", b"", unique="u", background=True)
    assert server.events == [SubmitJobBg(b"good", b"u", b"")]


WRONG_CLIENTS: list[tuple[type[Exception], tuple[Any, ...], dict[str, Any]]] = [
    (TypeError, ("localhost:4730",), {}),
    (TypeError, ({"host": "localhost"},), {}),
    (TypeError, ([5],), {}),
    (TypeError, ([None],), {}),
    (ValueError, ([""],), {}),
    (ValueError, ([":4730"],), {}),
    (ValueError, (["local host"],), {}),
    (ValueError, (["http://localhost:4730/"],), {}),
    (ValueError, (["::1:4730"],), {}),
    (TypeError, (5,), {}),
    (ValueError, (["localhost:gearman"],), {}),
    (ValueError, ([("localhost", 0)],), {}),
    (ValueError, ([("localhost", 65536)],), {}),
    (TypeError, ([("localhost", 4730.0)],), {}),
    (TypeError, ([("localhost", 4730, 1)],), {}),
    (ValueError, ([{"port": 4730}],), {}),
    (ValueError, ([{"host": "h", "keyfile": "k"}],), {}),
    (TypeError, ([{"host": "h", "ssl_context": True}],), {}),
    (ValueError, ([{"host": "localhost", "prot": 1}],), {}),
    (OSError, ([{"host": "h", "ca_certs": "/nowhere/ca.pem"}],), {}),
    (ValueError, ([], 0), {}),
    (ValueError, ([], 32), {}),
    (TypeError, ([], "16"), {}),
    (TypeError, ([], True), {}),
    (ValueError, ([],), {"max_packet_size": 0}),
    (TypeError, ([],), {"max_packet_size": "1000"}),
    (TypeError, ([],), {"connect_timeout": None}),
    (ValueError, ([],), {"routing": "round"}),
    (ValueError, ([],), {"connect_timeout": 0}),
    (ValueError, ([],), {"connect_timeout": math.nan}),
    (TypeError, (["h"],), {"ssl_context": "ca.pem"}),
]

WRONG_WORKERS: list[tuple[type[Exception], tuple[Any, ...], dict[str, Any]]] = [
    (TypeError, ("localhost:4730",), {}),
    (ValueError, ([":4730"],), {}),
    (TypeError, ([], 1), {}),
    (ValueError, ([],), {"max_jobs": 0}),
    (TypeError, ([],), {"max_jobs": "1"}),
    (ValueError, ([],), {"connect_timeout": 0}),
    (ValueError, ([],), {"look_again": 0}),
    (ValueError, ([],), {"look_again": math.nan}),
    (ValueError, ([],), {"look_again": 1e-9}),
    (TypeError, ([],), {"look_again": None}),
    (ValueError, ([],), {"max_outage": -1}),
    (TypeError, (["h"],), {"ssl_context": "ca.pem"}),
]


def outcome(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call a constructor. Return the object or the type of the exception."""
    try:
        return make(*args, **options)
    except TypeError:
        return TypeError
    except ValueError:
        return ValueError
    except OSError:
        return OSError


async def test_constructors_with_wrong_arguments_raise(kit: Kit) -> None:
    for kind, cases in (
        (kit.gearman.GearmanClient, WRONG_CLIENTS),
        (kit.gearman.GearmanWorker, WRONG_WORKERS),
    ):
        outcomes = [outcome(kind, args, options) for _, args, options in cases]
        assert outcomes == [error for error, _, _ in cases]


async def test_worker_methods_with_wrong_arguments_raise(kit: Kit) -> None:
    worker = await kit.make_worker("localhost:1")
    cases: list[tuple[type[Exception], Callable[[], Any]]] = [
        *[
            (ValueError, lambda name=name: worker.register_task(name, reverse))
            for name in ("a\0b", b"\xff\0", "x" * 8200)
        ],
        *[
            (ValueError, lambda timeout=timeout: worker.register_task("t", reverse, timeout))
            for timeout in (0, -1, math.nan, math.inf, 1e7)
        ],
        (TypeError, lambda: worker.register_task(5, reverse)),
        (TypeError, lambda: worker.register_task("t", b"reverse")),
        (TypeError, lambda: worker.register_task("t", lambda job: b"")),
        (TypeError, lambda: worker.register_task("t", lambda worker, job, more: b"")),
        (TypeError, lambda: worker.register_task("t", reverse, timeout="1")),
        (TypeError, lambda: worker.register_task("t", reverse, timeout=True)),
        (TypeError, lambda: worker.unregister_task(5)),
        (TypeError, lambda: worker.set_client_id(5)),
        (ValueError, lambda: worker.set_client_id("a\0b")),
        (ValueError, lambda: worker.set_client_id("x" * 128)),
        (TypeError, lambda: worker.stop("1")),
        (ValueError, lambda: worker.stop(math.nan)),
    ]
    for error, call in cases:
        with pytest.raises(error):
            call()
    with pytest.raises(TypeError):
        await worker.work("1")
    with pytest.raises(ValueError, match="nan"):
        await worker.work(math.nan)
    assert (worker.worker_abilities, worker.worker_client_id) == ({}, None)
    assert [connection.connected for connection in worker.connection_list] == [False]
