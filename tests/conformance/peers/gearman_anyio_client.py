"""A client of gearman_anyio: the backend, then HOST:PORT, the function and the payload."""

from __future__ import annotations

import os
import sys

import anyio

import gearman_anyio as gearman


async def main(address: str, function: str, data: str) -> None:
    payload = sys.stdin.buffer.read() if data == "-" else os.fsencode(data)
    async with gearman.GearmanClient([address]) as client:
        request = await client.submit_job(function, payload)
    if request.state != gearman.JOB_COMPLETE:
        sys.exit(f"the job has not completed: {request.state}, {request.exception!r}")
    sys.stdout.buffer.write(request.result)


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], sys.argv[3], sys.argv[4], backend=sys.argv[1])
