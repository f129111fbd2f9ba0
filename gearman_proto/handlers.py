"""Recognise the exceptions of signal handlers.

CPython runs a signal handler between any two steps of the main thread, so a handler that raises an
exception, TimeoutError for example, ends whatever that thread does. The exception is not a failure
of the interrupted code. Each ``except`` of a broad class in the drivers therefore first calls
`reraise_from_handler`.

This module looks for `signal` and `threading` where the interpreter keeps imported modules. A
program that has not imported them has no handler in Python, and no other threads.
"""

from __future__ import annotations

import _thread
import sys
from traceback import walk_tb
from typing import Any, Final

# Packages whose functions are not the application's.
_LIBRARY: Final = {"gearman_anyio", "gearman_sync", "gearman_proto", *sys.stdlib_module_names}
# Python lacks this function before 3.12, and does not need it: sub-interpreters share everything.
_is_main_interpreter: Final = getattr(_thread, "_is_main_interpreter", lambda: True)


def _path_to_handler(error: BaseException) -> list[str] | None:
    """Return the modules of the frames up to the signal handler's that raised `error`.

    Return None if no handler raised it. A handler in C has no frame, but Python's own, for Ctrl-C,
    raises KeyboardInterrupt, which is not an Exception.
    """
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is None:
        return None  # A C function raised it in the frame that has caught it.
    signal = sys.modules.get("signal")
    if signal is None or not is_main_thread():
        return None
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {_code_of(handler) for handler in handlers if callable(handler)} - {None}
    path: list[str] = []
    for frame, _ in walk_tb(traceback):
        if frame.f_code in codes:
            return path
        path.append(frame.f_globals.get("__name__", ""))
    return None


def is_main_thread() -> bool:
    """Return True in the only thread that can handle signals."""
    threading = sys.modules.get("threading")
    is_main = threading is None or threading.current_thread() is threading.main_thread()
    return is_main and bool(_is_main_interpreter())


def is_from_handler(error: BaseException) -> bool:
    """Return True if a signal handler raised `error`, so the interrupted function did not fail."""
    return _path_to_handler(error) is not None


def has_hit_the_library(error: BaseException) -> bool:
    """Return True if a signal handler raised `error` while no function of the application ran.

    If it has hit a callback, the application's function failed, and might have caught the error.
    """
    path = _path_to_handler(error)
    return path is not None and all(name.partition(".")[0] in _LIBRARY for name in path)


def reraise_from_handler(error: BaseException) -> None:
    """Raise `error` again if a signal handler raised it.

    A program's handler can end a call with any exception, TimeoutError for example. Each ``except``
    of a broad class calls this, so that the exception is not mistaken for the failure of a system
    call.
    """
    if is_from_handler(error):
        raise error


def _code_of(handler: Any) -> object:
    while hasattr(handler, "func"):  # A partial.
        handler = handler.func
    if not hasattr(handler, "__code__"):  # A method has its function's.
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)
