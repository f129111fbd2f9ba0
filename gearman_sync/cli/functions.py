"""``gearmanctl create`` and ``drop``: add functions to the servers' lists and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gearman_proto.errors import GearmanError

from .admin import Query
from .options import TaskName, with_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto import FunctionStatus
    from gearman_sync import GearmanAdminClient


class _Refusal(GearmanError):
    """Raised if a function must not be dropped."""


@with_options
def create(query: Query, task: TaskName) -> int:
    """Add a function to the servers' lists, before it has jobs.

    Servers forget a limit of `maxqueue` unless they have the function.

    Example:
      gearmanctl create resize && gearmanctl maxqueue resize 1000
    """
    return query.ask("reply", lambda client: client.create_function(task))


@with_options
def drop(
    query: Query,
    task: TaskName,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Drop it even if it has queued jobs. They are lost.")
    ] = False,
) -> int:
    """Remove a function without jobs from the servers' lists.

    gearmand also drops a function with queued jobs, and then never runs them. Therefore the command
    asks first, and drops no function that has jobs. A job that is submitted at the same moment can
    still be lost.

    Example:
      gearmanctl drop resize
    """

    def ask(client: GearmanAdminClient) -> str:
        if not force and (reason := reason_not_to_drop(task, client.get_status())):
            raise _Refusal(f"{reason}; --force drops it nevertheless")
        return client.drop_function(task)

    return query.ask("reply", ask)


def reason_not_to_drop(task: str, functions: Iterable[FunctionStatus]) -> str | None:
    """Return why a server must not drop a function, or None.

    gearmand ignores the case of ASCII letters, so it might drop another function.
    """
    wanted = task.encode("utf-8", "surrogateescape").lower()
    names = []
    for each in functions:
        if each.task.encode("utf-8", "surrogateescape").lower() == wanted:
            names.append(each.task)
            if each.queued:
                return f"{each.task} still has jobs ({each.queued}), which would never run"
    if names and task not in names:
        return f"gearmand would drop {names[0]}, as it ignores the case of {task}"
    return None
