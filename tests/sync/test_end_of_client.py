"""The end of a client by garbage collection."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from gearman_sync import GearmanClient

if TYPE_CHECKING:
    from tests.support import Gearmand


@pytest.mark.parametrize("is_in_a_cycle", [False, True])
def test_collected_client_leaves_its_requests_as_they_are(
    gearmand: Gearmand, task: str, is_in_a_cycle: bool
) -> None:
    """An open socket would warn, and warnings are errors."""
    client = GearmanClient([gearmand.address])
    request, other = (client.submit_job(task, b"", wait_until_complete=False) for _ in range(2))
    client.wait_until_jobs_completed([request], poll_timeout=0.01)
    if is_in_a_cycle:
        # The unfinished generator and the client are collected together.
        client.__dict__["me"] = [client, client.as_completed([other], poll_timeout=60)]
    del client
    gc.collect()
    assert (request.state, request.timed_out, request.error) == ("CREATED", True, None)
    with GearmanClient([gearmand.address]) as client:
        client.wait_until_jobs_completed([request])
    assert (request.state, request.timed_out) == ("UNKNOWN", False)
