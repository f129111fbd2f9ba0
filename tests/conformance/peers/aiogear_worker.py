"""A worker of aiogear: the argument is HOST:PORT. A signal ends it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiogear import Worker

# aiogear decodes payloads as text. Without WORK_STATUS and WORK_DATA, it has no `progress`.


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
    # aiogear's own task misses a lost connection, as after a payload that is not text.
    while worker.transport is not None:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.1)
    sys.exit("the connection was lost")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
