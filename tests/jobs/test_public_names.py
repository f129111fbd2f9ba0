"""The names that users see on the objects they hold."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.jobs.job import DeferredJob, GearmanJob, WorkerJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning, UpdateQueue

_JOB = "connection data handle task unique"

NAMES: dict[type, str] = {
    GearmanJob: _JOB,
    WorkerJob: f"""{_JOB} defer ended is_lost send_data send_status send_warning wire_handle
        wire_task""",
    GearmanJobRequest: f"""{_JOB} background complete connection_attempts data_updates error
        exception from_handle from_unique gearman_job job max_connection_attempts priority reason
        reducer reset result run_at state status status_updates timed_out warning_updates""",
    DeferredJob: "complete fail job send_status",
    UpdateQueue: "count index popleft",
    JobData: "data",
    JobWarning: "data",
    JobProgress: "denominator numerator",
    JobEnded: "exception result state",
}


@pytest.mark.parametrize("kind", NAMES)
def test_dir_of_class_shows_documented_names_only(kind: Any) -> None:
    # Records list their fields in `__slots__` or as annotations.
    found = {*dir(kind), *getattr(kind, "__annotations__", ())}
    assert {name for name in found if not name.startswith("_")} == {*NAMES[kind].split()}


@pytest.mark.parametrize("kind", [GearmanJob, WorkerJob, GearmanJobRequest])
def test_each_public_name_is_documented(kind: Any) -> None:
    documented = kind.__doc__
    for name in NAMES[kind].split():
        attribute = getattr(kind, name)
        is_described = isinstance(attribute, property) or callable(attribute)
        assert (is_described and attribute.__doc__) or name in documented, name


@pytest.mark.parametrize("kind", [GearmanJob, WorkerJob, GearmanJobRequest])
def test_private_attributes_share_the_prefix_that_subclasses_avoid(kind: Any) -> None:
    names = {name for name in dir(kind) if name.startswith("_") and not name.startswith("__")}
    assert names
    assert all(name.startswith("_gm_") for name in names)
