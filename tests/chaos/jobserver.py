"""A JobServer as a process: `python -m tests.chaos.jobserver sync|asyncio|trio PORT`."""

from __future__ import annotations

import sys

import anyio

import gearman_anyio
import gearman_sync


async def _serve(port: int) -> None:
    async with gearman_anyio.JobServer(port=port, job_retries=None) as server:
        await server.wait()


def main() -> None:
    """Run the server until it is killed."""
    adapter, port = sys.argv[1], int(sys.argv[2])
    if adapter == "sync":
        with gearman_sync.JobServer(port=port, job_retries=None) as server:
            server.wait()
    else:
        anyio.run(_serve, port, backend=adapter)


if __name__ == "__main__":
    main()
