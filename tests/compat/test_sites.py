"""Programs of web sites: commands that run workers, and functions with pickled arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, spawn

from .support import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import ScriptedClient

    from .support import Running

    Load = Callable[[str], Any]
    Work = Callable[..., Any]
    Server = Gearmand | EmbeddedServer


def test_after_job_ends_the_work(load: Load, server: Server, host: str, task: str) -> None:
    module = load("hooked_commands")
    client = module.gearman.GearmanClient([host])
    for number in range(2):
        module.submit_job(task, data=str(number), client=client)
    done = []
    for left in (1, 0):
        worker = module.HookedGearmanWorker(exit_after_job=True, host_list=[host])
        worker.register_task(task, lambda worker, job: done.append(job.data))
        worker.work()
        assert server.counts(task) == (left, 0, 0)
    assert done == [b"0", b"1"]
    client.shutdown()


@pytest.mark.slow
def test_copy_of_work_ends_without_jobs(
    start: Callable[..., Running], gearman: Any, gearmand: Gearmand, task: str
) -> None:
    """The program forks for each job while connected, and ends after some time without a job."""
    host = "{}:{}".format(*gearmand.address)
    command = start(PROGRAMS / "hooked_commands.py", host, task, 3)
    client = gearman.GearmanClient([host])
    for data in (b"1", b"2", b"3"):
        request = client.submit_job(task, data, poll_timeout=PATIENCE)
        assert (request.state, request.result) == ("COMPLETE", data)
    out, errors, status = command.end()
    assert (out, status) == ("halted 1\n", 0), errors
    eventually(lambda: gearmand.counts(task)[2] == 0)
    client.shutdown()


def test_server_report_is_complete(load: Load, link: ScriptedClient, host: str, task: str) -> None:
    module = load("hooked_commands")
    worker = module.gearman.GearmanWorker([host])
    worker.set_client_id("reporter")
    worker.register_task(task, print)
    worker.register_task(f"{task}-2", print)
    worker.establish_worker_connections()
    link.echo()
    eventually(lambda: "reporter" in module.server_info(host, task))
    first, *tasks, row = module.server_info(host, task).splitlines()
    assert first.startswith(f"{host} ")
    assert tasks == [f"{task} 1 0 0", f"{task}-2 1 0 0"]
    address, names, client_id, descriptor = row.split(" ")
    assert (address, client_id) == ("127.0.0.1", "reporter")
    assert sorted(names.split(",")) == [task, f"{task}-2"]
    assert int(descriptor) > 0
    worker.shutdown()


@pytest.fixture
def site(load: Load, host: str) -> Any:
    module = load("pickled_tasks")
    module.SiteClient.servers = module.SiteWorker.servers = [host]
    return module


def test_pickled_arguments_reach_functions(site: Any, work: Work, task: str) -> None:
    def function(*args: Any, **kwargs: Any) -> Any:
        return {"args": args, "kwargs": kwargs}

    worker = site.SiteWorker()
    worker.register_task(task, site.gearman_job(function))
    work(worker)
    client = site.SiteClient()
    assert client.submit_job(task).result == {"args": (), "kwargs": {}}
    assert client.submit_job(task, {1, 2}).result == {"args": ({1, 2},), "kwargs": {}}
    result = client.submit_job(task, args=(1, None), kwargs={"a": b"b"}).result
    assert result == {"args": (1, None), "kwargs": {"a": b"b"}}
    client.shutdown()


def test_background_tasks_follow_priority(site: Any, server: Server, task: str) -> None:
    """Jobs of high priority run first, and the returned handle allows querying the status."""
    client = site.SiteClient()
    order: list[Any] = []
    low = client.dispatch_background_task(task, "usual", uniq=f"{task}-1")
    high = client.dispatch_background_task(task, "urgent", high_priority=True)
    assert (low.state, low.complete) == ("CREATED", True)
    assert low.job.handle.startswith("H:")
    assert len(high.job.unique) == 32
    status = client.get_job_status(low).status
    assert (status["known"], status["running"]) == (True, False)
    worker = site.SiteWorker()

    def last(worker: Any, job: Any) -> None:
        order.append(job.data["args"][0])
        if len(order) == 2:
            raise SystemExit

    worker.register_task(task, last)
    call = spawn(worker.work)
    with pytest.raises(SystemExit):
        call.result(PATIENCE)
    assert order == ["urgent", "usual"]
    # The second job was not completed, so another worker does it.
    eventually(lambda: server.counts(f"site.{task}") == (1, 0, 0))
    worker = site.SiteWorker()
    worker.register_task(task, lambda worker, job: worker.stop())
    worker.work()
    assert server.counts(f"site.{task}") == (0, 0, 0)
    client.shutdown()
