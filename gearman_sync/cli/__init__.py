"""gearmanctl: Gearman from the command line.

gearmanctl needs the extra ``gearman-sansio[cli]``. The rest of gearman_sync works without the
extra, and so does `migrate`, a separate program: ``python -m gearman_sync.migrate``.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from gearman_sync import _interrupts

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run gearmanctl with this process's arguments, then exit."""
    _interrupts.exit_silently()  # Covers the time before `run` starts and after it returns.
    # If the shell has closed a standard stream (`<&-`), open a replacement. Otherwise a socket
    # could get the stream's descriptor.
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
    from .app import run  # noqa: PLC0415 - `app` imports the packages checked above

    sys.exit(run())


def _installation() -> str:
    """Return the command that installs the packages of the extra ``cli``.

    The command names the packages, not the extra. The name of the project, directory or archive
    that has the extra depends on how this library was installed, and the source might be gone.
    """
    import importlib.metadata  # noqa: PLC0415 - a slow import that only this function needs
    import re  # noqa: PLC0415
    import shlex  # noqa: PLC0415

    try:
        requirements = importlib.metadata.requires("gearman-sansio") or []
    except importlib.metadata.PackageNotFoundError:  # The package runs from its source tree.
        requirements = []
    extra = re.compile(r"""\s*;\s*extra\s*==\s*["']cli["']\s*$""")
    needed = [extra.sub("", one) for one in requirements if extra.search(one)] or list(_NEEDED)
    return shlex.join([sys.executable, "-m", "pip", "install", *needed])
