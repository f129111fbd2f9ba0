"""Completion of the names of functions in a shell."""

from __future__ import annotations

from typing import Final

from gearman_proto.errors import GearmanError

from .servers import Servers, find_servers

# Seconds. Somebody has pressed a key, and waits.
_PATIENCE: Final = 0.5


def complete_task(incomplete: str) -> list[str]:
    """The functions at the servers of the environment whose names begin so."""
    try:
        servers = Servers(find_servers(None))
        answers = servers.ask_all(lambda client: client.get_status(), _PATIENCE)
    except (GearmanError, ValueError):
        return []  # There is nothing to say to somebody who has pressed a key.
    names = {
        row.task
        for _, rows in answers
        if not isinstance(rows, GearmanError)
        for row in rows
        if row.task.startswith(incomplete) and row.task.isprintable()
    }
    return sorted(names)
