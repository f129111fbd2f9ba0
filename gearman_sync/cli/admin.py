"""Commands that query servers or send them administrative commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gearman_proto.errors import GearmanError, ServerError
from gearman_sync import GearmanAdminClient

from . import exits
from .options import Servers, TaskName, check_seconds, for_servers
from .output import complain, in_order, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gearman_proto import ServerAddress

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


def _list(
    servers: Servers,
    timeout: float,
    as_json: bool,
    method: Callable[[GearmanAdminClient], Sequence[Mapping[str, Any]]],
    *columns: str,
    by: Sequence[str] = (),
) -> int:
    """Show one list of each server.

    The rows are sorted by the columns `by`, or by the first of `columns`. A server often sends its
    rows in the order of a hash table.
    """
    answers = servers.ask_all(lambda client: in_order(method(client), by or columns[:1]), timeout)
    return _show_all(servers, answers, columns, as_json=as_json)


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
    if priority:
        sizes = "task", "high", "normal", "low", "workers"
        return _list(servers, timeout, as_json, GearmanAdminClient.get_priority_status, *sizes)
    columns = "task", "queued", "running", "workers"
    return _list(servers, timeout, as_json, GearmanAdminClient.get_status, *columns)


@for_servers
def workers(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show the connections, of workers and of clients.

    They are sorted by address, client id and functions.

    Example:
      gearmanctl workers | cut -f2 | sort | uniq -c
    """
    columns = ("file_descriptor", "ip", "client_id", "tasks")
    by = ("ip", "client_id", "tasks", "file_descriptor")
    return _list(servers, timeout, as_json, GearmanAdminClient.get_workers, *columns, by=by)


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
    if unique:
        return _list(servers, timeout, as_json, _get_uniques, "unique")
    columns = ("handle", "retries", "ignored", "queued")
    return _list(servers, timeout, as_json, GearmanAdminClient.get_jobs, *columns)


def _get_uniques(client: GearmanAdminClient) -> list[dict[str, str]]:
    return [{"unique": unique} for unique in client.get_unique_jobs()]


@for_servers
def version(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show the servers' versions.

    Example:
      gearmanctl version -s one:4730 -s two:4730
    """
    return _ask(
        servers,
        timeout,
        as_json,
        "version",
        lambda client: client.get_version().removeprefix("OK "),
    )


@for_servers
def ping(servers: Servers, *, as_json: Json = False, timeout: Timeout = _SECONDS) -> int:
    """Show how many seconds servers take to answer.

    Example:
      gearmanctl ping --timeout 1 || echo "no answer"
    """
    return _ask(servers, timeout, as_json, "seconds", GearmanAdminClient.ping_server)


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
    known = set()

    def cancel_all(client: GearmanAdminClient) -> list[dict[str, str]]:
        cancelled = [handle for handle in handles if _cancelled(client, handle)]
        known.update(cancelled)
        return [{"handle": handle} for handle in cancelled]

    code = _show_all(servers, servers.ask_all(cancel_all, timeout), ["handle"], as_json=as_json)
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
    return _ask(servers, timeout, as_json, "reply", lambda client: client.send_maxqueue(task, size))


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
    return _ask(servers, timeout, as_json, "reply", lambda client: client.send_shutdown(not now))


def _ask(
    servers: Servers,
    timeout: float,
    as_json: bool,
    column: str,
    ask: Callable[[GearmanAdminClient], object],
) -> int:
    """Show one value of each server."""
    answers = servers.ask_all(lambda client: [{column: ask(client)}], timeout)
    return _show_all(servers, answers, [column], as_json=as_json)
