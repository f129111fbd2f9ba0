"""A client of pygearman: the arguments are HOST:PORT, the function and payloads."""

from __future__ import annotations

import os
import sys

import gearman


def main(address: str, function: str, *payloads: str) -> None:
    jobs = [
        {"task": function, "data": sys.stdin.buffer.read() if data == "-" else os.fsencode(data)}
        for data in payloads
    ]
    client = gearman.GearmanClient([address])
    # Without a timeout, pygearman does not wait at all.
    requests = client.submit_multiple_jobs(jobs, poll_timeout=10.0)
    for request in requests:
        if request.state != gearman.JOB_COMPLETE:
            sys.exit(f"the job has not completed: {request.state}, {request.exception!r}")
    sys.stdout.buffer.write(b"\n".join(request.result for request in requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
