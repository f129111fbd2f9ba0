"""Hostile bytes that a server might send as text, for tests of logs and messages."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

#: One of each kind: C0 and C1 controls, DEL, escape sequences, line separators, bidirectional
#: controls, invisible characters, and invalid UTF-8.
PIECES: Final = (
    *(b"\t", b"\n", b"\r", b"\r\n", b"\x07", b"\x08", b"\x0b", b"\x0c", b"\x1c", b"\x7f"),
    *(b"\x1b[2J", b"\x1b]0;title\x07", b"\x9b31m", b"\xff", b"\xed\xa0\x80", b"\xc3"),
    *(c.encode() for c in "\x85\x9b\xa0\xad\u200b\u200f\u2028\u2029\u202e\u2066\ufeff\U000e0041"),
    *(b"gearmanctl: ", b"ERROR:gearman:forged", b"\\", b"\\n", b" ", b"plain", "gr\xfcn".encode()),
)

#: Hostile bytes without NUL, which terminates an argument of a packet.
BYTES: Final = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(b"".join),
    st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"\0", b"\x01")),
)


def is_harmless(text: str) -> bool:
    """Return whether `text` is part of one line, without control or invisible characters."""
    return text.isprintable()
