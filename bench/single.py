"""Jobs one at a time: each is submitted when the previous one is acknowledged or complete.

Blocking clients are compared with a raw socket, clients on an event loop with a bare anyio stream
on the same loop. Both send prebuilt packets and receive as many replies: JOB_CREATED and, for
foreground jobs, WORK_COMPLETE. A raw socket in another process does the jobs. Each subject has one
process for all rounds, and all subjects take turns on one processor. gearmand and the worker use
the other processors.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from . import processes, raw
from .child import Clock, answer, orders
from .peers import has, loops
from .raw import DATA, TASK
from .rounds import asked
from .tables import RatioColumn, compared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .processes import Child
    from .rounds import Settings
    from .tables import Table

# Rounds are short here, so there are more of them.
_SLICES = 5
RAW, BARE = "raw socket", "bare stream"


def run(settings: Settings) -> Iterator[Table]:
    count = settings.share(500)
    first, others = processes.processors()
    for background in (True, False):
        kind = "background" if background else "foreground"
        with processes.serving(processors=others) as server:
            with processes.on(others):
                worker = processes.python(processes.work, port=server.port)
            with processes.on(first):
                children, baselines = _start(server.port, kind)
            with worker:
                results = asked(children, count, settings.rounds * _SLICES)
        yield compared(
            f"{kind} jobs one at a time",
            results,
            [
                RatioColumn("wall/bare", "wall", baselines),
                RatioColumn("CPU/bare", "cpu", baselines),
            ],
        )


def _start(port: int, kind: str) -> tuple[dict[str, Child], dict[str, str]]:
    """Start all available subjects. Return them, and the baseline of each."""
    background = kind == "background"

    def ours(function: Any, **options: Any) -> Child:
        return processes.python(function, port=port, background=background, **options)

    children = {RAW: ours(raw_socket), "gearman_sync": ours(blocking)}
    baselines = {"gearman_sync": RAW, "libgearman's client": RAW}
    if (client := processes.compiled("client")) is not None:
        children["libgearman's client"] = processes.Child(client, str(port), "single", kind)
    for loop in loops():
        baseline = f"{BARE}, {loop}"
        children[baseline] = ours(bare_stream, loop=loop)
        children[f"gearman_anyio, {loop}"] = ours(waiting, loop=loop)
        baselines[f"gearman_anyio, {loop}"] = baseline
        if loop == "asyncio" and has("aiogear"):
            children["aiogear, asyncio"] = ours(of_aiogear, loop=loop)
            baselines["aiogear, asyncio"] = baseline
    return children, baselines


# Code for the child processes.


def raw_socket(port: int, *, background: bool) -> None:
    with raw.connect(port) as sock:
        for count in orders():
            packets = [raw.submit_packet(background=background) for _ in range(count)]
            with Clock() as clock:
                for packet in packets:
                    raw.exchange(sock, packet, 1 if background else 2)
            answer(clock.result(count))


def blocking(port: int, *, background: bool) -> None:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for count in orders():
            with Clock() as clock:
                for _ in range(count):
                    request = client.submit_job(TASK, DATA, background=background)
            answer(clock.result(count))
            assert request.complete


async def waiting(port: int, *, background: bool) -> None:
    import gearman_anyio  # noqa: PLC0415

    async with gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for count in orders():
            with Clock() as clock:
                for _ in range(count):
                    request = await client.submit_job(TASK, DATA, background=background)
            answer(clock.result(count))
            assert request.complete


async def bare_stream(port: int, *, background: bool) -> None:
    import anyio  # noqa: PLC0415

    size = raw.HEADER.size
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for count in orders():
            packets = [raw.submit_packet(background=background) for _ in range(count)]
            with Clock() as clock:
                for packet in packets:
                    await stream.send(packet)
                    data = b""
                    for _ in range(1 if background else 2):
                        while len(data) < size or len(data) < (
                            end := size + raw.HEADER.unpack_from(data)[2]
                        ):
                            data += await stream.receive()
                        data = data[end:]
            answer(clock.result(count))


async def of_aiogear(port: int, *, background: bool) -> None:
    import aiogear  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    for count in orders():
        # The client stores each job forever, and searches all of them for each answer.
        _, made = await loop.create_connection(aiogear.Client, "127.0.0.1", port)
        client: Any = made
        async with client:
            with Clock() as clock:
                for _ in itertools.repeat(None, count):
                    if background:
                        await client.submit_job_bg(TASK, DATA)
                    else:
                        await client.wait_job((await client.submit_job(TASK, DATA)).handle)
        answer(clock.result(count))
