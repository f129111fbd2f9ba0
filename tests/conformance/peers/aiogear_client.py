"""A client of aiogear: the arguments are HOST:PORT, the function and the payload."""

from __future__ import annotations

import asyncio
import os
import sys

from aiogear import Client
from aiogear.response import WorkComplete


async def main(address: str, function: str, data: str) -> None:
    host, port = address.rsplit(":", 1)
    payload = sys.stdin.buffer.read() if data == "-" else os.fsencode(data)
    _, client = await asyncio.get_running_loop().create_connection(Client, host, int(port))
    client.option_req("exceptions")  # Don't await the call: gear's server does not reply to it.
    job = await client.submit_job(function, payload)
    # aiogear has no timeout, and reports no lost connection to a waiting job.
    answer = await client.wait_job(job.handle)
    await client.disconnect()
    if not isinstance(answer, WorkComplete):
        sys.exit(f"the job has failed: {answer}")
    sys.stdout.buffer.write(answer.result.encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
