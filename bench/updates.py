"""CPU and memory per update of many jobs that one `updates` call follows, without I/O.

The CPU time covers the receipt of the packet and `take`. The memory is that of unread updates.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

from gearman_proto import NoopEncoder, make_requests, prepare

from .raw import DATA, RESPONSE, TASK, Packet, packet
from .rounds import Figures, interleaved, median
from .stages import ConnectedClient
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Settings

_JOBS = 5000
_UPDATES = 10


def run(settings: Settings) -> Iterator[Table]:
    jobs = min(_JOBS, settings.jobs)
    results = interleaved(
        {
            f"progress of {jobs:,} jobs": lambda: _measure(jobs, Packet.WORK_STATUS, b"3\x007"),
            f"data of {jobs:,} jobs": lambda: _measure(jobs, Packet.WORK_DATA, DATA),
        },
        settings.rounds,
    )
    table = Table("one updates() call", [("CPU", "us"), ("memory", "B")])
    for name, found in results.items():
        table.add(name, median(found, "cpu"), median(found, "memory"))
    yield table


def _measure(jobs: int, kind: Packet, data: bytes) -> Figures:
    client = ConnectedClient()
    requests = make_requests([{"task": TASK, "data": DATA}] * jobs)
    prepare(requests, NoopEncoder)
    engine = client.engine
    engine.release(engine.submit(0.0, _nothing, requests), 0.0)
    handles = [b"H:bench:%d" % number for number in range(jobs)]
    for handle in handles:
        client.send()  # The engine limits the unanswered submits.
        client.receive(packet(Packet.JOB_CREATED, handle, magic=RESPONSE))
    call = engine.updates(0.0, _nothing, requests)
    chunk = b"".join(packet(kind, each, data, magic=RESPONSE) for each in handles)
    count = jobs * _UPDATES
    gc.collect()
    began = time.process_time()
    for _ in range(_UPDATES):
        client.receive(chunk)
        for _ in range(jobs):
            assert call.take() is not None
    cpu = time.process_time() - began
    tracemalloc.start()
    for _ in range(_UPDATES):
        client.receive(chunk)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {"cpu": cpu / count, "memory": memory / count}


def _nothing() -> None: ...
