"""Hypothesis strategies for everything that goes over a Gearman connection.

Plain functions that return strategies; nothing is registered. All shrink to the plainest case: the
fewest packets, of the simplest kinds, with the shortest names. They need Hypothesis, which comes
with ``pip install gearman-sansio[testing]``.

`role` is always the receiver's, the role of what is tested: for Role.SERVER requests are drawn, for
Role.CLIENT and Role.WORKER answers. A client takes only answers to what it has asked, so streams
have an `asked`, too.
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
