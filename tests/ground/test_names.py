"""Names and time limits that applications give."""

from __future__ import annotations

import pytest

from gearman_proto.deadlines import check_timeout
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
