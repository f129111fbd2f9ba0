"""``gearmanctl run``: becomes the supervisor, which is a program of its own."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

import typer  # noqa: TC002 - typer looks at the types

from gearman_sync.runner.__main__ import parse

from .output import flush

#: Settings of the command, which passes all of its arguments on.
SETTINGS: Final[dict[str, object]] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def run(context: typer.Context) -> NoReturn:
    """Run and supervise the worker processes of an application."""
    parse(context.args)  # Print the help or an error here.
    flush()
    # The supervisor does without the packages of the command line, which take memory. -P: a module
    # of the application must not replace one of the standard library in it.
    command = [sys.executable, "-P", "-m", "gearman_sync.runner", *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - it is this Python
