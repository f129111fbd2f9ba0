"""``gearmanctl job``: shows the status of one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gearman_proto.errors import GearmanError, InvalidAdminClientState
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_sync import GearmanClient

from . import exits
from .admin import Query, complain_of
from .options import with_options
from .output import complain, show

if TYPE_CHECKING:
    from gearman_proto import ServerAddress


@with_options
def job(
    query: Query,
    handle: Annotated[
        str | None,
        typer.Argument(metavar="HANDLE", help="The handle of the job.", show_default=False),
    ] = None,
    *,
    unique: Annotated[
        str | None, typer.Option("--unique", "-u", metavar="NAME", help="Ask by unique instead.")
    ] = None,
) -> int:
    """Show where a job is, whether it runs, and its progress.

    All servers are asked. Servers forget a job when it ends: the exit status is then 1, as for a
    job that never was. With --unique, the number of clients that wait for the job is shown as well.

    Examples:
      gearmanctl job H:myhost:17
      gearmanctl job --unique report-2024 --json
    """
    if (handle is None) == (unique is None):
        raise exits.Exit(exits.USAGE, "a job is named by its HANDLE or by --unique")
    name = handle or unique
    if not name:
        raise exits.Exit(exits.USAGE, "the name of the job is empty; is a variable not set?")

    def connect(address: ServerAddress) -> GearmanClient:
        return GearmanClient([address])

    def ask(client: GearmanClient) -> dict[str, Any]:
        make = GearmanJobRequest.from_handle if handle else GearmanJobRequest.from_unique
        request = client.get_job_status(make(name), poll_timeout=query.timeout)
        if request.timed_out:
            # The error of admin clients, so that the exit status is theirs.
            raise InvalidAdminClientState("no answer in time")
        return dict(request.status)

    with query.asking(connect) as ask_all:
        answers = ask_all(ask)
    columns = ["server", "running", "numerator", "denominator", *(["client_count"] * (not handle))]
    rows = [
        {"server": str(address), **{column: answer[column] for column in columns[1:]}}
        for address, answer in answers
        if not isinstance(answer, GearmanError) and answer["known"]
    ]
    status = complain_of(answers)
    if rows or query.as_json:
        show(rows, columns, as_json=query.as_json)
    if not rows and status == exits.DONE:
        complain(f"{name}: no server knows this job")
        return exits.FAILED
    return status
