"""Invalid arguments raise the same exceptions in both adapters, before anything is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ArgumentTypeError, ArgumentValueError, InvalidClientState
from gearman_proto.jobs.submitting import SLICE
from gearman_proto.wire.packets import SubmitJobBg

from .kit import Kit, StartServer, reverse, settled
from .test_submitting import acknowledge_all, new_request

if TYPE_CHECKING:
    from collections.abc import Callable


T, JOB = ("t", b""), {"task": "t", "data": b""}
# Exception, method, positional arguments and options of calls. Each method checks its arguments
# with the code that tests/jobs and tests/ground test with all invalid values.
WRONG_CALLS: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (ValueError, "submit_job", ("a\0b", b""), {}),
    (TypeError, "submit_job", ("t", None), {}),
    (ValueError, "submit_job", T, {"priority": "URGENT"}),
    (ValueError, "submit_job", T, {"max_retries": -1}),
    (ValueError, "submit_job", T, {"poll_timeout": math.nan}),
    (TypeError, "submit_job", T, {"background": True, "run_at": "1"}),
    (ValueError, "submit_job", T, {"reducer": "r", "priority": "LOW"}),
    (TypeError, "submit_job", T, {"uniqe": "u"}),
    (InvalidClientState, "establish_connection", ("h:1",), {}),
    (TypeError, "submit_multiple_jobs", (iter([]),), {}),
    (TypeError, "submit_multiple_jobs", ([JOB] * 2 * SLICE + [{**JOB, "data": 1}],), {}),
    (TypeError, "submit_multiple_requests", (new_request("t"),), {}),
    (TypeError, "wait_until_jobs_completed", ([None],), {}),
    (TypeError, "wait_until_jobs_accepted", ([None],), {}),
    (TypeError, "as_completed", ([None],), {}),
    (ValueError, "as_completed", ([], math.nan), {}),
    (TypeError, "updates", (None,), {}),
    (ValueError, "updates", (new_request("t"), math.nan), {}),
    (TypeError, "get_job_status", (None,), {}),
    (ValueError, "poll_connections_until_stopped", ([], bool, math.nan), {}),
]


async def test_wrong_calls_send_nothing(kit: Kit, start_server: StartServer) -> None:
    server = start_server(acknowledge_all)
    client = await kit.client(server.address)
    for error, name, args, options in WRONG_CALLS:
        # Methods that return iterators raise when they are called.
        with pytest.raises(error) as caught:
            await settled(getattr(client, name)(*args, **options))
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
