"""Invalid arguments raise the same exceptions in both adapters, before anything is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ArgumentTypeError, ArgumentValueError, InvalidClientState
from gearman_proto.jobs.submitting import SLICE
from gearman_proto.wire.packets import SubmitJobBg

from .kit import Kit, reverse
from .test_submitting import acknowledge_all, new_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import ScriptedServer

T = ("t", b"")
# Method, exception, positional arguments and options of each call. tests/jobs has all invalid jobs.
WRONG_CALLS: dict[str, tuple[str, type[Exception], tuple[Any, ...], dict[str, Any]]] = {
    "NUL in the task": ("submit_job", ValueError, ("a\0b", b""), {}),
    "task is a number": ("submit_job", TypeError, (5, b""), {}),
    "unique too long in bytes": ("submit_job", ValueError, ("t", b"", "ü" * 32), {}),
    "data is None": ("submit_job", TypeError, ("t", None), {}),
    "unknown priority": ("submit_job", ValueError, T, {"priority": "URGENT"}),
    "negative max_retries": ("submit_job", ValueError, T, {"max_retries": -1}),
    "timeout is nan": ("submit_job", ValueError, T, {"poll_timeout": math.nan}),
    "timeout is text": ("submit_job", TypeError, T, {"poll_timeout": "1"}),
    "run_at is text": ("submit_job", TypeError, T, {"background": True, "run_at": "1"}),
    "run_at in the foreground": ("submit_job", ValueError, T, {"run_at": 1}),
    "reducer with a priority": ("submit_job", ValueError, T, {"reducer": "r", "priority": "LOW"}),
    "unknown parameter": ("submit_job", TypeError, T, {"uniqe": "u"}),
    "a connection to a stranger": ("establish_connection", InvalidClientState, ("h:1",), {}),
    "a generator for jobs": ("submit_multiple_jobs", TypeError, (iter([]),), {}),
    "a job without data": ("submit_multiple_jobs", ValueError, ([{"task": "t"}],), {}),
    "the last of many": (
        *("submit_multiple_jobs", TypeError),
        *(([{"task": "t", "data": b""}] * 2 * SLICE + [{"task": "t", "data": 1}],), {}),
    ),
    "no list of requests": ("submit_multiple_requests", TypeError, (new_request("t"),), {}),
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


# The arguments that an adapter's constructor passes on. tests/ground and tests/surface have all.
WRONG_OPTIONS: list[tuple[type[Exception], tuple[Any, ...], dict[str, Any]]] = [
    (TypeError, ("localhost:4730",), {}),
    (ValueError, ([":4730"],), {}),
    (OSError, ([{"host": "h", "ca_certs": "/nowhere/ca.pem"}],), {}),
    (TypeError, (["h"],), {"ssl_context": "ca.pem"}),
    (ValueError, (["h"],), {"connect_timeout": 0}),
    (TypeError, (["h"],), {"prot": 1}),
]


@pytest.mark.parametrize("kind", ["GearmanClient", "GearmanWorker", "GearmanAdminClient"])
async def test_constructors_with_wrong_arguments_raise(kit: Kit, kind: str) -> None:
    for error, args, options in WRONG_OPTIONS:
        with pytest.raises(error):
            getattr(kit.gearman, kind)(*args, **options)


async def test_worker_methods_with_wrong_arguments_raise(kit: Kit) -> None:
    worker = await kit.make_worker("localhost:1")
    cases: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ValueError, lambda: worker.register_task("a\0b", reverse)),
        (ValueError, lambda: worker.register_task("t", reverse, timeout=0)),
        (TypeError, lambda: worker.register_task("t", lambda job: b"")),
        (TypeError, lambda: worker.unregister_task(5)),
        (ValueError, lambda: worker.set_client_id("x" * 128)),
        (TypeError, lambda: worker.stop("1")),
    ]
    for error, call in cases:
        with pytest.raises(error):
            call()
    with pytest.raises(TypeError):
        await worker.work("1")
    assert (worker.worker_abilities, worker.worker_client_id) == ({}, None)
    assert not worker.connection_list[0].connected
