"""Invalid arguments raise the same exceptions in both adapters, before anything is sent."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from gearman_proto.errors import ArgumentTypeError, ArgumentValueError, InvalidClientState
from gearman_proto.jobs.batch import SLICE
from gearman_proto.wire.packets import SubmitJobBg

from .kit import Kit, StartServer, settled
from .test_submitting import acknowledge_all, new_request

T, JOB = ("t", b""), {"task": "t", "data": b""}
# Exception, method, positional arguments and options of calls. Each method checks its arguments
# with the code that tests/jobs and tests/ground test with all invalid values.
WRONG_CALLS: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (ValueError, "submit_job", ("a\0b", b""), {}),
    (TypeError, "submit_job", ("t", None), {}),
    (ValueError, "submit_job", T, {"max_retries": -1}),
    (TypeError, "submit_job", T, {"uniqe": "u"}),
    (TypeError, "submit_job", T, {"timeout": 5}),
    (TypeError, "submit_multiple_jobs", ([JOB],), {"timeout": 5}),
    (InvalidClientState, "establish_connection", ("h:1",), {}),
    (TypeError, "submit_multiple_jobs", ([JOB] * 2 * SLICE + [{**JOB, "data": 1}],), {}),
    (TypeError, "submit_multiple_requests", (new_request("t"),), {}),
    (TypeError, "wait_until_jobs_completed", ([None],), {}),
    (TypeError, "wait_until_jobs_accepted", ([None],), {}),
    (TypeError, "as_completed", ([], "1"), {}),
    (TypeError, "updates", (new_request("t"), "1"), {}),
    (TypeError, "updates", ([new_request("t"), None],), {}),
    (ValueError, "updates", (new_request("t", background=True),), {}),
    (ValueError, "updates", ([new_request("t"), new_request("t", background=True)],), {}),
    (TypeError, "get_job_status", (None,), {}),
    (TypeError, "poll_connections_until_stopped", ([], bool, "1"), {}),
    (TypeError, "wait_for_servers", ("1",), {}),
]


@pytest.mark.parametrize("kind", ["GearmanClient", "GearmanWorker", "GearmanAdminClient"])
async def test_constructors_with_wrong_arguments_raise(kit: Kit, kind: str) -> None:
    for options in ({"ssl_context": "ca.pem"}, {"prot": 1}):
        with pytest.raises(TypeError):
            getattr(kit.gearman, kind)(["h"], **options)


async def test_work_with_a_wrong_timeout_raises(kit: Kit) -> None:
    worker = await kit.make_worker("localhost:1")
    with pytest.raises(TypeError):
        await worker.work("1")


async def test_wrong_calls_send_nothing(kit: Kit, start_server: StartServer) -> None:
    server = start_server(acknowledge_all)
    client = await kit.client(server.address)
    for error, name, args, options in WRONG_CALLS:
        # Methods that return iterators raise when they are called.
        with pytest.raises(error) as caught:
            await settled(getattr(client, name)(*args, **options))
        assert type(caught.value) in (error, ArgumentTypeError, ArgumentValueError)
        assert str(caught.value)
        if args[-1] == "1":
            method = getattr(kit.gearman.GearmanClient, name)
            parameter = [*inspect.signature(method).parameters][len(args)]
            assert str(caught.value).startswith(f"{parameter} ")
        if "timeout" in options:
            assert "the maximum time to wait is poll_timeout" in str(caught.value)
    assert server.peers == []
    # The good job is the first one that the server receives.
    await client.submit_job("good", b"", unique="u", background=True)
    assert server.events == [SubmitJobBg(b"good", b"u", b"")]
