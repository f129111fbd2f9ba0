"""A client of gear: the arguments are host, port and the seconds for a job.

It reads pickled jobs and writes, for each, whether it has failed, and its result.
"""

from __future__ import annotations

import pickle
import sys
import threading
from typing import Any

import gear


class Client(gear.Client):  # type: ignore[misc]
    """A client that reports when a job has ended."""

    def __init__(self) -> None:
        super().__init__("gear")
        self.ended = threading.Event()

    def handleWorkComplete(self, packet: Any) -> Any:  # noqa: N802 - gear's name
        job = super().handleWorkComplete(packet)
        self.ended.set()
        return job

    def handleWorkFail(self, packet: Any) -> Any:  # noqa: N802 - gear's name
        job = super().handleWorkFail(packet)
        self.ended.set()
        return job


def main(host: str, port: str, patience: str) -> None:
    client = Client()
    client.addServer(host, int(port))
    client.waitForServer(float(patience))

    while True:
        task, data, priority, background = pickle.load(sys.stdin.buffer)
        client.ended.clear()
        request = gear.Job(task, data)
        precedence = getattr(gear, f"PRECEDENCE_{(priority or 'normal').upper()}")
        client.submitJob(
            request, background=background, precedence=precedence, timeout=float(patience)
        )
        assert background or client.ended.wait(float(patience))
        pickle.dump((request.failure, b"".join(request.data)), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
