"""``gearmanctl conformance``: test servers, workers and clients against the protocol."""

from __future__ import annotations

import enum
import signal
from pathlib import Path
from typing import Annotated

import typer

from . import exits
from .bars import Bars
from .options import check_seconds
from .signals import handled, not_ignored


def _on_signal(number: int) -> None:
    # An Exception would be caught as a failure of the running case.
    raise SystemExit(exits.SIGNALLED + number)


class Side(enum.StrEnum):
    """The kind of program to test."""

    SERVER = "server"
    WORKER = "worker"
    CLIENT = "client"
    LIST = "list"


def conformance(
    side: Annotated[Side, typer.Argument(help="What is judged; or `list`, for the cases.")],
    target: Annotated[
        list[str] | None,
        typer.Argument(help="HOST:PORT of a server; or, behind --, a command that is started."),
    ] = None,
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Only this case, or those below it.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Not this case, nor those below it.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Those that take long, too.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take a capability for missing, such as `epoch`."),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="What it is held to: document, gearmand-1.1, gearmand-2.0, perl.")
    ] = "document",
    timeout: Annotated[
        float,
        typer.Option(
            min=0.01, help="Seconds that an answer is waited for.", callback=check_seconds
        ),
    ] = 5.0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what passes in each failure into a file there."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run the exchange of such a file again.")
    ] = None,
    expected_failures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cases that may fail, each with a reason behind it."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write that file anew, from what fails.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell it in JSON.")] = False,
    junit: Annotated[bool, typer.Option("--junit", help="Tell it in JUnit's XML.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tell it in a table.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name the cases that pass, too.")
    ] = False,
) -> int:
    """Judge a Gearman server, worker or client from its bytes.

    A server is one that runs, or one that is started, at a free {port}. A worker or client is a
    command, which is started for each case with the {address} of a server. A client submits a
    {payload} to a {function}, prints the result, and ends with the status 0, or another if the job
    fails; one that takes {payloads} submits them all at once, and prints a result a line.

    Exit status: 0 all is as it should be, 1 something failed, 2 usage, 3 the server is not there.

    Examples:
      gearmanctl conformance server 127.0.0.1:4730
      gearmanctl conformance server -- gearmand -p {port}
      gearmanctl conformance worker -- python my_worker.py {address}
      gearmanctl conformance client -- ./submit {address} {function} {payload}
      gearmanctl conformance list
    """
    # The cases and their dependencies import more slowly than all other commands.
    from gearman_sync.testing.conformance import command  # noqa: PLC0415

    forms = {"json": as_json, "junit": junit, "markdown": markdown, "verbose": verbose}
    options = command.Options(
        side=side.value,
        words=target or (),
        selection=command.Selection(only or (), skip or (), slow),
        without=without or (),
        profile=profile,
        timeout=timeout,
        trace=trace,
        replay=replay,
        expected_failures=expected_failures,
        update=update,
        form=command.form_of([name for name, is_on in forms.items() if is_on]),
    )
    try:
        if side is Side.LIST:
            print(command.listing(options))  # noqa: T201
            return exits.DONE
        # On SIGTERM, end the started programs.
        with Bars(total=True) as bars, handled(not_ignored([signal.SIGTERM]), _on_signal):
            text, is_good = command.run(options, bars.count)
    except command.Gone as gone:
        raise exits.Exit(exits.NO_SERVER, str(gone)) from None
    print(text)  # noqa: T201
    return exits.DONE if is_good else exits.FAILED
