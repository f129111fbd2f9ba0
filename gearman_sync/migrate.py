"""``python -m gearman_sync.migrate PATH...``: what has to change in a program that moves here."""

from __future__ import annotations

import sys

from ._interrupts import exit_silently

if __name__ == "__main__":
    exit_silently()  # This program has nothing to clean up.
    from .cli.migrate._report import main

    sys.exit(main(sys.argv[1:]))
