"""Many jobs in one call: `submit_multiple_jobs`, a raw socket, pygearman and libgearman.

The raw socket writes packets that are built before the clock starts, and counts the replies. No
client that submits over one connection can be faster. Each measurement has its own process and its
own gearmand. A raw socket in another process does the foreground jobs. "memory" is the growth of
the process during the call, per job. The slow peers get fewer jobs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import processes, raw
from .child import Clock, answer, jobs_for, orders
from .peers import has, loops
from .rounds import interleaved
from .tables import RatioColumn, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .processes import Child
    from .rounds import Figures, Settings
    from .tables import Table

RAW = "raw socket"


def run(settings: Settings) -> Iterator[Table]:
    for background in (True, False):
        kind = "background" if background else "foreground"
        results = interleaved(
            {
                name: partial(_measure, start, settings.share(share), background=background)
                for name, (start, share) in subjects(kind).items()
            },
            settings.rounds,
        )
        ours = [name for name in results if name.startswith("gearman_")]
        yield compared(
            f"{kind} jobs in one call",
            results,
            [
                RatioColumn("wall/raw", "wall", dict.fromkeys(results, RAW)),
                RatioColumn("CPU/blocking", "cpu", dict.fromkeys(ours, "gearman_sync")),
            ],
            more=[("memory", "B", "memory")],
        )


def subjects(kind: str) -> dict[str, tuple[Callable[[int], Child], int]]:
    """Return, for each subject, a function that starts it on a port, and a divisor of `jobs`."""
    background = kind == "background"

    def ours(function: Any, **options: Any) -> Callable[[int], Child]:
        return lambda port: processes.python(function, port=port, background=background, **options)

    found: dict[str, tuple[Callable[[int], Child], int]] = {
        RAW: (ours(raw_socket), 1),
        "gearman_sync": (ours(blocking, module="gearman_sync"), 1),
    }
    for loop in loops():
        found[f"gearman_anyio, {loop}"] = ours(waiting, loop=loop), 1
    if has("pygearman"):
        found["pygearman"] = ours(blocking, module="gearman"), 10
    if (client := processes.compiled("client")) is not None:
        found["libgearman's client"] = (
            lambda port: processes.Child(client, str(port), "bulk", kind),
            10,
        )
    return found


def _measure(start: Callable[[int], Child], count: int, *, background: bool) -> Figures:
    with processes.serving() as server, start(server.port) as child:
        if background:
            child.ask(1)
            return child.ask(count)
        with processes.python(processes.work, port=server.port):
            # Let every subject connect before the measurement.
            child.ask(1)
            return child.ask(count)


# Code for the child processes.


def raw_socket(port: int, *, background: bool) -> None:
    with raw.connect(port) as sock:
        sock.setblocking(False)
        for count in orders():
            packets = b"".join(raw.submit_packet(background=background) for _ in range(count))
            with Clock() as clock:
                raw.pump(sock, memoryview(packets), count, background=background)
            answer(clock.result(count))


def blocking(port: int, *, background: bool, module: str) -> None:
    """Submit with `gearman_sync` or pygearman.

    pygearman does not wait without a `poll_timeout`.
    """
    import importlib  # noqa: PLC0415

    client = importlib.import_module(module).GearmanClient([f"127.0.0.1:{port}"])
    for count in orders():
        jobs = jobs_for(count)
        with Clock() as clock:
            requests = client.submit_multiple_jobs(jobs, background=background, poll_timeout=600)
        answer(clock.result(count))
        assert all(request.complete for request in requests)
    client.shutdown()


async def waiting(port: int, *, background: bool) -> None:
    import gearman_anyio  # noqa: PLC0415

    async with gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for count in orders():
            jobs = jobs_for(count)
            with Clock() as clock:
                requests = await client.submit_multiple_jobs(
                    jobs, background=background, poll_timeout=600
                )
            answer(clock.result(count))
            assert all(request.complete for request in requests)
