"""Clients and workers that have not connected can be copied and pickled."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_anyio
import gearman_sync as gearman

if TYPE_CHECKING:
    from collections.abc import Callable

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda thing: pickle.loads(pickle.dumps(thing)),
]


def reverse(worker: Any, job: gearman.WorkerJob) -> bytes:
    data: bytes = job.data
    return data[::-1]


@pytest.mark.parametrize("copied", COPIES)
def test_copies_work(copied: Callable[[Any], Any], gearman_server: gearman.HostAndPort) -> None:
    worker = gearman.GearmanWorker([gearman_server])
    worker.register_task("reverse", reverse)
    other = copied(worker)
    thread = threading.Thread(target=other.work)
    thread.start()
    try:
        with gearman.GearmanClient([gearman_server]) as client, copied(client) as second:
            for each in (client, second):
                assert each.submit_job("reverse", b"abc", poll_timeout=20).result == b"cba"
            with pytest.raises(TypeError, match="has connected"):
                copied(client)
    finally:
        other.stop()
        thread.join()
    worker.shutdown()
    with pytest.raises(TypeError, match="has connected"):
        copied(worker)


@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_an_admin_client(
    copied: Callable[[Any], Any], gearman_server: gearman.HostAndPort
) -> None:
    with gearman.GearmanAdminClient([gearman_server], 5) as original:
        with copied(original) as client:
            assert (client.poll_timeout, len(client.get_workers())) == (5, 1)
        assert len(original.get_workers()) == 1


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize(
    "kind",
    [gearman_anyio.GearmanAdminClient, gearman_anyio.GearmanClient, gearman_anyio.GearmanWorker],
)
def test_copies_of_async_classes(kind: Any, copied: Callable[[Any], Any]) -> None:
    assert repr(copied(kind(["one:1"], connect_timeout=2.0))) == repr(kind(["one:1"]))
