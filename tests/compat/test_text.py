"""The modes with data as str, for programs written for python3_gearman or py3gearman."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync
from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable


def do(worker: Any, job: Any) -> str:
    worker.send_job_data(job, "part of " + job.data)
    worker.send_job_warning(job, "warned of " + job.data)
    if job.data == "fail":
        worker.send_job_exception(job, "ß")
    return "got " + str(job.data)


@pytest.mark.parametrize("name", ["python3_gearman", "py3gearman", "gearman"])
def test_data_of_jobs_results_and_updates_is_str(
    nothing: None, work: Callable[..., Any], host: str, task: str, name: str
) -> None:
    if name == "gearman":
        gearman_sync.install_as_gearman(text=True)
    else:
        gearman_sync.install_as_gearman(name)
    library: Any = importlib.import_module(name)
    client_module: Any = importlib.import_module(f"{name}.client")
    worker_module: Any = importlib.import_module(f"{name}.worker")
    assert client_module.GearmanClient is library.GearmanClient
    worker = worker_module.GearmanWorker([host])
    worker.register_task(task, do)
    work(worker)
    client = library.GearmanClient([host])
    # py3gearman's own default is a background job.
    request = client.submit_job(task, "this", background=False, poll_timeout=PATIENCE)
    assert request.result == "got this"
    assert list(request.data_updates) == ["part of this"]
    assert list(request.warning_updates) == ["warned of this"]
    assert client.submit_job(task, "fail", background=False, poll_timeout=PATIENCE).exception == "ß"
    client.shutdown()


def test_data_is_bytes_if_the_program_wants_bytes(nothing: None) -> None:
    gearman_sync.install_as_gearman("py3gearman", text=False)
    library: Any = importlib.import_module("py3gearman")
    assert library.GearmanClient().data_encoder is library.connection_manager.NoopEncoder


def test_second_installation_with_other_data_raises(gearman: Any) -> None:
    """One program can't have both kinds of data under one name."""
    with pytest.raises(RuntimeError, match="gearman is imported already"):
        gearman_sync.install_as_gearman(text=True)
