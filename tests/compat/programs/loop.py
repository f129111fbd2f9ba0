"""A worker that is interrupted.

The arguments are the kind of interruption, the server and the task.
"""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import signal
import sys
import threading
from typing import Any

import gearman

signalled = threading.Event()


class Stop(Exception):
    """Raised by a signal handler."""


def callback(worker: Any, job: Any) -> Any:
    print("job", job.data.decode(), flush=True)
    if job.data == b"exit":
        sys.exit(4)
    if job.data == b"hang":
        # A signal that arrives just before a sleep does not end it, so no sleep is long.
        while not signalled.wait(1.0):
            pass
    return job.data


def poll(worker: Any) -> None:
    connections: Any = []
    going_on = True
    while going_on:
        try:
            connections = worker.establish_worker_connections()
            print("connected", len(connections), flush=True)
            going_on = worker.poll_connections_until_stopped(connections, lambda _: True)
        except Stop:
            print("stopped", flush=True)
            going_on = False
    for connection in connections:
        connection.close()
    print("closed", flush=True)


def main(how: str, server: str, task: str) -> None:
    def handle(number: int, frame: Any) -> None:
        signalled.set()
        if how == "raise":
            raise Stop
        worker.shutdown()

    signal.signal(signal.SIGTERM, handle)
    worker = gearman.GearmanWorker([server])
    worker.register_task(task, callback)
    if how == "work":
        worker.work()
        print("returned", flush=True)
    else:
        poll(worker)


if __name__ == "__main__":
    main(*sys.argv[1:])
