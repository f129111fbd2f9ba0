"""A client of gear: the arguments are HOST:PORT, the function and the payload."""

from __future__ import annotations

import os
import sys
import time

import gear


def main(address: str, function: str, data: str) -> None:
    host, port = address.rsplit(":", 1)
    payload = sys.stdin.buffer.read() if data == "-" else os.fsencode(data)
    client = gear.Client("gear")
    client.addServer(host, int(port))
    client.waitForServer(10)
    # It does not ask for exceptions: gear's server does not answer that, which ends the connection.
    job = gear.Job(function, payload)
    client.submitJob(job, timeout=10)  # It raises an error if no server takes it.
    # Nothing tells a program without handlers of its own that a job has ended.
    while not job.complete and client.active_connections:
        time.sleep(0.01)
    if not job.complete or job.failure:
        sys.exit(f"the job has failed: {job.exception!r}")
    sys.stdout.buffer.write(b"".join(job.data))


if __name__ == "__main__":
    main(*sys.argv[1:])
