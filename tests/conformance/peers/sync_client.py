"""A client of pygearman or gearman_sync: the module, then HOST:PORT, the function and payloads."""

from __future__ import annotations

import importlib
import os
import sys


def main(module: str, address: str, function: str, *payloads: str) -> None:
    gearman = importlib.import_module(module)
    jobs = [
        {"task": function, "data": sys.stdin.buffer.read() if data == "-" else os.fsencode(data)}
        for data in payloads
    ]
    client = gearman.GearmanClient([address])
    # Without a timeout, pygearman does not wait at all.
    timeout = {"poll_timeout": 10.0} if module == "gearman" else {}
    requests = client.submit_multiple_jobs(jobs, **timeout)
    client.shutdown()
    for request in requests:
        if request.state != gearman.JOB_COMPLETE:
            sys.exit(f"the job has not completed: {request.state}, {request.exception!r}")
    sys.stdout.buffer.write(b"\n".join(request.result for request in requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
