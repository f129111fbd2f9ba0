"""``python -m gearman_sync.migrate PATH...``: what has to change in a program that moves here."""

from __future__ import annotations

import sys

from .cli.migrate._report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
