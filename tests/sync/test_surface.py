"""The surface: names, parameters and defaults as documented."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto import errors as proto_errors
from gearman_sync import GearmanClient, GearmanJobRequest
from gearman_sync.testing import ScriptedWorker, echo
from tests.support import Gearmand, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]

# Name and default of each documented parameter, in order.
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


def test_overridden_methods_of_a_subclass_are_called(
    gearmand: Gearmand, task: str, start_worker: StartWorker
) -> None:
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


# Shutting down.


def test_context_manager(gearmand: Gearmand, task: str) -> None:
    with GearmanClient([gearmand.address]) as client:
        client.submit_job(task, b"", background=True)
        (server,) = client.connection_list
        assert server.connected
    assert not server.connected
    with pytest.raises(gearman.errors.InvalidClientState):
        client.submit_job(task, b"")


def test_unused_client_has_nothing_to_close() -> None:
    GearmanClient().shutdown()
    del_only = GearmanClient([("127.0.0.1", free_port())])
    del del_only
