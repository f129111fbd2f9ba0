"""A worker with servers given as dicts, which retries after a lost connection, and its client."""

# ruff: noqa: E402, TRY400

import gearman_sync

gearman_sync.install_as_gearman()

import json
import logging
import socket
import time
from typing import Any

import gearman.errors
from gearman import GearmanClient, GearmanWorker
from gearman.constants import JOB_UNKNOWN

from tests.compat.programs.json_encoder import JSONDataEncoder

LOG = logging.getLogger("pool")


class JSONGearmanWorker(GearmanWorker):  # type: ignore[misc]
    data_encoder = JSONDataEncoder


class JSONGearmanClient(GearmanClient):  # type: ignore[misc]
    data_encoder = JSONDataEncoder


def server_list(servers: list[str]) -> list[dict[str, Any]]:
    found = []
    for host_port in servers:
        host, port = host_port.split(":")
        keys = dict.fromkeys(("keyfile", "certfile", "ca_certs"))
        times = {"keepalive": False, "keepcnt": None, "keepidle": None, "keepintvl": None}
        found.append({"host": host, "port": int(port), **keys, **times})
    return found


def handler(worker: Any, job: Any) -> Any:
    LOG.debug("Received JSON message: %s", json.dumps(job.data))
    if job.data["action"] == "quit":
        raise KeyboardInterrupt
    return {"response": "PASS", "device": job.task}


def make_worker(servers: list[str], task: str) -> JSONGearmanWorker:
    worker = JSONGearmanWorker(server_list(servers))
    worker.set_client_id(socket.gethostname())
    worker.register_task(task, handler)
    worker.logger = LOG
    return worker


def work(worker: JSONGearmanWorker, poll: float, sleep: float) -> None:
    retry = True
    while retry:
        try:
            worker.work(poll)
        except KeyboardInterrupt:
            retry = False
        except gearman.errors.ServerUnavailable:
            LOG.error("Job server(s) went away. Reconnecting.")
            time.sleep(sleep)
            retry = True
        except Exception:
            LOG.exception("Exception in worker")
            retry = False


def send_pings(client: JSONGearmanClient, nodes: list[str], timeout: float) -> tuple[Any, Any]:
    jobs = [{"task": str(node), "data": {"action": "PING"}} for node in nodes]
    submitted = client.submit_multiple_jobs(
        jobs, background=False, wait_until_complete=True, poll_timeout=timeout
    )
    failed, results = [], {}
    for ping in submitted:
        if ping.state == JOB_UNKNOWN or ping.timed_out:
            failed.append(ping.job.task)
        else:
            results[ping.job.task] = ping.result
    return failed, results
