"""A worker of gear: the argument is HOST:PORT. A signal ends it."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import gear


def reverse(job: Any) -> None:
    job.sendWorkComplete(job.arguments[::-1])


def fail(job: Any) -> None:
    job.sendWorkFail()


def progress(job: Any) -> None:
    job.sendWorkStatus(1, 2)
    job.sendWorkData(b"half")
    job.sendWorkComplete(job.arguments)


def slow(job: Any) -> None:
    time.sleep(0.5)
    job.sendWorkComplete(job.arguments)


FUNCTIONS = {"reverse": reverse, "fail": fail, "progress": progress, "slow": slow}


def main(address: str) -> None:
    host, port = address.rsplit(":", 1)
    worker = gear.Worker("gear")
    worker.addServer(host, int(port))
    worker.waitForServer()
    for name in FUNCTIONS:
        worker.registerFunction(name)
    while True:
        # If the connection is lost, a grab or the end of a job can raise.
        with contextlib.suppress(OSError):
            job = worker.getJob()
            FUNCTIONS[job.name](job)


if __name__ == "__main__":
    main(*sys.argv[1:])
