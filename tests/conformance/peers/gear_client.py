"""A client of gear: the arguments are HOST:PORT, the function and payloads."""

from __future__ import annotations

import os
import sys
import time

import gear


def main(address: str, function: str, *payloads: str) -> None:
    host, port = address.rsplit(":", 1)
    client = gear.Client("gear")
    lost: list[gear.Job] = []
    # gear calls this with each unfinished job of a lost connection.
    client.handleDisconnect = lost.append
    client.addServer(host, int(port))
    client.waitForServer(10)
    # Don't request exceptions: gear's server does not reply, which ends the connection.
    jobs = [
        gear.Job(function, sys.stdin.buffer.read() if data == "-" else os.fsencode(data))
        for data in payloads
    ]
    for job in jobs:
        # Raises an error if no server accepts the job.
        client.submitJob(job, timeout=10)
    # gear reports the end of a job only to handlers, so poll. It reconnects within the interval,
    # so `active_connections` alone would miss a lost connection.
    while not (all(job.complete for job in jobs) or lost):
        time.sleep(0.01)
    for job in jobs:
        if not job.complete or job.failure:
            sys.exit(f"the job has failed: {job.exception!r}")
    sys.stdout.buffer.write(b"\n".join(b"".join(job.data) for job in jobs))


if __name__ == "__main__":
    main(*sys.argv[1:])
