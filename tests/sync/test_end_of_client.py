"""The end of a client leaves requests without a waiting call unchanged."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from gearman_sync import GearmanClient, GearmanJobRequest

if TYPE_CHECKING:
    from tests.support import Gearmand


def submit(client: GearmanClient, task: str) -> GearmanJobRequest:
    request = client.submit_job(task, b"", wait_until_complete=False)
    client.wait_until_jobs_completed([request], poll_timeout=0.01)
    return request


def temporary(server: Gearmand, task: str) -> GearmanJobRequest:
    return submit(GearmanClient([server.address]), task)


def deleted(server: Gearmand, task: str) -> GearmanJobRequest:
    client = GearmanClient([server.address])
    request = submit(client, task)
    del client
    return request


def in_a_cycle(server: Gearmand, task: str) -> GearmanJobRequest:
    client = GearmanClient([server.address])
    request = submit(client, task)
    # The unfinished generator and the client are collected together.
    stream = client.as_completed([submit(client, task)], poll_timeout=60)
    client.__dict__["me"] = [client, stream]
    del client, stream
    gc.collect()
    return request


def shut_down(server: Gearmand, task: str) -> GearmanJobRequest:
    client = GearmanClient([server.address])
    request = submit(client, task)
    client.shutdown()
    return request


def left(server: Gearmand, task: str) -> GearmanJobRequest:
    with GearmanClient([server.address]) as client:
        return submit(client, task)


@pytest.mark.parametrize("end", [temporary, deleted, in_a_cycle, shut_down, left])
def test_it_stays_as_it_is(server: Gearmand, task: str, end: object) -> None:
    assert callable(end)
    request = end(server, task)
    gc.collect()
    assert (request.state, request.timed_out, request.error) == ("CREATED", True, None)
    with GearmanClient([server.address]) as client:
        client.wait_until_jobs_completed([request])
    assert (request.state, request.timed_out) == ("UNKNOWN", False)
    assert request.error is not None
