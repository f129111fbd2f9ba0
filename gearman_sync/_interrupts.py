"""Ctrl-C before and after the main function of a program in this package.

While a program imports its modules, Ctrl-C would print a traceback. The import of this package
takes most of that time, before any function of the program can be called. So the package imports
this module first. For its own programs, and only for these, this module then lets Ctrl-C end the
process silently until `raise_once` is called.

To be ready early, this module imports only modules that Python has loaded or that are built in.
`signal` and `typing` are neither.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

_MODULES = ("gearman_sync", "gearman_sync.migrate")
_SCRIPTS = ("gearmanctl", "gearmanctl.exe")

# True if the next Ctrl-C raises KeyboardInterrupt.
_raises = False


def exit_silently() -> None:
    """Let Ctrl-C end the process at once, with the exit status that shells use for SIGINT."""
    global _raises  # noqa: PLW0603 - a process has one handler
    _raises = False
    # Another handler stays: it is a caller's, or SIG_IGN, as nohup sets it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle)


def raise_once() -> None:
    """Let the next Ctrl-C raise KeyboardInterrupt. Those after it end the process at once."""
    global _raises  # noqa: PLW0603 - a process has one handler
    _raises = True


def _is_program() -> bool:
    script, *_ = getattr(sys, "argv", None) or [""]
    if script != "-m":  # Python sets this until it has found the module of `python -m`.
        return os.path.basename(script) in _SCRIPTS
    words = sys.orig_argv
    return "-m" in words and words[words.index("-m") + 1] in _MODULES


def _handle(number: int, _frame: object) -> None:
    if not _raises:
        os._exit(128 + number)
    exit_silently()  # While the exception ends the program, another one would print a traceback.
    raise KeyboardInterrupt


if _is_program():
    exit_silently()
