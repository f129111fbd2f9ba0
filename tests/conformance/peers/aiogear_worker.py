"""A worker of aiogear: the argument is HOST:PORT. A signal ends it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiogear import Worker

# A payload is text to it. It sends neither WORK_STATUS nor WORK_DATA, so there is no `progress`.


def reverse(job: Any) -> bytes:
    payload: str = job.workload
    return payload.encode()[::-1]


def fail(job: Any) -> bytes:
    raise RuntimeError("this job fails")


async def slow(job: Any) -> bytes:
    await asyncio.sleep(0.5)
    payload: str = job.workload
    return payload.encode()


async def main(address: str) -> None:
    host, port = address.rsplit(":", 1)
    _, worker = await asyncio.get_running_loop().create_connection(
        lambda: Worker(reverse, fail, slow), host, int(port)
    )
    # Its own task does not notice that the connection is lost, as after a payload that is not text.
    while worker.transport is not None:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.1)
    sys.exit("the connection was lost")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
