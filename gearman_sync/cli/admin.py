"""Commands that query servers or send them administrative commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from gearman_proto.errors import GearmanError, ServerError
from gearman_sync import GearmanAdminClient

from . import exits
from .options import Servers, TaskName, check_seconds, for_servers
from .output import complain, in_order, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gearman_proto import ServerAddress

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0,
        callback=check_seconds,
        help="How long to wait for an answer.",
    ),
]
_SECONDS: Final = 10.0


def _show_all(
    servers: Servers,
    answers: Iterable[tuple[ServerAddress, Sequence[Mapping[str, Any]] | GearmanError]],
    columns: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Show the servers' answers, and report the servers that failed."""
    rows: list[dict[str, Any]] = []
    status = exits.DONE
    for address, answer in answers:
        if isinstance(answer, GearmanError):
            complain(_reason(address, answer))
            status = status or exits.status_of(answer)
        else:
            rows += [{"server": str(address), **row} for row in answer]
    if rows or status == exits.DONE or as_json:
        shown = ["server", *columns] if len(servers.addresses) > 1 else columns
        show(rows, shown, as_json=as_json)
    return status


def _reason(address: ServerAddress, error: GearmanError) -> str:
    text = str(error)
    return text if str(address) in text else f"{address}: {text}"


def _lister(
    method: Callable[[GearmanAdminClient], Sequence[Mapping[str, Any]]],
    *columns: str,
    by: Sequence[str] = (),
) -> Callable[[Servers, float, bool], int]:
    """Return the implementation of a command that shows one list of each server.

    The rows are sorted by the columns `by`, or by the first of `columns`. A server often sends its
    rows in the order of a hash table.
    """

    def ask(client: GearmanAdminClient) -> Sequence[Mapping[str, Any]]:
        return in_order(method(client), by or columns[:1])

    def run(servers: Servers, timeout: float, as_json: bool) -> int:
        return _show_all(servers, servers.ask_all(ask, timeout), columns, as_json=as_json)

    return run


_status = _lister(GearmanAdminClient.get_status, "task", "queued", "running", "workers")
_priorities = _lister(
    GearmanAdminClient.get_priority_status, "task", "high", "normal", "low", "workers"
)
_workers = _lister(
    GearmanAdminClient.get_workers,
    *("file_descriptor", "ip", "client_id", "tasks"),
    by=("ip", "client_id", "tasks", "file_descriptor"),
)
_jobs = _lister(GearmanAdminClient.get_jobs, "handle", "retries", "ignored", "queued")
_uniques = _lister(
    lambda client: [{"unique": unique} for unique in client.get_unique_jobs()], "unique"
)


@for_servers
def status(
    servers: Servers,
    *,
    priority: Annotated[
        bool, typer.Option("--priority", help="What waits, by priority; without what runs.")
    ] = False,
    as_json: Json = False,
    timeout: Timeout = _SECONDS,
) -> int:
    """Show the functions: jobs, running jobs, workers.

    The jobs that run are among the jobs. The functions are sorted by name.

    Examples:
      gearmanctl status
      gearmanctl status -s one:4730 -s two:4730 --json
    """
    return (_priorities if priority else _status)(servers, timeout, as_json)


@for_servers
def workers(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show the connections, of workers and of clients.

    They are sorted by address, client id and functions.

    Example:
      gearmanctl workers | cut -f2 | sort | uniq -c
    """
    return _workers(servers, timeout, as_json)


@for_servers
def jobs(
    servers: Servers,
    *,
    unique: Annotated[bool, typer.Option("--unique", help="Show their uniques instead.")] = False,
    as_json: Json = False,
    timeout: Timeout = _SECONDS,
) -> int:
    """Show the jobs.

    Beside the handle: how often it came back from a worker, whether nobody wants it any more, and
    whether it is a background job. They are sorted by handle, or by unique.

    Examples:
      gearmanctl jobs
      gearmanctl jobs --unique
    """
    return (_uniques if unique else _jobs)(servers, timeout, as_json)


@for_servers
def version(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show the servers' versions.

    Example:
      gearmanctl version -s one:4730 -s two:4730
    """
    answers = servers.ask_all(
        lambda client: [{"version": client.get_version().removeprefix("OK ")}], timeout
    )
    return _show_all(servers, answers, ["version"], as_json=as_json)


@for_servers
def ping(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show how many seconds servers take to answer.

    Example:
      gearmanctl ping --timeout 1 || echo "no answer"
    """
    answers = servers.ask_all(lambda client: [{"seconds": client.ping_server()}], timeout)
    return _show_all(servers, answers, ["seconds"], as_json=as_json)


@for_servers
def cancel(
    servers: Servers,
    handles: Annotated[list[str], typer.Argument(metavar="HANDLE…", show_default=False)],
    *,
    as_json: Json = False,
    timeout: Timeout = _SECONDS,
) -> int:
    """Take jobs out of the queue.

    On gearmand, those that run go on. With several servers, each is asked, as a handle does not
    tell whose it is.

    Example:
      gearmanctl cancel H:myhost:17
    """

    def cancel_all(client: GearmanAdminClient) -> list[dict[str, str]]:
        return [{"handle": handle} for handle in handles if _cancelled(client, handle)]

    answers = servers.ask_all(cancel_all, timeout)
    known = {
        row["handle"]
        for _, answer in answers
        if not isinstance(answer, GearmanError)
        for row in answer
    }
    code = _show_all(servers, answers, ["handle"], as_json=as_json)
    if code == exits.DONE:  # All servers have answered.
        for handle in handles:
            if handle not in known:
                complain(f"{handle}: no server knows this job")
                code = exits.FAILED
    return code


def _cancelled(client: GearmanAdminClient, handle: str) -> bool:
    try:
        client.cancel_job(handle)
    except ServerError as error:
        if error.code != "UNKNOWN_JOB":
            raise
        return False
    return True


@for_servers
def maxqueue(
    servers: Servers,
    task: TaskName,
    sizes: Annotated[
        list[int],
        typer.Argument(
            metavar="SIZE [SIZE SIZE]",
            help="How many jobs it may have; or three numbers, for those of high, normal and low "
            "priority. 0 is no limit.",
            show_default=False,
        ),
    ],
    *,
    as_json: Json = False,
    timeout: Timeout = _SECONDS,
) -> int:
    """Limit the queue of a function.

    Servers forget the limit of a function that they do not have.

    Examples:
      gearmanctl maxqueue resize 1000
      gearmanctl maxqueue resize 100 1000 0
    """
    size = sizes[0] if len(sizes) == 1 else sizes
    return _send(servers, lambda client: client.send_maxqueue(task, size), timeout, as_json)


@for_servers
def shutdown(
    servers: Servers,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="At once, not when the jobs are done.")
    ] = False,
    as_json: Json = False,
    timeout: Timeout = _SECONDS,
) -> int:
    """End servers when their jobs are done.

    gearmand has no such command, and says so; `gearmanctl serve` has.

    Example:
      gearmanctl shutdown -s localhost:4731
    """
    return _send(servers, lambda client: client.send_shutdown(not now), timeout, as_json)


def _send(
    servers: Servers, send: Callable[[GearmanAdminClient], str], timeout: float, as_json: bool
) -> int:
    answers = servers.ask_all(lambda client: [{"reply": send(client)}], timeout)
    return _show_all(servers, answers, ["reply"], as_json=as_json)
