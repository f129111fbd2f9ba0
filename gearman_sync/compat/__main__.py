"""Run a program that was written for python-gearman.

Usage: ``python -m gearman_sync.compat PROGRAM [ARGUMENT ...]``
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from gearman_sync import install_as_gearman


def main() -> None:
    """Install this library as `gearman`, and run a program that imports it."""
    parser = argparse.ArgumentParser(
        prog="python -m gearman_sync.compat",
        description="Run a program that was written for python-gearman.",
        usage="%(prog)s [--as NAME] [--text] (PROGRAM | -m MODULE) [ARGUMENT ...]",
    )
    parser.add_argument("--as", dest="name", default="gearman", help="what it imports; gearman")
    parser.add_argument("--text", action="store_true", default=None, help="its data is str")
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module")
    parser.add_argument("program", metavar="PROGRAM", help="a file")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    program: str = arguments.program
    if not arguments.module and not Path(program).exists():
        parser.error(f"there is no file {program!r}")
    install_as_gearman(arguments.name, text=arguments.text)
    sys.argv = [program, *arguments.arguments]
    # As in Python itself, the path begins with the program's directory, or with -m the current one.
    sys.path[0] = str(Path.cwd() if arguments.module else Path(program).resolve().parent)
    if arguments.module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
