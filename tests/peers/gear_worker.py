"""A worker of gear: the arguments are host, port and the prefix of its tasks."""

from __future__ import annotations

import sys

import gear

from tests.peers.functions import FUNCTIONS


def main(host: str, port: str, prefix: str) -> None:
    worker = gear.Worker("gear")
    worker.addServer(host, int(port))
    worker.waitForServer()
    for name in FUNCTIONS:
        worker.registerFunction(prefix + name)
    while True:
        job = worker.getJob()
        try:
            result = FUNCTIONS[job.name.removeprefix(prefix)](job.arguments)
        except Exception:  # noqa: BLE001 - gear leaves it to its users
            job.sendWorkFail()
        else:
            job.sendWorkComplete(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
