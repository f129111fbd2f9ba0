"""Prints all help pages of gearmanctl, and its messages about wrong command lines.

They have to be the same with every version of typer and rich that the extra ``cli`` allows.
``.ci/run`` compares the oldest with the newest. So this module uses only the packages of the extra.
"""

from __future__ import annotations

import os
from typing import Final

from gearman_sync.cli.app import app, run

COMMANDS: Final = [getattr(command.callback, "__name__", "") for command in app.registered_commands]
WRONG: Final = (
    "",
    "unknown",
    "--unknown",
    "statu",
    "status extra",
    "status --jsn",
    "status --timeout",
    "status --timeout soon",
    "status --timeout -1",
    "status --timeout nan",
    "status --server",
    "status --server host:port",
    "submit",
    "submit task data more",
    "submit task --priority urgent",
    "submit task --priority",
    "submit task --in-flight 0",
    "submit task --in-flight many",
    "submit task --timeout -1",
    "submit task --timeout nan",
    "submit task --lines=yes",
    "submit task data --unordered",
    "submit task --file /nowhere/at-all",
    "submit task data --at tomorrow",
    "work",
    "work task",
    "work task --jobs 0 -- cat",
    "work task --jobs x -- cat",
    "cancel",
    "maxqueue",
    "maxqueue task",
    "maxqueue task many",
    "maxqueue task 1 x 3",
    "serve --port 65536",
    "serve --port http",
    "serve --max-memory 0",
    "serve --tls-key key",
    "top --interval 0",
    "top --interval x",
    "top --interval nan",
    "ping --tls-ca",
    "--version extra",
)


def main() -> None:
    """Print each page after its command line."""
    os.environ.update(COLUMNS="80", TERM="dumb")
    os.environ.pop("GEARMAN_SERVERS", None)
    lines = ["--help", "--version", *(f"{name} --help" for name in COMMANDS), *WRONG]
    for line in lines:
        print(f"$ gearmanctl {line}", flush=True)
        print(f"exit status {run(line.split())}", flush=True)


if __name__ == "__main__":
    main()
