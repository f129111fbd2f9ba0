"""``python -m gearman_sync.migrate PATH...``: list the changes that a program needs to migrate."""

from __future__ import annotations

import sys

from ._interrupts import exit_silently

if __name__ == "__main__":
    exit_silently()  # This program has nothing to clean up.
    from .cli.migrate._report import main

    sys.exit(main(sys.argv[1:]))
