"""`gearman_anyio` on asyncio and on trio, beside the blocking client, bare streams and a peer.

    python bench/loops.py [--jobs 100000] [--rounds 3]

* ``in one call``: background jobs in one `submit_multiple_jobs`, beside the same of `gearman_sync`.
* ``one at a time``: jobs, a fiftieth of ``--jobs``, each in a `submit_job` that is awaited before
  the next, beside a bare anyio stream on the same event loop that sends the same packets
  ready-made, and receives their replies: JOB_CREATED for background jobs, and for foreground jobs,
  which a worker with a raw socket does in another process, WORK_COMPLETE as well.
* ``in reverse order``: foreground jobs under way at once that end in reverse order, and whether
  each gets its own result.

aiogear 0.2.6 (the dependency group ``bench`` has it) is for asyncio. It has no call for many
background jobs: there it gets a thousand at a time with `asyncio.gather`. It keeps something of
each for ever, and looks through all of that for each answer, so it stops after two seconds.

Each measurement is made in a process of its own, with a gearmand of its own that is started as in
``bench/submit.py``. In one call the peers take turns within a round. One at a time they do so
within a process, in small slices, so that what disturbs the machine disturbs them all; the ratios
are medians of those within each turn. This process has a processor of its own there: whether
it and gearmand share one is else up to the system, and makes a round trip half as long, or twice.
All other figures are medians, too. CPU is this side's, and garbage is collected outside of the
clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import submit
from submit import (
    DATA,
    GEARMAND,
    HEADER,
    PROGRAM,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    TASK,
    Clock,
    connect,
    free_port,
)

import gearman_anyio
import gearman_sync
from gearman_proto import NEED_DATA, Connection, Role, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

BACKENDS = ("asyncio", "trio")
BULK, REVERSE = "in one call", "in reverse order"
BACKGROUND, FOREGROUND = "background jobs one at a time", "foreground jobs one at a time"
BLOCKING, BARE, OURS, PEER = "gearman_sync", "bare stream", "gearman_anyio", "aiogear"
# Of how many jobs of ``--jobs`` there is one that is submitted alone, and in how many slices.
SHARE = 50
SLICES = 10
WARM_UP = 100
# Jobs of aiogear at a time, and after how many seconds there are no more.
GATHERED = 1000
PATIENCE = 2.0
REVERSED = 10

Result = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs in one call")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument(
        "--child", nargs=5, metavar=("MODE", "PEER", "BACKEND", "N", "PORT"), help="internal"
    )
    arguments = parser.parse_args()
    if arguments.child:
        mode, peer, backend, count, port = arguments.child
        print(json.dumps(child(mode, peer, backend, int(count), int(port))))
        return
    if PROGRAM is None:
        sys.exit("this needs gearmand (Debian: apt-get install gearman-job-server)")
    backends = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    loops = [(OURS, backend) for backend in backends]
    if has_aiogear():
        loops.append((PEER, "asyncio"))
    report_bulk(interleaved(BULK, [(BLOCKING, ""), *loops], arguments.jobs, arguments.rounds))
    for backend in backends:
        count = max(arguments.jobs // SHARE, SLICES)
        for mode in (BACKGROUND, FOREGROUND):
            results = interleaved(mode, [("", backend)], count, arguments.rounds)
            report_single(mode, backend, list(itertools.chain(*results["", backend])))
    report_reverse(interleaved(REVERSE, loops, REVERSED, 1))
    for name, remedy in (("trio", "trio"), (PEER, "aiogear==0.2.6")):
        if not importlib.util.find_spec(name):
            print(f"\n{name} is not installed: pip install {remedy}")


def has_aiogear() -> bool:
    return importlib.util.find_spec("aiogear") is not None


def title(peer: str, backend: str) -> str:
    return f"{peer}, {backend}" if backend else peer


def report_bulk(results: dict[tuple[str, str], list[Result]]) -> None:
    def median(key: tuple[str, str], what: str) -> float:
        return statistics.median(result[what] / result["jobs"] for result in results[key])

    print(f"\nbackground jobs {BULK}")
    print(f"{'':24}{'jobs':>9}{'jobs/s':>10}{'wall':>13}{'CPU':>13}{'blocking':>11}{'CPU':>9}")
    for key, measured in results.items():
        jobs = statistics.median(result["jobs"] for result in measured)
        wall, cpu = median(key, "wall"), median(key, "cpu")
        print(
            f"{title(*key):24}{jobs:9,.0f}{1 / wall:10,.0f}{wall * 1e6:10.2f} us"
            f"{cpu * 1e6:10.2f} us{wall / median((BLOCKING, ''), 'wall'):9.2f} x"
            f"{cpu / median((BLOCKING, ''), 'cpu'):7.2f} x"
        )


def report_single(mode: str, backend: str, turns: list[dict[str, Result]]) -> None:
    def median(peer: str, what: str, other: str | None = None) -> float:
        return statistics.median(
            turn[peer][what] / (turn[other][what] if other else turn[peer]["jobs"])
            for turn in turns
        )

    print(f"\n{mode}, on {backend}")
    print(
        f"{'':24}{'jobs':>9}{'jobs/s':>10}{'wall':>13}{'CPU':>13}"
        f"{'bare':>11}{'CPU':>9}{'blocking':>11}"
    )
    for peer in turns[0]:
        wall = median(peer, "wall")
        jobs = turns[0][peer]["jobs"] * SLICES
        print(
            f"{peer:24}{jobs:9,.0f}{1 / wall:10,.0f}{wall * 1e6:10.2f} us"
            f"{median(peer, 'cpu') * 1e6:10.2f} us{median(peer, 'wall', BARE):9.2f} x"
            f"{median(peer, 'cpu', BARE):7.2f} x{median(peer, 'wall', BLOCKING):9.2f} x"
        )


def report_reverse(results: dict[tuple[str, str], list[Any]]) -> None:
    print(f"\nforeground jobs that end {REVERSE}")
    for key, (right,) in results.items():
        print(f"{title(*key):24}{right:9,} of {REVERSED} get their own result")


def interleaved(
    mode: str, peers: list[tuple[str, str]], count: int, rounds: int
) -> dict[tuple[str, str], list[Any]]:
    """Run measurements in processes of their own, the peers in turns."""
    results: dict[tuple[str, str], list[Any]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            results[peer].append(measure(mode, *peer, count))
    return results


def measure(mode: str, peer: str, backend: str, count: int) -> Any:
    """Run one measurement in processes of its own."""
    port = free_port()
    first, others = processors() if mode in (BACKGROUND, FOREGROUND) else (set(), set())
    with on(others):
        server = subprocess.Popen(
            [str(PROGRAM), "-p", str(port), *GEARMAND],
            stderr=subprocess.DEVNULL,
        )
    worker = None
    try:
        connect(port).close()
        if mode == FOREGROUND:
            command = [sys.executable, submit.__file__, "--child", "worker", "foreground", "0"]
            with on(others):
                worker = subprocess.Popen([*command, str(port)])
        child = [sys.executable, __file__, "--child", mode, peer, backend, str(count), str(port)]
        with on(first):
            return json.loads(subprocess.check_output(child))
    finally:
        for process in (worker, server):
            if process is not None:
                process.kill()
                process.wait()


def processors() -> tuple[set[int], set[int]]:
    """One processor, and all the others; none where there are no others, or nobody knows."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


@contextlib.contextmanager
def on(processors: set[int]) -> Iterator[None]:
    """What is started here runs on these processors; anywhere if there are none."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# In the child processes.


def child(mode: str, peer: str, backend: str, count: int, port: int) -> Any:
    if mode in (BACKGROUND, FOREGROUND):
        return anyio.run(take_turns, mode == BACKGROUND, backend, count, port, backend=backend)
    if peer == BLOCKING:
        return bulk_blocking(count, port)
    run = {
        (BULK, OURS): bulk,
        (BULK, PEER): bulk_aiogear,
        (REVERSE, OURS): reverse,
        (REVERSE, PEER): reverse_aiogear,
    }[mode, peer]
    return anyio.run(run, count, port, backend=backend)


def make_jobs(count: int) -> list[dict[str, Any]]:
    return [{"task": TASK, "data": DATA} for _ in range(count)]


def timed(clock: Clock, jobs: int) -> Result:
    return {"jobs": jobs, "wall": clock.wall, "cpu": clock.cpu}


def check(requests: list[Any]) -> None:
    if not all(request.complete for request in requests):
        sys.exit("jobs are left incomplete")


def bulk_blocking(count: int, port: int) -> Result:
    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        client.submit_multiple_jobs(make_jobs(1), background=True)
        jobs = make_jobs(count)
        gc.collect()
        with Clock() as clock:
            requests = client.submit_multiple_jobs(jobs, background=True)
        check(requests)
    return timed(clock, count)


async def bulk(count: int, port: int) -> Result:
    async with gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client:
        await client.submit_multiple_jobs(make_jobs(1), background=True)
        jobs = make_jobs(count)
        gc.collect()
        with Clock() as clock:
            requests = await client.submit_multiple_jobs(jobs, background=True)
        check(requests)
    return timed(clock, count)


async def connect_aiogear(port: int) -> Any:
    import aiogear  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    return (await loop.create_connection(aiogear.Client, "127.0.0.1", port))[1]


async def bulk_aiogear(count: int, port: int) -> Result:
    async with await connect_aiogear(port) as client:
        await client.submit_job_bg(TASK, DATA)
        done = 0
        gc.collect()
        with Clock() as clock:
            deadline = time.perf_counter() + PATIENCE
            while done < count and time.perf_counter() < deadline:
                some = min(GATHERED, count - done)
                await asyncio.gather(*(client.submit_job_bg(TASK, DATA) for _ in range(some)))
                done += some
    return timed(clock, done)


async def take_turns(
    background: bool, backend: str, count: int, port: int
) -> list[dict[str, Result]]:
    """Submit jobs one at a time, each peer some at its turn; return how long each slice took."""
    address = f"127.0.0.1:{port}"
    size = max(count // SLICES, 1)
    kind = SUBMIT_JOB_BG if background else SUBMIT_JOB
    ready_made = iter([submit_packet(kind) for _ in range(WARM_UP + SLICES * size)])
    async with contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
        client = await stack.enter_async_context(gearman_anyio.GearmanClient([address]))
        blocking = stack.enter_context(gearman_sync.GearmanClient([address]))

        async def submit_ours(count: int) -> None:
            for _ in range(count):
                await client.submit_job(TASK, DATA, background=background)

        async def submit_blocking(count: int) -> None:
            for _ in range(count):
                blocking.submit_job(TASK, DATA, background=background)

        async def submit_aiogear(count: int) -> None:
            for _ in range(count):
                if background:
                    await aiogear.submit_job_bg(TASK, DATA)
                else:
                    await aiogear.wait_job((await aiogear.submit_job(TASK, DATA)).handle)

        peers: dict[str, Callable[[int], Awaitable[None]]] = {
            BARE: lambda count: exchange(
                stream, itertools.islice(ready_made, count), 1 if background else 2
            ),
            OURS: submit_ours,
            BLOCKING: submit_blocking,
        }
        if backend == "asyncio" and has_aiogear():
            aiogear = await stack.enter_async_context(await connect_aiogear(port))
            peers[PEER] = submit_aiogear
        for run in peers.values():
            await run(WARM_UP)
        turns = []
        for _ in range(SLICES):
            turn = {}
            for name, run in peers.items():
                gc.collect()
                with Clock() as clock:
                    await run(size)
                turn[name] = timed(clock, size)
            turns.append(turn)
    return turns


def submit_packet(kind: int) -> bytes:
    body = b"\0".join((TASK.encode(), os.urandom(16).hex().encode(), DATA))
    return HEADER.pack(b"\0REQ", kind, len(body)) + body


async def exchange(stream: anyio.abc.ByteStream, packets: Iterator[bytes], replies: int) -> None:
    """Send each packet, and receive so many whole ones."""
    for packet in packets:
        await stream.send(packet)
        data = b""
        missing = replies
        while missing:
            while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[2]:
                data += await stream.receive()
            data = data[HEADER.size + HEADER.unpack_from(data)[2] :]
            missing -= 1


# Foreground jobs. How many have their own result?


async def reverse(count: int, port: int) -> int:
    async with gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client:
        requests = await client.submit_multiple_jobs(
            [{"task": TASK, "data": b"%d" % number} for number in range(count)],
            wait_until_complete=False,
        )
        await anyio.to_thread.run_sync(complete_in_reverse, count, port)
        await client.wait_until_jobs_completed(requests, poll_timeout=10)
        return sum(request.result == request.data for request in requests)


async def reverse_aiogear(count: int, port: int) -> int:
    async with await connect_aiogear(port) as client:
        jobs = [await client.submit_job(TASK, b"%d" % number) for number in range(count)]
        waits = [client.wait_job(job.handle) for job in jobs]
        await anyio.to_thread.run_sync(complete_in_reverse, count, port)
        done = await asyncio.wait_for(asyncio.gather(*waits), 10)
        return sum(each.result == str(number) for number, each in enumerate(done))


def complete_in_reverse(count: int, port: int) -> None:
    """Take so many jobs, and give each its data as the result, the last one first."""
    with connect(port) as sock:
        connection = Connection(Role.WORKER)
        send = connection.send
        sock.sendall(send(events.CanDo(TASK.encode())))
        sock.sendall(b"".join(send(events.GrabJob()) for _ in range(count)))
        jobs: list[events.JobAssign] = []
        while len(jobs) < count:
            connection.receive_data(sock.recv(65536))
            while (event := connection.next_event()) is not NEED_DATA:
                assert isinstance(event, events.JobAssign)
                jobs.append(event)
        for job in reversed(jobs):
            sock.sendall(send(events.WorkComplete(job.handle, job.data)))


if __name__ == "__main__":
    main()
