"""Clients and workers that are copied, pickled, or passed to other processes."""

from __future__ import annotations

import copy
import faulthandler
import os
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE, EmbeddedServer, Gearmand

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]
    Server = Gearmand | EmbeddedServer
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
    client = load("reconnecting").GearmanClient()
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
def test_copy_after_use_works(load: Load, copied: Copying, host: str, task: str) -> None:
    """After use, all connections are closed, so the object can be copied again."""
    counting = load("counting_worker")
    client = load("reconnecting").GearmanClient([host])
    worker = counting.MultiGearmanWorker([host], jobs=1)
    worker.register_task(task, counting.count_down)
    for _ in range(2):
        worker.jobs = 1
        client.submit_job(task, b"", background=True)
        assert counting.gearman_work(worker, PATIENCE) == 0
        worker = copied(worker)
    client.shutdown()


@COPIES
def test_copy_of_a_client_drops_its_queues(load: Load, copied: Copying, host: str) -> None:
    client = load("reconnecting").GearmanClient([host])
    assert client.request_to_rotating_connection_queue.pop(client, None) is None
    assert len(copied(client).request_to_rotating_connection_queue) == 0


@COPIES
@pytest.mark.parametrize("kind", ["client", "worker", "admin"])
def test_copy_is_not_connected(
    gearman: Any, copied: Copying, kind: str, host: str, task: str
) -> None:
    used: Any
    if kind == "client":
        used = gearman.GearmanClient([host])
        used.submit_job(task, b"", background=True)
    elif kind == "worker":
        used = gearman.GearmanWorker([host])
        used.establish_worker_connections()
    else:
        used = gearman.GearmanAdminClient([host])
        used.ping_server()
    with pytest.raises(TypeError, match="has connected, so it can't be copied"):
        copied(used)
    used.connection_list[0].close()
    copied(used)
    used.shutdown()


@COPIES
def test_copy_of_a_connection_has_no_owner(load: Load, copied: Copying) -> None:
    """A copy has the same server and settings, and no owner."""
    module = load("reconnecting")
    connection = module.GearmanConnection("host", 4711)
    other = copied(connection)
    assert type(other) is module.GearmanConnection
    assert other == connection
    assert other.get_address() == ("host", 4711)
    assert other.address.keepintvl == 11
    assert not other.connected
    assert len({connection, other}) == 1


@COPIES
def test_jobs_and_requests_can_be_copied(
    gearman: Any, copied: Copying, host: str, task: str
) -> None:
    client = gearman.GearmanClient([host])
    job = client.submit_job(task, "data", background=True).job
    other = copied(gearman.job.GearmanJob(None, job.handle, job.task, job.unique, job.data))
    assert other.to_dict() == job.to_dict()
    assert other.task.decode() == task
    client.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fork_of_a_polled_worker_connects_anew(
    load: Load, gearman: Any, server: Server, host: str, task: str
) -> None:
    """The child creates its own connections at once, and does not touch its parent's."""
    counting = load("counting_worker")
    worker = counting.MultiGearmanWorker([host], jobs=1)
    worker.register_task(task, counting.count_down)
    client = gearman.GearmanClient([host])
    connections = worker.establish_worker_connections()
    client.submit_job(task, b"", background=True)
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(20, exit=True)
        try:
            established = worker.establish_worker_connections()
            ok = len(established) == 1 and counting.gearman_work(worker, 0.5) in (0, 1)
            os._exit(0 if ok else 1)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert connections[0].connected
    assert server.counts(task) == (0, 0, 1)
    client.submit_job(task, b"", background=True)
    assert counting.gearman_work(worker, PATIENCE) == 0
    client.shutdown()
