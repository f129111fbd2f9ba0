"""Checks of the numbers that applications give.

All raise errors that say which argument it is, what it is to be, and what it is.
"""

from __future__ import annotations

from . import constants
from .errors import ArgumentTypeError, ArgumentValueError


def check_count(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return `value`, a whole number from `least` to `most`.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less, or more.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ArgumentValueError(f"{name} is {value}: it must be at least {least}")
    if most is not None and value > most:
        # Python does not write numbers of more than some thousand digits.
        raise ArgumentValueError(f"{name} is more than {most}")
    return value


def check_seconds(name: str, value: float, least: float) -> float:
    """Return `value`, a number of seconds from `least` on.

    Raises:
        TypeError: It is no number.
        ValueError: It is less, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name} is a number of seconds, not {value!r}")
    if not value >= least:
        raise ArgumentValueError(f"{name} is {value}: it must be at least {least:g}")
    return value


def check_packet_size(value: int, most: int = constants.MAX_BODY_SIZE) -> int:
    """Return a `max_packet_size`. Raises what `check_count` does."""
    return check_count("max_packet_size", value, constants.MIN_PACKET_SIZE, most)
