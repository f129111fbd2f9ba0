"""Text from other programs is shown on one line, without losing information."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.errors import GearmanError, ServerError, ServerUnavailable
from gearman_proto.printable import printable
from tests.support import hostile


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain [bold]text[/] 仕事 e\u0301 \\", "plain [bold]text[/] 仕事 e\u0301 \\"),
        ("a\tb\nc\r\x1b[2J\x7f\x00", r"a\tb\nc\r\x1b[2J\x7f\x00"),
        ("\x85\x9b\xa0\xad", r"\u0085\u009b\u00a0\u00ad"),
        ("\u2028\u202e\ufeff\U000e0041", r"\u2028\u202e\ufeff\U000e0041"),
        ("\udc9b\udcff", r"\x9b\xff"),
        (b"gr\xc3\xbcn \x9b \xff", r"grün \x9b \xff"),
    ],
)
def test_shown_escapes_control_characters(text: str | bytes, expected: str) -> None:
    assert printable(text) == expected


def test_shown_truncates_long_text() -> None:
    assert printable("x" * 5, 5) == "xxxxx"
    assert printable("x" * 6, 5) == "xxxxx…"
    assert printable("\n" * 6, 2) == r"\n\n…"


def was(line: str) -> str:
    """Return the original text of a shown line, if its backslashes were doubled."""

    def character(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xuU":
            number = int(escape[1:], 16)
            return chr(number + 0xDC00 if escape[0] == "x" and number > 0x7F else number)
        return {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}[escape]

    return re.sub(r"\\(\\|[nrt]|x..|u....|U........)", character, line)


@given(st.one_of(st.text(), hostile.BYTES, st.text(st.characters(categories=["Cs", "Cc", "Cf"]))))
def test_shown_text_is_one_line_and_reversible(text: str | bytes) -> None:
    line = printable(text)
    assert hostile.is_harmless(line)
    line.encode()  # Surrogates would raise UnicodeEncodeError.
    assert printable(line) == line
    given = text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")
    assert was(printable(given.replace("\\", r"\\"))) == given


@given(hostile.BYTES, hostile.BYTES)
def test_errors_are_single_lines(one: bytes, two: bytes) -> None:
    code, text = (data.decode("utf-8", "surrogateescape") for data in (one, two))
    server_error = ServerError(code, text)
    assert (server_error.code, server_error.text) == (code, text)
    for error in (GearmanError(text), server_error, ServerUnavailable(f"it said {server_error}")):
        assert hostile.is_harmless(str(error))
        assert hostile.is_harmless(repr(error))
        assert hostile.is_harmless("".join(traceback.format_exception_only(error)).rstrip("\n"))


def test_message_of_a_huge_server_error_is_truncated() -> None:
    error = ServerError("QUEUE_ERROR", "\x1b" * 1_000_000)
    assert len(str(error)) < 20_000
    assert len(error.text) == 1_000_000
