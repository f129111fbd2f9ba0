"""Checks of arguments, and the deadlines that follow from timeouts.

The error of a failed check names the argument, the required value, and the given value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from gearman_proto import constants

from .errors import ArgumentTypeError, ArgumentValueError

T = TypeVar("T")

#: The longest time that has an end, in seconds: thirty years.
FOR_EVER: Final = 1e9


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


def check_number(
    name: str, value: float, least: float, most: float = math.inf, what: str = "a number"
) -> float:
    """Return `value`, a number from `least` to `most`; `what` describes it in errors.

    Raises:
        TypeError: It is no number.
        ValueError: It is less, or more, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name} is {what}, not {value!r}")
    if not value >= least:
        raise ArgumentValueError(f"{name} is {value}: it must be at least {least:g}")
    if value > most:
        # Python does not write integers of more than some thousand digits.
        given = value if isinstance(value, float) else "too large"
        raise ArgumentValueError(f"{name} is {given}: it must be at most {most:g}")
    return value


def check_seconds(name: str, value: float, least: float, most: float = math.inf) -> float:
    """Return `value`, a number of seconds from `least` to `most`.

    Raises:
        TypeError: It is no number.
        ValueError: It is less, or more, or NaN.
    """
    return check_number(name, value, least, most, "a number of seconds")


def check_type(name: str, value: T, kind: Any, what: str) -> T:
    """Return `value`, an instance of `kind`, a class or several; `what` describes it in errors.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, kind):
        raise ArgumentTypeError(f"{name} is {what}, not {value!r}")
    return value


def check_callable(name: str, value: T, what: str) -> T:
    """Return `value`, which can be called; `what` goes on behind "a function" in errors.

    Raises:
        TypeError: It can't be called.
    """
    return check_type(name, value, Callable, f"a function {what}")


def check_packet_size(value: int, most: int = constants.MAX_BODY_SIZE) -> int:
    """Return a `max_packet_size`. Raises what `check_count` does."""
    return check_count("max_packet_size", value, constants.MIN_PACKET_SIZE, most)


def to_seconds(poll_timeout: float | None, name: str = "poll_timeout") -> float | None:
    """Return a `poll_timeout`, or what else has this `name`, as seconds from 0 on; None for ever.

    What has passed already, as in ``deadline - time.time()``, is 0; what is beyond any clock is
    None.

    Raises:
        TypeError: It is no number.
        ValueError: It is not a number (NaN).
    """
    if poll_timeout is None:
        return None
    if isinstance(poll_timeout, bool) or not isinstance(poll_timeout, (int, float)):
        raise ArgumentTypeError(f"{name} is a number of seconds or None, not {poll_timeout!r}")
    if poll_timeout != poll_timeout:
        raise ArgumentValueError(f"{name} is not a number of seconds: nan")
    return None if poll_timeout > FOR_EVER else float(max(poll_timeout, 0))


def deadline_of(now: float, poll_timeout: float | None) -> float | None:
    """Return when a call that begins `now` times out, or None. Raises what `to_seconds` does."""
    if poll_timeout is None:
        return None
    seconds = to_seconds(poll_timeout)
    return None if seconds is None else now + seconds


def refuse_arguments(unknown: Mapping[str, object]) -> None:
    """Refuse keyword arguments that a method does not have.

    Methods collect unknown arguments for this function, because many programs pass a `timeout`, and
    Python's own error would not say that the argument has another name.

    Raises:
        TypeError: `unknown` is not empty.
    """
    for name in unknown:
        cure = "; the maximum time to wait is poll_timeout" if name == "timeout" else ""
        raise ArgumentTypeError(f"there is no argument {name!r}{cure}")


def check_timeout(timeout: float | None) -> float | None:
    """Return the seconds that a job may take; None for any number.

    Raises:
        TypeError: They are no number.
        ValueError: Servers do not take them (CAN_DO_TIMEOUT).
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ArgumentTypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    if timeout > constants.MAX_CAN_DO_TIMEOUT / 1000:
        # Without the number: Python does not write those of more than some thousand digits.
        raise ArgumentValueError("timeout is more seconds than servers take")
    if not timeout > 0:
        raise ArgumentValueError("timeout is not more than 0 seconds")
    return timeout
