"""The other sides of a conversation: gearmand, stunnel, a scripted worker, a scripted server.

A test tells a scripted one what to do by a function. Nothing in here outlives its `stop` or `kill`.
"""

from .imports import nothing_imported
from .links import Link
from .names import Name, has_address, resolve_to
from .peers import Disconnected, FakeServer, Peer, black_hole
from .programs import PortProgram, Program, free_port, interruptible, require, require_module
from .servers import Administered, EmbeddedServer, Gearmand, ServerAt, counts_of, is_whole_reply
from .tls import Stunnel, client_context, client_keys, encrypted, make_certificates, server_context
from .waiting import PATIENCE, deadlines_of, eventually, spawn, wait_for
from .workers import Failed, Gate, Job, Raised, Worker, echo, reverse

__all__ = [
    "PATIENCE",
    "Administered",
    "Disconnected",
    "EmbeddedServer",
    "Failed",
    "FakeServer",
    "Gate",
    "Gearmand",
    "Job",
    "Link",
    "Name",
    "Peer",
    "PortProgram",
    "Program",
    "Raised",
    "ServerAt",
    "Stunnel",
    "Worker",
    "black_hole",
    "client_context",
    "client_keys",
    "counts_of",
    "deadlines_of",
    "echo",
    "encrypted",
    "eventually",
    "free_port",
    "has_address",
    "interruptible",
    "is_whole_reply",
    "make_certificates",
    "nothing_imported",
    "require",
    "require_module",
    "resolve_to",
    "reverse",
    "server_context",
    "spawn",
    "wait_for",
]
