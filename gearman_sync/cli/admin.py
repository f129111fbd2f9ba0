"""Commands that query servers or send them administrative commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gearman_proto.errors import GearmanError, ServerError
from gearman_sync import GearmanAdminClient

from . import exits
from .options import Servers, TaskName, seconds, with_options
from .output import complain, flush, in_order, show, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gearman_proto import ServerAddress, WorkerStatus


@dataclass
class Query(Servers):
    """A question to all servers, and the form of the answers."""

    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False
    timeout: Annotated[float, seconds("How long to wait for an answer.")] = 10.0

    def list(
        self,
        method: Callable[[GearmanAdminClient], Sequence[Mapping[str, Any]]],
        *columns: str,
        by: Sequence[str] = (),
        show_empty: bool = True,
    ) -> int:
        """Show one list of each server, and report the servers that failed.

        The rows are sorted by the columns `by`, or by the first of `columns`. A server often sends
        its rows in the order of a hash table. Without `show_empty`, nothing is shown if there are
        no rows.
        """
        rows: list[dict[str, Any]] = []
        answers = self.ask_all(method, self.timeout)
        status = complain_of(answers)
        for address, answer in answers:
            if not isinstance(answer, GearmanError):
                ordered = in_order(answer, by or columns[:1])
                rows += [{"server": str(address), **row} for row in ordered]
        if rows or (show_empty and status == exits.DONE) or self.as_json:
            shown = ["server", *columns] if len(self.addresses) > 1 else columns
            show(rows, shown, as_json=self.as_json)
        return status

    def metrics(self) -> int:
        """Write the metrics of the servers, and report the servers that failed."""
        from .exporter import questions, text_of  # noqa: PLC0415 - only one command needs it

        answers = self.ask_all(questions(self.timeout), self.timeout)
        write(text_of(answers).encode())
        flush()
        return complain_of(answers)

    def ask(self, column: str, ask: Callable[[GearmanAdminClient], object]) -> int:
        """Show one value of each server."""
        return self.list(lambda client: [{column: ask(client)}], column)


def complain_of(answers: Sequence[tuple[ServerAddress, object]]) -> int:
    """Report the servers that failed. Return the exit status of the first, or else DONE."""
    status = exits.DONE
    for address, answer in answers:
        if isinstance(answer, GearmanError):
            complain(reason_of(address, answer))
            status = status or exits.status_of(answer)
    return status


def reason_of(address: ServerAddress, error: GearmanError) -> str:
    """Return the text of an error, with the server's address."""
    text = str(error)
    return text if str(address) in text else f"{address}: {text}"


@with_options
def status(
    query: Query,
    *,
    priority: Annotated[
        bool,
        typer.Option("--priority", help="Show the waiting jobs by priority, without running ones."),
    ] = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Write what `gearmanctl exporter` serves.")
    ] = False,
) -> int:
    """Show the queue of each function: jobs, running jobs, workers.

    The jobs (queued) include the running ones. The functions are sorted by name.

    Examples:
      gearmanctl status
      gearmanctl status -s one:4730 -s two:4730 --json
    """
    if prometheus:
        return query.metrics()
    if priority:
        sizes = ("high", "normal", "low")
        return query.list(GearmanAdminClient.get_priority_status, "task", *sizes, "workers")
    return query.list(GearmanAdminClient.get_status, "task", "queued", "running", "workers")


@with_options
def workers(query: Query) -> int:
    """Show the workers: addresses, client ids, functions.

    These are the connections that have registered a function. A program can have several of them.
    They are sorted by address, client id and functions.

    Example:
      gearmanctl workers | cut -f2 | sort | uniq -c
    """
    return _list_connections(
        query, lambda client: [each for each in client.get_workers() if each.tasks]
    )


@with_options
def connections(query: Query) -> int:
    """Show all connections, of workers and of clients.

    A worker that has registered no function looks like a client. The list includes the connection
    of the command itself. It is sorted by address, client id and functions.

    Example:
      gearmanctl connections | wc -l
    """
    return _list_connections(query, GearmanAdminClient.get_workers)


def _list_connections(
    query: Query, method: Callable[[GearmanAdminClient], Sequence[WorkerStatus]]
) -> int:
    columns = ("file_descriptor", "ip", "client_id", "tasks")
    return query.list(method, *columns, by=("ip", "client_id", "tasks", "file_descriptor"))


@with_options
def jobs(
    query: Query,
    *,
    unique: Annotated[bool, typer.Option("--unique", help="Show their uniques instead.")] = False,
) -> int:
    """Show all jobs, queued and running.

    The columns after the handle: how often a worker has lost the job; whether the job is ignored,
    because it was cancelled or its clients have left; and whether it is a background job.

    Examples:
      gearmanctl jobs
      gearmanctl jobs --unique
    """
    if unique:
        return query.list(
            lambda client: [{"unique": name} for name in client.get_unique_jobs()], "unique"
        )
    return query.list(GearmanAdminClient.get_jobs, "handle", "retries", "ignored", "queued")


@with_options
def version(query: Query) -> int:
    """Show the servers' versions.

    Example:
      gearmanctl version -s one:4730 -s two:4730
    """
    return query.ask("version", lambda client: client.get_version().removeprefix("OK "))


@with_options
def ping(query: Query) -> int:
    """Measure how many seconds servers take to answer.

    Example:
      gearmanctl ping --timeout 1 || echo "no answer"
    """
    return query.ask("seconds", GearmanAdminClient.ping_server)


@with_options
def cancel(
    query: Query,
    handles: Annotated[list[str], typer.Argument(metavar="HANDLE...", show_default=False)],
) -> int:
    """Cancel jobs: remove them from the queue.

    On gearmand, those that run go on. With several servers, each is asked, as a handle does not
    tell whose it is.

    Example:
      gearmanctl cancel H:myhost:17
    """
    known: set[str] = set()

    def cancel_all(client: GearmanAdminClient) -> list[dict[str, str]]:
        cancelled = [handle for handle in handles if _cancelled(client, handle)]
        known.update(cancelled)
        return [{"handle": handle} for handle in cancelled]

    code = query.list(cancel_all, "handle", show_empty=False)
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


@with_options
def maxqueue(
    query: Query,
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
) -> int:
    """Limit the queue length of a function.

    Servers forget the limit of a function that they do not have.

    Examples:
      gearmanctl maxqueue resize 1000
      gearmanctl maxqueue resize 100 1000 0
    """
    size = sizes[0] if len(sizes) == 1 else sizes
    return query.ask("reply", lambda client: client.send_maxqueue(task, size))


@with_options
def shutdown(
    query: Query,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="At once, not when the jobs are done.")
    ] = False,
) -> int:
    """Shut down servers when their jobs are done.

    gearmand has no such command, and says so; `gearmanctl serve` has.

    Example:
      gearmanctl shutdown -s localhost:4731
    """
    return query.ask("reply", lambda client: client.send_shutdown(not now))
