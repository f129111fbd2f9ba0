"""Hypothesis strategies for everything that is sent on a Gearman connection.

The module consists of plain functions that return strategies. Nothing is registered. All strategies
shrink to the simplest case: the fewest packets, of the simplest kinds, with the shortest names.
They need Hypothesis, which is installed by ``pip install gearman-sansio[testing]``.

`role` is always the role of the receiver, which is under test. For Role.SERVER, the strategies draw
requests; for Role.CLIENT and Role.WORKER, replies. A client only accepts replies to its own
requests, so streams have an attribute `asked`, which holds these.
"""

from __future__ import annotations

from .admin import AdminReply, admin_commands, admin_lines, admin_replies
from .dialogues import Session, Stream, Turn, sessions, streams
from .hostile import HostileStream, hostile_replies, hostile_streams
from .values import chunked, function_names, handles, packets, payloads, uniques

__all__ = [
    "AdminReply",
    "HostileStream",
    "Session",
    "Stream",
    "Turn",
    "admin_commands",
    "admin_lines",
    "admin_replies",
    "chunked",
    "function_names",
    "handles",
    "hostile_replies",
    "hostile_streams",
    "packets",
    "payloads",
    "sessions",
    "streams",
    "uniques",
]
