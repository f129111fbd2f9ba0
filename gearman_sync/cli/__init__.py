"""gearmanctl: Gearman from the command line.

It needs the extra ``gearman-sansio[cli]``; nothing else in this package does.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run gearmanctl with the arguments of this process, and exit."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"gearmanctl: {' and '.join(missing)} not found; "
            "pip install 'gearman-sansio[cli]' installs what it needs",
            file=sys.stderr,
        )
        sys.exit(2)
    from .app import run  # noqa: PLC0415 - after looking for what it imports

    sys.exit(run())
