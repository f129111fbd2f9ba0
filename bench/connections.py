"""A background job on one of few or many connections of a server. The others are idle.

The client and the connections are raw sockets. The CPU time is the server's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import processes, raw
from .child import Clock, answer, orders
from .rounds import at_levels
from .servers import kinds
from .tables import growing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .processes import Child
    from .rounds import Settings
    from .tables import Table

_LEVELS = (1, 100, 1000, 5000)
# Descriptors that a process needs for other purposes.
_OTHERS = 50


def run(settings: Settings) -> Iterator[Table]:
    most = min(settings.jobs, processes.raise_descriptors() - _OTHERS)
    levels = [level for level in _LEVELS if level <= most]
    results = at_levels(_start, kinds(), levels, settings.share(100), settings.rounds)
    yield growing("one job, by connections of its server", "connections", results)


@contextlib.contextmanager
def _start(kind: str, connections: int) -> Iterator[Child]:
    with processes.serving(kind) as server:
        options = {"port": server.port, "connections": connections, "server": server.pid}
        with processes.python(submit, **options) as child:
            yield child


def submit(port: int, connections: int, server: int) -> None:
    """Submit jobs in the child process."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(connections):
            socks.append(stack.enter_context(raw.connect(port)))
            # Wait until the server has accepted the connection.
            raw.exchange(socks[-1], raw.packet(raw.Packet.ECHO_REQ, b"echo"), 1)
        for count in orders():
            packets = [raw.submit_packet(background=True) for _ in range(count)]
            with Clock(server) as clock:
                for packet in packets:
                    raw.exchange(socks[len(socks) // 2], packet, 1)
            answer(clock.result(count))
