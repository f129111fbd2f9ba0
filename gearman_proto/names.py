"""Names of functions, jobs and clients: `str` for applications, bytes on the wire.

UTF-8 with surrogateescape, so that any bytes survive the round trip. Wherever an application gives
a name, `str` and `bytes` will do.
"""

from __future__ import annotations

from . import constants
from .errors import ArgumentTypeError, ArgumentValueError


def to_text(name: str | bytes, what: str = "name") -> str:
    """Return a name as the job layer has it. Raises TypeError, which says `what` it is, if none."""
    if type(name) is str:
        return name
    if isinstance(name, (bytes, bytearray)):
        return name.decode("utf-8", "surrogateescape")
    if isinstance(name, str):
        return str.__str__(name)  # What `str` makes of a member of an enum is its name in Python.
    raise ArgumentTypeError(f"a {what} is a str or bytes, not {type(name).__name__}")


def to_wire(name: str) -> bytes:
    """Return a name as the wire has it."""
    return name.encode("utf-8", "surrogateescape")


def check_name(what: str, name: str | bytes, limit: int) -> bytes:
    """Return a name as the wire has it.

    Raises:
        TypeError: It is none.
        ValueError: It has a NUL in it, or more than `limit` bytes.
    """
    if type(name) is not str:
        name = to_text(name, what)
    try:
        wire = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ArgumentValueError(
            f"the {what} {name[:80]!r} can't be sent as UTF-8: {error.reason}"
        ) from None
    if 0 in wire:
        raise ArgumentValueError(f"the {what} {name[:80]!r} has a NUL in it")
    if len(wire) > limit:
        raise ArgumentValueError(
            f"the {what} {name[:80]!r} has {len(wire)} bytes, more than the {limit} servers take"
        )
    return wire


def check_task(task: str) -> bytes:
    """Return a function's name as the wire has it. Raises ValueError if servers do not take it."""
    return check_name("task", task, constants.MAX_FUNCTION_SIZE)


def check_client_id(client_id: str) -> bytes:
    """Return a client id as the wire has it. Raises ValueError if servers do not take it."""
    return check_name("client id", client_id, constants.MAX_CLIENT_ID_SIZE)
