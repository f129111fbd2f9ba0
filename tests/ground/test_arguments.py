"""What applications give as a timeout, and the deadline that it means."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gearman_proto.arguments import check_timeout, deadline_of, to_seconds


@pytest.mark.parametrize(
    ("poll_timeout", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (2, 2.0),
        (0.5, 0.5),
        (-3, 0.0),
        (-(10**400), 0.0),
        (1e300, None),
        (10**400, None),
        (float("inf"), None),
    ],
)
def test_to_seconds(poll_timeout: float | None, seconds: float | None) -> None:
    assert to_seconds(poll_timeout) == seconds


@pytest.mark.parametrize("poll_timeout", ["1", True, b"", [1.0]])
def test_to_seconds_of_no_number(poll_timeout: Any) -> None:
    with pytest.raises(TypeError, match="poll_timeout is a number"):
        to_seconds(poll_timeout)


def test_to_seconds_of_nan() -> None:
    with pytest.raises(ValueError, match="nan"):
        to_seconds(float("nan"))


@pytest.mark.parametrize(
    ("poll_timeout", "deadline"), [(None, None), (2, 102.0), (-3, 100.0), (1e300, None)]
)
def test_deadline_of(poll_timeout: float | None, deadline: float | None) -> None:
    assert deadline_of(100.0, poll_timeout) == deadline


def test_time_limits() -> None:
    assert check_timeout(None) is None
    assert check_timeout(1.5) == 1.5
    odd: list[Any] = [True, "1"]
    for timeout in odd:
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            check_timeout(timeout)
    for seconds in (0, -1.0, math.nan, 3e6, 10**400):
        with pytest.raises(ValueError, match="timeout is"):
            check_timeout(seconds)


def test_seconds() -> None:
    assert [to_seconds(each) for each in (None, 1, 0.5, -1, math.inf)] == [
        None,
        1.0,
        0.5,
        0.0,
        None,
    ]
    assert [deadline_of(5.0, each) for each in (None, 1, math.inf)] == [None, 6.0, None]
    for poll_timeout, error in ((True, TypeError), ("1", TypeError), (math.nan, ValueError)):
        with pytest.raises(error, match="poll_timeout is"):
            to_seconds(poll_timeout)  # type: ignore[arg-type]
