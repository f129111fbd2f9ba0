"""Every client's jobs run on every worker, through every server.

In each combination, the client or the worker is ours, or both belong to the same project and the
server is ours. The worker "exceptions" is ours and sends exceptions.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.peers.peers import CLIENTS, SERVERS, WORKERS, Client, JobFailed, Peers
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYLOADS = [b"", b"\0\0\xff\xfe\0REQ\r\n.\n\0", bytes(range(256)) * 1200]

OURS = "gearman_sync"
# A server, a client and a worker. gearmand adds a NUL to the WORK_FAIL that it makes of an
# exception. libgearman's client then keeps waiting, and pygearman's raises a KeyError.
COMBINATIONS = [
    (server, client, worker)
    for server, client, worker in itertools.product(SERVERS, CLIENTS, WORKERS)
    if (OURS in (client, worker) and worker != "exceptions")
    or (server == "JobServer" and worker in (client, "exceptions"))
]

pytestmark = pytest.mark.usefixtures("no_hang", "names")


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with Peers() as peers:
        yield peers


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def names(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    names: tuple[str, str, str] = request.param
    return names


@pytest.fixture
def client(peers: Peers, names: tuple[str, str, str]) -> Client:
    server, client, _ = names
    return peers.client(server, client)


@pytest.fixture
def prefix(peers: Peers, names: tuple[str, str, str]) -> str:
    """The prefix of the worker's tasks."""
    server, _, worker = names
    return peers.worker(server, worker)


def test_result_or_failure(client: Client, prefix: str) -> None:
    for data, priority in zip(PAYLOADS, [None, "high", "low"], strict=True):
        assert client.run(prefix + "wrap", data, priority) == b"<" + data + b">"
    for data in (b"data", b""):
        with pytest.raises(JobFailed):
            client.run(prefix + "fail", data)
    # The client and the worker still work.
    assert client.run(prefix + "wrap", b"data") == b"<data>"


def test_background(
    peers: Peers, names: tuple[str, str, str], client: Client, prefix: str, tmp_path: Path
) -> None:
    task = prefix + "touch"
    files = {priority: tmp_path / str(priority) for priority in (None, "high", "low")}
    for priority, file in files.items():
        client.queue(task, bytes(file), priority)
    for file in files.values():
        eventually(file.exists, f"a job that makes {file}")
    eventually(lambda: peers.server(names[0]).counts(task) == (0, 0, 1), "the end of all jobs")
