"""Tools to test Gearman implementations: parsers, drivers of engines, and a simulated network.

The strategies for Hypothesis are in `gearman_proto.testing.strategies`. Only they need Hypothesis,
which is installed by ``pip install gearman-sansio[testing]``.
"""

from __future__ import annotations

from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE

from .books import Books, Entry, Execution
from .clients import AdminNode, Call, ClientNode
from .faults import Fault, Faults
from .memory import MemoryStream, World
from .network import Network
from .nodes import Node
from .packing import pack, pack_event
from .peer import ByteStream, Peer
from .properties import (
    ConnectionParser,
    MakeParser,
    Outcome,
    Parser,
    PropertyFailed,
    check_chunking,
    check_exceptions,
    check_meaning,
    check_round_trip,
    check_time,
    chunkings,
    parse,
)
from .servers import ServerNode
from .shrinking import shrink
from .simulation import Simulation, SimulationError
from .strict import DriverError, StrictEngine
from .trace import Trace
from .workers import WorkerNode

__all__ = [
    "MAGIC_REQUEST",
    "MAGIC_RESPONSE",
    "AdminNode",
    "Books",
    "ByteStream",
    "Call",
    "ClientNode",
    "ConnectionParser",
    "DriverError",
    "Entry",
    "Execution",
    "Fault",
    "Faults",
    "MakeParser",
    "MemoryStream",
    "Network",
    "Node",
    "Outcome",
    "Parser",
    "Peer",
    "PropertyFailed",
    "ServerNode",
    "Simulation",
    "SimulationError",
    "StrictEngine",
    "Trace",
    "WorkerNode",
    "World",
    "check_chunking",
    "check_exceptions",
    "check_meaning",
    "check_round_trip",
    "check_time",
    "chunkings",
    "pack",
    "pack_event",
    "parse",
    "shrink",
]
