"""How long a call may take: what applications give, and the deadline that it means."""

from __future__ import annotations

from typing import Final

from gearman_proto.errors import ArgumentTypeError, ArgumentValueError

# Seconds; thirty years.
_FOR_EVER: Final = 1e9


def to_seconds(poll_timeout: float | None) -> float | None:
    """Return a `poll_timeout` as seconds from 0 on, or None for no limit.

    What has passed already, as in ``deadline - time.time()``, is 0; what is beyond any clock is
    None.

    Raises:
        TypeError: It is no number.
        ValueError: It is not a number (NaN).
    """
    if poll_timeout is None:
        return None
    if isinstance(poll_timeout, bool) or not isinstance(poll_timeout, (int, float)):
        raise ArgumentTypeError(
            f"poll_timeout is a number of seconds or None, not {poll_timeout!r}"
        )
    if poll_timeout != poll_timeout:
        raise ArgumentValueError("poll_timeout is not a number of seconds: nan")
    return None if poll_timeout > _FOR_EVER else float(max(poll_timeout, 0))


def deadline_of(now: float, poll_timeout: float | None) -> float | None:
    """Return when a call that begins `now` times out, or None. Raises what `to_seconds` does."""
    if poll_timeout is None:
        return None
    seconds = to_seconds(poll_timeout)
    return None if seconds is None else now + seconds


def check_timeout(timeout: float | None) -> float | None:
    """Return the seconds that a job may take. Raises TypeError if they are no number."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    return timeout
