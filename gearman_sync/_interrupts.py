"""Ctrl-C before and after the main function of a program in this package.

While a program imports its modules, Ctrl-C would print a traceback. The import of this package
takes most of that time, before any function of the program can be called. So the package imports
this module first. For its own programs, and only for these, this module then lets Ctrl-C end the
process silently until `end_import` is called.

To be ready early, this module imports only modules that Python has loaded or that are built in.
`signal` and `typing` are neither.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

_MODULES = ("gearman_sync", "gearman_sync.migrate")
_SCRIPTS = ("gearmanctl", "gearmanctl.exe")


def exit_silently() -> None:
    """Let Ctrl-C end the process at once, with the exit status that shells use for SIGINT."""
    _replace(signal.default_int_handler, _exit)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does by default."""
    _replace(_exit, signal.default_int_handler)


def end_import() -> None:
    """Undo the effect of importing this module."""
    if _IS_PROGRAM:
        raise_again()


def _is_program() -> bool:
    script, *_ = getattr(sys, "argv", None) or [""]
    if script != "-m":  # Python sets this until it has found the module of `python -m`.
        return os.path.basename(script) in _SCRIPTS
    words = sys.orig_argv
    return "-m" in words and words[words.index("-m") + 1] in _MODULES


def _replace(before: "Any", after: "Any") -> None:
    # Another handler stays: it is a caller's, or SIG_IGN, as nohup sets it.
    if signal.getsignal(signal.SIGINT) is before:
        signal.signal(signal.SIGINT, after)


def _exit(number: int, _frame: object) -> None:
    os._exit(128 + number)


_IS_PROGRAM = _is_program()
if _IS_PROGRAM:
    exit_silently()
