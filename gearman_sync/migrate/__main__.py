"""``python -m gearman_sync.migrate``."""

from __future__ import annotations

import sys

from ._report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
