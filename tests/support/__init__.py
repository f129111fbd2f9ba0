"""Shared test helpers: gearmand, stunnel, programs, host names, and waiting.

Each process and thread ends with its `stop` or `kill`.
"""

from .imports import nothing_imported
from .names import Name, black_hole, has_address, resolve_to
from .programs import (
    SBIN,
    PortProgram,
    Program,
    find_program,
    free_port,
    interruptible,
    require,
    require_module,
)
from .servers import Administered, EmbeddedServer, Gearmand, ServerAt, counts_of
from .tls import Stunnel, client_context, client_keys, encrypted, make_certificates, server_context
from .waiting import PATIENCE, deadlines_of, eventually, spawn, wait_for

__all__ = [
    "PATIENCE",
    "SBIN",
    "Administered",
    "EmbeddedServer",
    "Gearmand",
    "Name",
    "PortProgram",
    "Program",
    "ServerAt",
    "Stunnel",
    "black_hole",
    "client_context",
    "client_keys",
    "counts_of",
    "deadlines_of",
    "encrypted",
    "eventually",
    "find_program",
    "free_port",
    "has_address",
    "interruptible",
    "make_certificates",
    "nothing_imported",
    "require",
    "require_module",
    "resolve_to",
    "server_context",
    "spawn",
    "wait_for",
]
