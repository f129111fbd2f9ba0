"""Exceptions pass from our worker to our client through both servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from gearman_sync import JOB_FAILED, GearmanClient
from tests.peers.peers import CLIENTS, SERVERS, JobFailed, OurWorker
from tests.support import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.peers import Server

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")

TASK = "ours-fail"
TEXT = b"this job fails"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with a worker that sends exceptions."""
    with contextlib.ExitStack() as stack:
        server = SERVERS[request.param]()
        stack.callback(server.kill)
        stack.callback(OurWorker(server.address, "ours-", exceptions=True).close)
        eventually(lambda: server.counts(TASK)[2], "a worker")
        yield server


@pytest.mark.parametrize("enabled", [False, True])
def test_client_receives_exceptions_if_enabled(server: Server, enabled: bool) -> None:
    with GearmanClient([server.address], exceptions=enabled) as client:
        request = client.submit_job(TASK, b"data", poll_timeout=PATIENCE)
    assert request.state == JOB_FAILED
    assert (TEXT in (request.exception or b"")) is enabled
    assert not request.warning_updates


# gearmand adds a NUL to the WORK_FAIL that it makes of an exception. libgearman's client then keeps
# waiting, and pygearman's raises a KeyError.
@pytest.mark.parametrize("server", ["JobServer"], indirect=True)
@pytest.mark.parametrize("name", ["libgearman", "pygearman", "gear"])
def test_other_clients_see_a_failure(server: Server, name: str) -> None:
    client = CLIENTS[name](server.address)
    try:
        with pytest.raises(JobFailed):
            client.run(TASK, b"data")
        assert client.run("ours-wrap", b"data") == b"<data>"
    finally:
        client.close()
