"""``gearmanctl check``: a check of servers and a function, for scripts and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gearman_proto.errors import GearmanError

from . import exits
from .admin import reason_of
from .options import Servers, complete_task, seconds, with_options
from .output import complain, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gearman_proto import FunctionStatus, ServerAddress


@with_options
def check(
    servers: Servers,
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            help="A function that workers have to have registered.",
            show_default=False,
            autocompletion=complete_task,
        ),
    ] = None,
    *,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Its workers at least.")
    ] = 1,
    max_waiting: Annotated[
        int | None,
        typer.Option(metavar="JOBS", min=0, help="Its jobs that wait for a worker at most."),
    ] = None,
    timeout: Annotated[float, seconds("How long to wait for an answer.")] = 5.0,
) -> int:
    """Check the servers, and the workers of a function.

    Each server is checked, since a job waits for a worker of its own server. The command writes one
    line, and exits with 0 if all is well, 1 if the function has too few workers or too many jobs,
    3 if a server can't be reached, 4 if one does not answer in time.

    Examples:
      gearmanctl check
      gearmanctl check resize --workers 2 --max-waiting 1000 --timeout 2
    """
    if task == "":
        raise exits.Exit(exits.USAGE, "the name of the function is empty; is a variable not set?")
    if task is None and (max_waiting is not None or workers != 1):
        raise exits.Exit(exits.USAGE, "--workers and --max-waiting need a TASK")
    answers = servers.ask_all(lambda client: client.get_status(), timeout)
    status, line = judge(answers, task, workers, max_waiting)
    if status == exits.DONE:
        write(f"{line}\n".encode())
    else:
        complain(line)
    return status


def judge(
    answers: Sequence[tuple[ServerAddress, Sequence[FunctionStatus] | GearmanError]],
    task: str | None,
    min_workers: int,
    max_waiting: int | None,
) -> tuple[int, str]:
    """Judge the servers by their lists of functions.

    Args:
        answers: The list or the error of each server.
        task: The function to judge, or None for the servers only.
        min_workers: The workers that it needs on each server.
        max_waiting: The jobs that may wait for them on each server, or None.

    Returns:
        The exit status, and a line that describes the servers, or else the problems.
    """
    failed = [error for _, error in answers if isinstance(error, GearmanError)]
    problems: list[str] = []
    total_workers = total_waiting = 0
    for address, answer in answers:
        if isinstance(answer, GearmanError):
            problems.append(reason_of(address, answer))
        elif task is not None:
            workers, waiting = _count(answer, task)
            total_workers += workers
            total_waiting += waiting
            if workers < min_workers:
                problems.append(f"{address}: {task} has too few workers ({workers})")
            if max_waiting is not None and waiting > max_waiting:
                problems.append(f"{address}: {task} has too many waiting jobs ({waiting})")
    if problems:
        status = exits.status_of(failed[0]) if failed else exits.FAILED
        return status, "; ".join(problems)
    line = f"servers: {len(answers)}"
    if task is not None:
        line += f"  workers: {total_workers}  waiting jobs: {total_waiting}"
    return exits.DONE, line


def _count(functions: Iterable[FunctionStatus], task: str) -> tuple[int, int]:
    """Return the workers and the waiting jobs of a function."""
    rows = [each for each in functions if each.task == task]
    return sum(each.workers for each in rows), sum(each.queued - each.running for each in rows)
