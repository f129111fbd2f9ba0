"""How long a call may take: what applications give, and the deadline that it means."""

from __future__ import annotations

from typing import Final

from gearman_proto import constants
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError

# Seconds; thirty years.
_FOR_EVER: Final = 1e9


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
    return None if poll_timeout > _FOR_EVER else float(max(poll_timeout, 0))


def deadline_of(now: float, poll_timeout: float | None) -> float | None:
    """Return when a call that begins `now` times out, or None. Raises what `to_seconds` does."""
    if poll_timeout is None:
        return None
    seconds = to_seconds(poll_timeout)
    return None if seconds is None else now + seconds


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
