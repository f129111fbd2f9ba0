"""A client of gearman_sync: the arguments are HOST:PORT, the function and the payload."""

from __future__ import annotations

import os
import sys

import gearman_sync as gearman


def main(address: str, function: str, data: str) -> None:
    payload = sys.stdin.buffer.read() if data == "-" else os.fsencode(data)
    with gearman.GearmanClient([address]) as client:
        request = client.submit_job(function, payload)
    if request.state != gearman.JOB_COMPLETE:
        sys.exit(f"the job has not completed: {request.state}, {request.exception!r}")
    sys.stdout.buffer.write(request.result)


if __name__ == "__main__":
    main(*sys.argv[1:])
