"""Names of functions, jobs and clients: `str` for applications, bytes on the wire.

The encoding is UTF-8 with surrogateescape, so any bytes survive the round trip. Applications can
pass each name as `str` or as `bytes`.
"""

from __future__ import annotations

from . import constants
from .errors import ArgumentTypeError, ArgumentValueError


def to_text(name: str | bytes, what: str = "name") -> str:
    """Return a name as `str`, for the job layer.

    Raises:
        TypeError: `name` is neither `str` nor `bytes`. The message calls it `what`.
    """
    if type(name) is str:
        return name
    if isinstance(name, (bytes, bytearray)):
        return name.decode("utf-8", "surrogateescape")
    if isinstance(name, str):
        return str.__str__(name)  # `str(member)` of an enum can be the name in Python.
    raise ArgumentTypeError(f"a {what} is a str or bytes, not {type(name).__name__}")


def to_wire(name: str) -> bytes:
    """Return a name in its wire form."""
    return name.encode("utf-8", "surrogateescape")


def check_name(what: str, name: str | bytes, limit: int) -> bytes:
    """Check a name, and return it in its wire form.

    Args:
        what: The kind of name, for error messages.
        name: The name.
        limit: Maximum size, in bytes.

    Raises:
        TypeError: `name` is neither `str` nor `bytes`.
        ValueError: The name contains a NUL, is longer than `limit`, or can't be sent as UTF-8.
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


def check_task(task: str | bytes) -> bytes:
    """Check a function's name, and return it in its wire form.

    Raises:
        TypeError, ValueError: As in `check_name`. Also, the name must not be empty. Servers accept
            the empty name, but programs only pass it by mistake.
    """
    wire = check_name("task", task, constants.MAX_FUNCTION_SIZE)
    if not wire:
        raise ArgumentValueError("the task is empty: it must be the name of a function")
    return wire


def check_client_id(client_id: str | bytes) -> bytes:
    """Check a client id, and return it in its wire form.

    Raises:
        TypeError, ValueError: As in `check_name`.
    """
    return check_name("client id", client_id, constants.MAX_CLIENT_ID_SIZE)
