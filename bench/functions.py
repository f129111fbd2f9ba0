"""GRAB_JOB of a worker that has registered few or many functions, ten of them with jobs.

The worker is a raw socket with 64 grabs in flight. Each figure is for one grab. The CPU time is the
server's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import processes, raw
from .child import Clock, answer, orders
from .raw import DATA, Packet, packet
from .rounds import at_levels
from .servers import kinds
from .tables import growing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .processes import Child
    from .rounds import Settings
    from .tables import Table

_LEVELS = [1, 100, 10_000]
_GRABS = 64


def run(settings: Settings) -> Iterator[Table]:
    levels = [level for level in _LEVELS if level <= settings.jobs]
    results = at_levels(_start, kinds(), levels, settings.share(50), settings.rounds)
    yield growing("GRAB_JOB, by functions of the worker", "functions", results)


@contextlib.contextmanager
def _start(kind: str, functions: int) -> Iterator[Child]:
    with (
        processes.serving(kind) as server,
        processes.python(grab, port=server.port, functions=functions, server=server.pid) as child,
    ):
        yield child


def grab(port: int, functions: int, server: int) -> None:
    """Grab jobs in the child process."""
    names = [b"function-%d" % number for number in range(functions)]
    with raw.connect(port) as sock:
        sock.sendall(b"".join(packet(Packet.CAN_DO, name) for name in names))
        for count in orders():
            sock.sendall(
                b"".join(
                    packet(Packet.SUBMIT_JOB_BG, names[number % 10 % functions], b"", DATA)
                    for number in range(count)
                )
            )
            raw.receive_packets(sock, Packet.JOB_CREATED, count)
            with Clock(server) as clock:
                for at in range(0, count, _GRABS):
                    batch = min(_GRABS, count - at)
                    sock.sendall(packet(Packet.GRAB_JOB_UNIQ) * batch)
                    raw.receive_packets(sock, Packet.JOB_ASSIGN_UNIQ, batch)
            answer(clock.result(count))
