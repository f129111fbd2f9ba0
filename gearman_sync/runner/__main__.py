"""``gearmanctl run``, without the packages of the command line."""

from __future__ import annotations

import argparse
import logging
import os
import random
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gearman_proto.address import parse_address

from .engine import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE: Final = 2
_HELP: Final = """Run and supervise the worker processes of an application.

MODULE:OBJECT is a Tasks, or a dict of names and callbacks. With --factory, it is a function without
arguments that returns a worker. Each option can also be set as an environment variable, such as
GEARMAN_RUN_PROCESSES.

SIGTERM and SIGINT (Ctrl-C) let the jobs finish first; a second one, or SIGQUIT, ends everything at
once, and servers give the jobs to other workers. SIGHUP replaces the processes: each new one is
ready before an old one finishes its jobs. SIGUSR1 pauses and SIGUSR2 resumes.

Example:
    gearmanctl run tasks:tasks --processes 4 --jobs 2
"""


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    if not (value := float(text)) > 0:
        raise ValueError
    return value


_count.__name__, _seconds.__name__ = "number from 1", "number of seconds"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"gearmanctl: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "gearmanctl run",
        usage="%(prog)s MODULE:OBJECT [OPTIONS]",
        description=_HELP,
        epilog="Exit status: 0 all jobs are finished, 1 a process did not start, 2 usage, 3 no "
        "server (--require-server), 128+n ended at once by signal n.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="MODULE:OBJECT")

    def option(name: str, default: Any = None, **options: Any) -> None:
        variable = "GEARMAN_RUN_" + name.upper().replace("-", "_")
        value = os.environ.get(variable)
        if options.get("action") == "store_true":
            default = (value or "").lower() not in ("", "0", "false", "no")
        elif value:
            if value not in options.get("choices", [value]):
                parser.error(f"{variable} is {value!r}: choose one of {options['choices']}")
            default = value  # argparse checks a text as if it had been given.
        parser.add_argument(f"--{name}", default=default, **options)

    option("factory", action="store_true", help="MODULE:OBJECT makes a worker")
    option("app-dir", metavar="DIR", help="where the application is (default: $PWD)")
    option("servers", metavar="HOST[:PORT],…", help="default: $GEARMAN_SERVERS, or localhost:4730")
    option("processes", "1", type=_count, metavar="N", help="number of processes (default: 1)")
    option("jobs", "1", type=_count, metavar="N", help="jobs at once, per process (default: 1)")
    option("max-jobs", type=_count, metavar="N", help="replace a process after so many jobs")
    option(
        "max-lifetime", type=_seconds, metavar="SECONDS", help="replace a process after this time"
    )
    option(
        "max-memory",
        type=_count,
        metavar="MB",
        help="replace a process that has more resident memory after a job (Linux)",
    )
    option(
        "shutdown-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="end the jobs that still run so long after the first signal. Docker kills after 10 s, "
        "Kubernetes after 30 s (default: no limit)",
    )
    option(
        "start-timeout",
        "60",
        type=_seconds,
        metavar="SECONDS",
        help="kill a process that is not ready after this time (default: 60)",
    )
    option(
        "require-server", action="store_true", help="fail if no server can be reached at the start"
    )
    option("id", metavar="NAME", help="client id; process and slot are added (default: the host)")
    option(
        "backend",
        "asyncio",
        choices=("asyncio", "trio"),
        help="event loop for async callbacks (default: asyncio)",
    )
    return parser


def _directory(given: str | None) -> str:
    """Return the application's directory, absolute but with its symbolic links."""
    here = os.environ.get("PWD") or os.getcwd()
    try:
        here = here if os.path.samefile(here, ".") else os.getcwd()
    except OSError:
        here = os.getcwd()
    return os.path.join(here, given or "").rstrip("/") or "/"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, with the application's `directory` and a list of `servers`.

    Raises:
        SystemExit: An argument is wrong, or the help has been printed.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if os.name != "posix":
        parser.error("it needs a POSIX system; call worker.run() in a program of your own")
    if not all(options.app.partition(":")[::2]):
        parser.error(f"{options.app!r} is not MODULE:OBJECT, such as tasks:tasks")
    options.directory = _directory(options.app_dir)
    if not os.path.isdir(options.directory):
        parser.error(f"--app-dir: {options.directory} is not a directory")
    if options.max_memory and not os.path.exists("/proc/self/statm"):
        parser.error("--max-memory needs Linux")
    given = options.servers or os.environ.get("GEARMAN_SERVERS") or "localhost:4730"
    options.servers = given.replace(",", " ").split()
    try:
        for server in options.servers:
            parse_address(server)
    except ValueError as error:
        parser.error(f"--servers: {error}")
    return options


def main() -> int:
    """Run the supervisor, and return its exit status."""
    options = parse()
    from .supervisor import Runner  # noqa: PLC0415 - it needs a POSIX system

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s gearmanctl: %(message)s"
    )
    settings = {
        "app": options.app,
        "factory": options.factory,
        "directory": options.directory,
        "servers": options.servers,
        "jobs": options.jobs,
        "require_server": options.require_server,
        "start_timeout": options.start_timeout,
        "max_jobs": options.max_jobs,
        "max_memory": options.max_memory,
        "id": options.id or socket.gethostname(),
        "backend": options.backend,
    }
    engine = Supervisor(
        processes=options.processes,
        start_timeout=options.start_timeout,
        shutdown_timeout=options.shutdown_timeout,
        max_lifetime=options.max_lifetime,
        rng=random.Random(),  # noqa: S311 - it spreads times
    )
    return Runner(engine, settings, options.directory).run()


if __name__ == "__main__":
    sys.exit(main())
