"""The modules that old programs import from, and methods that they override."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gearman_sync as gearman
from gearman_proto import errors as proto_errors
from gearman_sync import GearmanClient

if TYPE_CHECKING:
    from tests.support import Gearmand


def test_package_has_the_names_and_modules_of_python_gearman() -> None:
    assert gearman.PRIORITY_NONE is None
    states = ("UNKNOWN", "PENDING", "CREATED", "FAILED", "COMPLETE")
    assert tuple(getattr(gearman, f"JOB_{state}") for state in states) == states
    assert gearman.constants.PRIORITY_HIGH is gearman.PRIORITY_HIGH
    assert gearman.job.GearmanJobRequest is gearman.GearmanJobRequest
    assert gearman.job.GearmanJob is gearman.GearmanJob
    for name in proto_errors.__all__:
        assert getattr(gearman.errors, name) is getattr(proto_errors, name)


def test_overridden_methods_of_a_subclass_are_called(gearmand: Gearmand, task: str) -> None:
    calls = []

    class Client(GearmanClient):
        def submit_multiple_jobs(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("jobs")
            return super().submit_multiple_jobs(*args, **kwargs)

        def submit_multiple_requests(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("requests")
            return super().submit_multiple_requests(*args, **kwargs)

    with Client([gearmand.address]) as client:
        assert client.submit_job(task, b"data", background=True).complete
        assert calls == ["jobs", "requests"]
