"""The program's commands and its error handling.

The module of a command is imported when the command is used: all of them together take longer to
import than everything else that `gearmanctl --help` does.
"""

from __future__ import annotations

import importlib
import inspect
import io
import logging
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from gearman_proto._version import __version__
from gearman_proto.errors import GearmanError
from gearman_proto.signals import SIGNALLED
from gearman_sync import _interrupts

from . import exits
from .output import complain, flush

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

PROGRAM: Final = "gearmanctl"
# typer's variable.
_COMPLETION: Final = f"_{PROGRAM.upper()}_COMPLETE"

# The base class of all command line errors. typer does not export it, but exports a subclass. Of
# that subclass's ancestors, it is the topmost one with the method used here.
_CommandLineError: Any = next(
    base for base in reversed(typer.BadParameter.__mro__) if hasattr(base, "format_message")
)


class _Command(TyperCommand):
    """A command whose usage line shows required arguments without braces, as manual pages do."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [
            piece[1:-1] if re.fullmatch(r"\{.*\}", piece) else piece
            for piece in super().collect_usage_pieces(ctx)
        ]


#: The module of each command, and the first line of its help, in the order of the help.
COMMANDS: Final = {
    "submit": ("submit", "Submit a job, and write its result."),
    "work": ("work", "Run a worker, which starts a command for each job."),
    "run": ("run", "Run and supervise the worker processes of an application."),
    "status": ("admin", "Show the queue of each function: jobs, running jobs, workers."),
    "workers": ("admin", "Show the workers: addresses, client ids, functions."),
    "connections": ("admin", "Show all connections, of workers and of clients."),
    "jobs": ("admin", "Show all jobs, queued and running."),
    "job": ("job", "Show where a job is, whether it runs, and its progress."),
    "top": ("top", "Monitor the queues of servers, as they change."),
    "version": ("admin", "Show the servers' versions."),
    "ping": ("admin", "Measure how many seconds servers take to answer."),
    "check": ("check", "Check the servers, and the workers of a function."),
    "wait": ("wait", "Wait until all of the servers answer."),
    "cancel": ("admin", "Cancel jobs: remove them from the queue."),
    "create": ("functions", "Add a function to the servers' lists, before it has jobs."),
    "drop": ("functions", "Remove a function without jobs from the servers' lists."),
    "maxqueue": ("admin", "Limit the queue length of a function."),
    "shutdown": ("admin", "Shut down servers when their jobs are done."),
    "serve": ("serve", "Run a job server for development and tests."),
    "exporter": ("exporter", "Serve metrics of the servers to Prometheus."),
    "conformance": ("conformance", "Test a Gearman server, worker or client against the protocol."),
}


def _show_version(value: bool) -> None:
    if value:
        print(f"{PROGRAM} {__version__}")  # noqa: T201
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool | None,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and exit."
        ),
    ] = None,
) -> None:
    """Accept the options that precede the command."""


def _unused() -> None:
    """Stand in for a command that this run does not use."""


def _help(command: Callable[..., int]) -> str:
    """Return a command's docstring, formatted to keep each example on its own line."""
    return re.sub(
        r"(?m)^Examples?:$", lambda match: f"\b\n{match[0]}", inspect.getdoc(command) or ""
    )


def make_app(used: Container[str]) -> typer.Typer:
    """Return the program, which can run the commands `used`, and lists the others."""
    app = typer.Typer(
        name=PROGRAM,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        help=f"""Submit jobs to Gearman servers, run workers, and monitor and administer
        the servers.

        `{PROGRAM} COMMAND --help` has examples. The servers are those of --server, else those in
        the environment variable GEARMAN_SERVERS, else localhost:4730.

        Exit status: 0 done, 1 failed, 2 usage, 3 no server, 4 timed out.
        """,
    )
    app.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        if name in used:
            loaded = importlib.import_module(f".{module}", __package__)
            command = getattr(loaded, name)
            # `run` has them, because it parses its arguments itself.
            settings = getattr(loaded, "SETTINGS", None)
            app.command(
                name,
                cls=_Command,
                help=_help(command),
                context_settings=settings,
                add_help_option=settings is None,
            )(command)
        else:
            app.command(name, help=summary)(_unused)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The command line arguments; None for those of this process.

    Returns:
        The exit status. Each error has been written to standard error as one line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"{PROGRAM}: %(message)s"))
    logging.basicConfig(handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # The terminal's encoding can lack characters.
    given = sys.argv[1:] if arguments is None else list(arguments)
    # The options before the command have no values, so no other word can be a command. For a
    # completion, the shell passes the words in the environment.
    app = make_app(COMMANDS if _COMPLETION in os.environ else given)
    try:
        _interrupts.raise_once()
        status = app(args=given or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        flush()
        if not given:
            return exits.USAGE
        return status if isinstance(status, int) else exits.DONE
    except exits.Exit as error:
        if str(error):
            complain(str(error))
        return error.status
    except _CommandLineError as error:
        return _complain_of_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return SIGNALLED + signal.SIGINT
    except BrokenPipeError:
        return exits.FAILED  # The reader has closed the pipe, as `head` does.
    except (GearmanError, OSError, ValueError) as error:
        complain(_reason(error))
        return exits.status_of(error)
    finally:
        _interrupts.exit_silently()
        _discard_output()


def _discard_output() -> None:
    """Discard unwritten output.

    At exit, Python would try again to write it, and report the error.
    """
    try:
        flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: Exception) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _complain_of_usage(error: Any) -> int:
    """Report a usage error in one line."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else PROGRAM
    complain(f"{' '.join(error.format_message().split())} (see {where} --help)")
    return exits.USAGE


class _Formatter(logging.Formatter):
    """A formatter that omits the tracebacks in the library's records, which are for developers."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "gearman":
            record.message = record.getMessage()
            return self.formatMessage(record)
        return super().format(record)
