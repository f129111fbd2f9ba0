"""Names and time limits that applications give."""

from __future__ import annotations

import math

import pytest

from gearman_proto.deadlines import check_timeout, deadline_of, to_seconds
from gearman_proto.names import check_client_id, check_task


def test_names() -> None:
    assert check_task("é") == b"\xc3\xa9"
    assert check_client_id("x" * 127) == b"x" * 127
    for check, name in ((check_task, "x\0"), (check_client_id, "x" * 128)):
        with pytest.raises(ValueError, match=r"the (task|client id) 'x"):
            check(name)


def test_time_limits() -> None:
    assert check_timeout(None) is None
    assert check_timeout(1.5) == 1.5
    for timeout in (True, "1"):
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            check_timeout(timeout)  # type: ignore[arg-type]


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
