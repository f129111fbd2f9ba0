"""Tools to test what speaks Gearman: properties, a simulated network, strategies (`strategies`)."""

from .books import Books, Entry, Execution
from .calls import Call
from .clients import AdminNode, ClientNode
from .faults import Fault, Faults
from .network import Network
from .nodes import Node
from .servers import ServerNode
from .shrinking import shrink
from .simulation import Simulation, SimulationError
from .trace import Trace
from .workers import WorkerNode

__all__ = [
    "AdminNode",
    "Books",
    "Call",
    "ClientNode",
    "Entry",
    "Execution",
    "Fault",
    "Faults",
    "Network",
    "Node",
    "ServerNode",
    "Simulation",
    "SimulationError",
    "Trace",
    "WorkerNode",
    "shrink",
]
