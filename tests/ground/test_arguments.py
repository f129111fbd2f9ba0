"""Timeouts given by applications, and the resulting deadlines."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gearman_proto.checks import (
    check_callable,
    check_number,
    check_timeout,
    check_type,
    deadline_of,
    refuse_arguments,
    to_seconds,
)


@pytest.mark.parametrize(
    ("poll_timeout", "seconds"),
    [
        *((None, None), (1e300, None), (10**400, None), (math.inf, None)),
        *((0, 0.0), (2, 2.0), (0.5, 0.5), (-3, 0.0), (-(10**400), 0.0)),
    ],
)
def test_to_seconds_and_deadline_of(poll_timeout: float | None, seconds: float | None) -> None:
    assert to_seconds(poll_timeout) == seconds
    assert deadline_of(100.0, poll_timeout) == (None if seconds is None else 100.0 + seconds)


def test_to_seconds_of_another_value_raises() -> None:
    odd: list[Any] = ["1", True, b"", [1.0]]
    for poll_timeout in odd:
        with pytest.raises(TypeError, match="poll_timeout is a number"):
            to_seconds(poll_timeout)
    with pytest.raises(ValueError, match="nan"):
        to_seconds(math.nan)


def test_check_timeout_limits() -> None:
    assert (check_timeout(None), check_timeout(1.5)) == (None, 1.5)
    odd: list[Any] = [True, "1"]
    for timeout in odd:
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            check_timeout(timeout)
    for seconds in (0, -1.0, math.nan, 3e6, 10**400):
        with pytest.raises(ValueError, match="timeout is"):
            check_timeout(seconds)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("1", TypeError, "rate is a number, not '1'"),
        (True, TypeError, "rate is a number, not True"),
        (0.5, ValueError, "rate is 0.5: it must be at least 1"),
        (math.nan, ValueError, "rate is nan: it must be at least 1"),
        (math.inf, ValueError, r"rate is inf: it must be at most 1e\+06"),
        pytest.param(10**5000, ValueError, "rate is too large: it must be at most", id="huge"),
    ],
)
def test_check_number_of_a_bad_value_names_it_and_its_limits(
    value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_number("rate", value, 1, 1e6)
    assert check_number("rate", 1, 1, 1e6) == 1


def test_check_type_of_another_type_names_the_wanted_type() -> None:
    assert check_type("name", "f", str, "a str") == "f"
    with pytest.raises(TypeError, match="name is a str, not 5"):
        check_type("name", 5, str, "a str")
    assert check_callable("tap", len, "of bytes") is len
    with pytest.raises(TypeError, match="tap is a function of bytes, not 5"):
        check_callable("tap", 5, "of bytes")


def test_unknown_argument_is_named_with_the_right_name_for_timeout() -> None:
    refuse_arguments({})
    with pytest.raises(TypeError, match=r"^there is no argument 'colour'$"):
        refuse_arguments({"colour": 1})
    cure = "^there is no argument 'timeout'; the maximum time to wait is poll_timeout$"
    with pytest.raises(TypeError, match=cure):
        refuse_arguments({"timeout": 5})
