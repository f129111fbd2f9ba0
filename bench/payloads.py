"""Jobs with 64 MB: copies of a payload in memory at the peak, and throughput.

* ``send``: a client submits the payload in a background job. The application's own copy does not
  count.
* ``receive``: a client receives the payload as a result.
* ``worker``: a worker receives the payload and returns an empty result.
* ``server``: a job server receives the payload from a client and sends it to a worker.

"copies" is the growth of the process in payloads. The peers are raw sockets.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import processes, raw
from .child import Clock, answer, orders
from .peers import has, loops
from .raw import TASK
from .rounds import Figures, interleaved, median
from .servers import kinds
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .processes import Child
    from .rounds import Settings

_SIZE = 64 * 1000 * 1000


def run(settings: Settings) -> Iterator[Table]:
    size = min(_SIZE, settings.jobs * 1000)
    subjects = {}
    for name, start in _starts().items():
        for what in ("send", "receive", "worker"):
            subjects[f"{what}, {name}"] = partial(_measure, start, what, size)
    for kind in kinds():
        subjects[f"server, {kind}"] = partial(_through, kind, size)
    results = interleaved(subjects, settings.rounds)
    table = Table(
        f"payloads of {size / 1e6:,.0f} MB", [("copies", ""), ("throughput", "GB/s"), ("CPU", "ms")]
    )
    for name, found in results.items():
        wall, cpu = median(found, "wall"), median(found, "cpu")
        table.add(name, median(found, "memory") / size, size / wall, cpu)
    yield table


def _starts() -> dict[str, Callable[..., Child]]:
    found: dict[str, Callable[..., Child]] = {"gearman_sync": partial(processes.python, blocking)}
    for loop in loops():
        found[f"gearman_anyio, {loop}"] = partial(processes.python, waiting, loop=loop)
    return found


def _measure(start: Callable[..., Child], what: str, size: int) -> Figures:
    kind = "gearmand" if has("gearmand") else "JobServer"
    with processes.serving(kind) as server:
        if what == "worker":
            _submit(server.port, size, background=True)
            with start(port=server.port, what=what) as child:
                return child.ask(size)
        worker = processes.python(processes.work, port=server.port, size=size)
        with worker, start(port=server.port, what=what) as child:
            return child.ask(size)


def _through(kind: str, size: int) -> Figures:
    with (
        processes.serving(kind) as server,
        processes.python(processes.work, port=server.port, size=0),
    ):
        _submit(server.port, 1, background=False)
        with Clock(server.pid) as clock:
            _submit(server.port, size, background=False)
        return clock.result(1)


def _submit(port: int, size: int, *, background: bool) -> None:
    with raw.connect(port) as sock:
        packet = raw.submit_packet(background=background, data=bytes(size))
        raw.exchange(sock, packet, 1 if background else 2)


# Code for the child processes. A worker does one job and stops.


def blocking(port: int, what: str) -> None:
    import gearman_sync  # noqa: PLC0415

    address = [f"127.0.0.1:{port}"]
    for size in orders():
        data = bytes(size) if what == "send" else b""
        if what == "worker":
            worker = gearman_sync.GearmanWorker(address)

            def work(_: object, __: object, worker: Any = worker) -> bytes:
                worker.stop()
                return b""

            worker.register_task(TASK, work)
            with Clock() as clock:
                worker.work()
        else:
            with gearman_sync.GearmanClient(address) as client, Clock() as clock:
                request = client.submit_job(TASK, data, background=what == "send")
            assert what == "send" or len(request.result) == size
        answer(clock.result(1))


async def waiting(port: int, what: str) -> None:
    import gearman_anyio  # noqa: PLC0415

    address = [f"127.0.0.1:{port}"]
    for size in orders():
        data = bytes(size) if what == "send" else b""
        if what == "worker":
            worker = gearman_anyio.GearmanWorker(address)

            async def work(_: object, __: object, worker: Any = worker) -> bytes:
                worker.stop()
                return b""

            worker.register_task(TASK, work)
            with Clock() as clock:
                await worker.work()
        else:
            async with gearman_anyio.GearmanClient(address) as client:
                with Clock() as clock:
                    request = await client.submit_job(TASK, data, background=what == "send")
            assert what == "send" or len(request.result) == size
        answer(clock.result(1))
