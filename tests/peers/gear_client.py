"""A client of gear: the arguments are host, port and the seconds for a job."""

from __future__ import annotations

import sys
import threading
from typing import Any

import gear

from tests.peers.scripts import Answer, Submit, serve


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

    def submit(job: Submit) -> Answer:
        client.ended.clear()
        request = gear.Job(job.task, job.data)
        client.submitJob(
            request,
            background=job.background,
            precedence={
                None: gear.PRECEDENCE_NORMAL,
                "high": gear.PRECEDENCE_HIGH,
                "low": gear.PRECEDENCE_LOW,
            }[job.priority],
            timeout=float(patience),
        )
        if job.background:
            return Answer(failed=False, result=None)
        assert client.ended.wait(float(patience))
        return Answer(request.failure, b"".join(request.data))

    serve(submit)


if __name__ == "__main__":
    main(*sys.argv[1:])
