"""Names: text for applications, bytes on the wire."""

from __future__ import annotations

import pytest

from gearman_proto.names import check_client_id, check_name, check_task, to_text, to_wire


def test_names() -> None:
    class Name(str):
        __slots__ = ()

    assert to_text("ü") == "ü"
    assert to_text(b"\xff\xc3\xbc") == "\udcffü"
    assert to_text(bytearray(b"x")) == "x"  # type: ignore[arg-type]
    assert type(to_text(Name("x"))) is str
    assert to_wire(to_text(b"\xff\xc3\xbc")) == b"\xff\xc3\xbc"
    with pytest.raises(TypeError):
        to_text(7)  # type: ignore[arg-type]


def test_check_name_refuses_invalid_names() -> None:
    assert check_name("task", "ü\udcff", 3) == b"\xc3\xbc\xff"
    assert check_name("task", b"\xff", 3) == b"\xff"
    with pytest.raises(ValueError, match="the task 'üü' has 4 bytes, more than the 3"):
        check_name("task", "üü", 3)
    with pytest.raises(ValueError, match="has a NUL"):
        check_name("task", "a\0b", 3)
    with pytest.raises(ValueError, match="can't be sent as UTF-8: surrogates not allowed"):
        check_name("task", "\ud800", 3)


def test_tasks_and_client_ids() -> None:
    assert check_task("é") == b"\xc3\xa9"
    assert check_client_id("x" * 127) == b"x" * 127
    assert check_task(b"\xff") == b"\xff"
    for check, name in ((check_task, "x\0"), (check_client_id, "x" * 128)):
        with pytest.raises(ValueError, match=r"the (task|client id) 'x"):
            check(name)


@pytest.mark.parametrize("name", ["", b""])
def test_empty_task_is_refused(name: str | bytes) -> None:
    with pytest.raises(ValueError, match="the task is empty: it must be the name of a function"):
        check_task(name)
