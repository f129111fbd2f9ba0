"""gearmanctl: Gearman from the command line.

It needs the extra ``gearman-sansio[cli]``. The rest of this package does not, and neither does
`migrate`, which is a separate program: ``python -m gearman_sync.migrate``.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from gearman_sync import _interrupts

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run gearmanctl with the arguments of this process, and exit."""
    _interrupts.exit_silently()  # Until `run` has begun, and from its end on.
    # Replace streams that the shell has closed (`<&-`), so that no socket gets their numbers.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the process
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"gearmanctl: {' and '.join(missing)} not found; "
            f"{_installation()} installs what it needs",
            file=sys.stderr,
        )
        sys.exit(2)
    from .app import run  # noqa: PLC0415 - after looking for what it imports

    sys.exit(run())


def _installation() -> str:
    """The command that installs what the extra does.

    It does not name the extra: which project, directory or archive has that depends on how this was
    installed, and may be gone. What the extra needs is known in any case.
    """
    import importlib.metadata  # noqa: PLC0415 - takes long, and only this needs it
    import re  # noqa: PLC0415
    import shlex  # noqa: PLC0415

    try:
        requirements = importlib.metadata.requires("gearman-sansio") or []
    except importlib.metadata.PackageNotFoundError:  # It is run from its source.
        requirements = []
    extra = re.compile(r"""\s*;\s*extra\s*==\s*["']cli["']\s*$""")
    needed = [extra.sub("", one) for one in requirements if extra.search(one)] or list(_NEEDED)
    return shlex.join([sys.executable, "-m", "pip", "install", *needed])
