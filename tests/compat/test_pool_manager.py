"""A program with servers as dicts, a retry loop around `work`, and a client that sends pings."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, free_port, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]
    Server = Gearmand | EmbeddedServer


@pytest.mark.slow
def test_pings_are_answered(load: Load, server: Server, host: str, task: str) -> None:
    """Names of functions from requests serve as keys of results, and are submitted again."""
    module = load("pool_manager")
    worker = module.make_worker([host], task)
    call = spawn(module.work, worker, 60, 0.01)
    client = module.JSONGearmanClient(module.server_list([host]))
    absent = f"{task}-absent"
    failed, results = module.send_pings(client, [task, absent], timeout=2.0)
    assert failed == [absent]
    assert results == {task: {"response": "PASS", "device": task}}
    assert module.send_pings(client, failed, timeout=0.01)[0] == [absent]
    client.submit_job(task, {"action": "quit"}, wait_until_complete=False)
    call.result(PATIENCE)  # The callback has raised KeyboardInterrupt.
    assert not worker.connection_list[0].connected
    client.shutdown()


def test_retry_loop_survives_a_dead_server(
    load: Load, launch: Callable[[], Server], task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop survives all exceptions of `work`, and does jobs again once a server is up."""
    caplog.set_level(logging.ERROR, "pool")
    server = launch()
    server.kill()
    module = load("pool_manager")
    hosts = ["{}:{}".format(*server.address), f"127.0.0.1:{free_port()}"]
    worker = module.make_worker(hosts, task)
    call = spawn(module.work, worker, 60, 0.01)
    eventually(lambda: len(caplog.messages) > 2)
    assert set(caplog.messages) == {"Job server(s) went away. Reconnecting."}
    server.start()
    client = module.JSONGearmanClient(module.server_list(hosts))
    assert module.send_pings(client, [task], timeout=PATIENCE)[0] == []
    client.submit_job(task, {"action": "quit"}, wait_until_complete=False)
    call.result(PATIENCE)
    client.shutdown()


def test_shutdown_ends_a_worker_in_a_thread(
    load: Load, server: Server, host: str, task: str
) -> None:
    module = load("pool_manager")
    worker = module.make_worker([host], task)
    thread = threading.Thread(target=module.work, args=(worker, 60, 0.01))
    thread.start()
    eventually(lambda: server.counts(task)[2] == 1)
    worker.shutdown()
    thread.join(PATIENCE)
    assert not thread.is_alive()
