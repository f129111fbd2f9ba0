"""Every client gets its jobs done by every worker, through every server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.peers import CLIENTS, SERVERS, WORKERS, Client, JobFailed, Peers, counts
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYLOADS = {
    "text": b"some text",
    "empty": b"",
    "binary": b"\0\0\xff\xfe\0REQ\r\n.\n\0",
    "300 kB": bytes(range(256)) * 1200,
}


# The server is the first part of a test's id.
pytestmark = pytest.mark.usefixtures("no_hang", "server")


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with Peers() as peers:
        yield peers


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, peers: Peers, server: str) -> Client:
    return peers.client(server, request.param)


@pytest.fixture(params=WORKERS)
def prefix(request: pytest.FixtureRequest, peers: Peers, server: str) -> str:
    """What the tasks of the worker begin with."""
    return peers.worker(server, request.param)


@pytest.mark.parametrize("data", PAYLOADS.values(), ids=PAYLOADS)
def test_result(client: Client, prefix: str, data: bytes) -> None:
    assert client.run(prefix + "wrap", data) == b"<" + data + b">"


def test_jobs_one_after_the_other(client: Client, prefix: str) -> None:
    for data, priority in [(b"1", None), (b"2", "high"), (b"3", "low"), (b"4", None)]:
        assert client.run(prefix + "wrap", data, priority) == b"<" + data + b">"


def test_failure(client: Client, prefix: str) -> None:
    with pytest.raises(JobFailed):
        client.run(prefix + "fail", b"data")
    # Both are good for more.
    with pytest.raises(JobFailed):
        client.run(prefix + "fail", b"")
    assert client.run(prefix + "wrap", b"data") == b"<data>"


def test_background(peers: Peers, server: str, client: Client, prefix: str, tmp_path: Path) -> None:
    task = prefix + "touch"
    files = {priority: tmp_path / str(priority) for priority in (None, "high", "low")}
    for priority, file in files.items():
        client.queue(task, bytes(file), priority)
    for file in files.values():
        eventually(file.exists, f"a job that makes {file}")
    eventually(lambda: counts(peers.address(server), task) == (0, 0, 1), "the end of all jobs")
