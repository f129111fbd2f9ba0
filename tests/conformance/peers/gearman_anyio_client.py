"""A client of gearman_anyio: the backend, then HOST:PORT, the function and payloads."""

from __future__ import annotations

import os
import sys

import anyio

import gearman_anyio as gearman


async def main(*words: str) -> None:
    address, function, *payloads = words
    jobs = [
        {"task": function, "data": sys.stdin.buffer.read() if data == "-" else os.fsencode(data)}
        for data in payloads
    ]
    async with gearman.GearmanClient([address]) as client:
        requests = await client.submit_multiple_jobs(jobs)
    for request in requests:
        if request.state != gearman.JOB_COMPLETE:
            sys.exit(f"the job has not completed: {request.state}, {request.exception!r}")
    sys.stdout.buffer.write(b"\n".join(request.result for request in requests))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
