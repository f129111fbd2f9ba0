"""Clients and workers that are copied, pickled, or passed to other processes."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE
from tests.sync.test_fork import Child

from .test_connections import KINDS, use

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand

    Load = Callable[[str], Any]
    Copying = Callable[[Any], Any]


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, by_pickle], ids=["copy", "deepcopy", "pickle"]
)


@COPIES
def test_copies_work(load: Load, copied: Copying, host: str, task: str) -> None:
    """A copy has the same servers, functions, client id and encoders, and its own connections."""
    counting = load("counting_worker")
    worker = counting.MultiGearmanWorker([host], jobs=1)
    worker.set_client_id(f"{task}-worker")
    worker.register_task(task, counting.count_down)
    client = load("settings").GearmanClient()
    client.connection_list = []
    client.add_connection(host)
    other_worker, other_client = copied(worker), copied(client)
    assert other_worker.connection_list == worker.connection_list
    assert other_worker.connection_list[0] is not worker.connection_list[0]
    request = other_client.submit_job(task, b"data", wait_until_complete=False)
    assert counting.gearman_work(other_worker, PATIENCE) == 0
    other_client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.result == b"data"
    assert worker.jobs == 1
    assert other_client.connection_list[0].connected
    assert not client.connection_list[0].connected
    other_client.shutdown()
    assert client.submit_job(task, b"", background=True).complete
    assert counting.gearman_work(worker, PATIENCE) == 0
    client.shutdown()


@COPIES
@KINDS
def test_copy_is_not_connected(
    gearman: Any, copied: Copying, kind: str, host: str, task: str
) -> None:
    used = getattr(gearman, kind)([host])
    use(used, kind, task)
    with pytest.raises(TypeError, match="has connected, so it can't be copied"):
        copied(used)
    used.connection_list[0].close()
    copied(used)
    used.shutdown()


@COPIES
def test_copy_of_a_connection_has_no_owner(load: Load, copied: Copying) -> None:
    """A copy has the same server and settings, and no owner."""
    module = load("settings")
    connection = module.GearmanConnection("host", 4711)
    other = copied(connection)
    assert type(other) is module.GearmanConnection
    assert other == connection
    assert other.get_address() == ("host", 4711)
    assert other.address.keepintvl == 11
    assert not other.connected
    assert len({connection, other}) == 1


@COPIES
def test_jobs_can_be_copied(gearman: Any, copied: Copying) -> None:
    job = gearman.job.GearmanJob(None, "H:host:1", "task", "unique", "data")
    other = copied(job)
    assert other.to_dict() == job.to_dict()
    assert other.task.decode() == "task"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fork_of_a_polled_worker_connects_anew(
    load: Load, client: Any, server: Gearmand, host: str, task: str
) -> None:
    """The child creates its own connections at once, and does not touch its parent's."""
    counting = load("counting_worker")
    worker = counting.MultiGearmanWorker([host], jobs=1)
    worker.register_task(task, counting.count_down)
    (connection,) = worker.establish_worker_connections()

    def in_child() -> tuple[int, bool]:
        established = worker.establish_worker_connections()
        return len(established), counting.gearman_work(worker, 0.5) in (0, 1)

    client.submit_job(task, b"", background=True)
    assert Child(in_child).result() == (1, True)
    assert connection.connected
    assert server.counts(task) == (0, 0, 1)
    client.submit_job(task, b"", background=True)
    assert counting.gearman_work(worker, PATIENCE) == 0
