"""``gearmanctl conformance``: test servers, workers and clients against the protocol."""

from __future__ import annotations

import enum
import signal
from pathlib import Path
from typing import Annotated

import typer

from gearman_proto.signals import SIGNALLED, handled

from . import exits
from .bars import Bars
from .options import check_seconds


def _on_signal(number: int) -> None:
    # The running case would catch an Exception and report it as a failure.
    raise SystemExit(SIGNALLED + number)


class Side(enum.StrEnum):
    """The kind of program to test."""

    SERVER = "server"
    WORKER = "worker"
    CLIENT = "client"
    LIST = "list"


def conformance(
    side: Annotated[
        Side,
        typer.Argument(
            metavar="server|worker|client|list",
            help="The kind of program, or `list` for the cases.",
            show_default=False,
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET", help="HOST:PORT of a server, or a command after --."),
    ] = None,
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Run only this case or group of cases.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Skip this case or group of cases.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Run slow cases too.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Treat a capability, such as `epoch`, as missing."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(help="Required behaviour: document, gearmand-1.1, gearmand-2.0, perl."),
    ] = "document",
    timeout: Annotated[
        float,
        typer.Option(min=0.01, help="Seconds to wait for an answer.", callback=check_seconds),
    ] = 5.0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for recordings of failed cases."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replay a recording. Run no cases."),
    ] = None,
    expected_failures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cases that are expected to fail, with reasons."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Rewrite the file of expected failures.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report in JSON.")] = False,
    junit: Annotated[bool, typer.Option("--junit", help="Report in JUnit XML.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Report in a table.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Include the cases that pass or are skipped.")
    ] = False,
) -> int:
    """Test a Gearman server, worker or client against the protocol.

    A server is an address, or a command that starts one at a free {port}. A worker or client is a
    command that is started for each case with the {address} of a server. A client submits a
    {payload} to a {function} and prints the result. It exits with status 0, or another status if
    the job fails. A client with {payloads} submits all of them at once, and prints one result per
    line.

    Exit status: 0 passed, 1 failed, 2 usage error, 3 server not available.

    Examples:
      gearmanctl conformance server 127.0.0.1:4730
      gearmanctl conformance server -- gearmand -p {port}
      gearmanctl conformance worker -- python my_worker.py {address}
      gearmanctl conformance client -- ./submit {address} {function} {payload}
      gearmanctl conformance list
    """
    # Import late: the cases and their dependencies would slow down all other commands.
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
        # On SIGTERM, stop the started programs.
        with Bars(total=True) as bars, handled([signal.SIGTERM], _on_signal):
            text, is_good = command.run(options, bars.count)
    except command.Gone as gone:
        raise exits.Exit(exits.NO_SERVER, str(gone)) from None
    print(text)  # noqa: T201
    return exits.DONE if is_good else exits.FAILED
