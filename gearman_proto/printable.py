"""Text that somebody else has made, in the form in which it is shown.

Names, ids, and the texts of errors and warnings come from servers and, through them, from anybody
who may submit a job. As they are, they could move a terminal's cursor, forge a line of a log, end a
field of a pipe, or turn round the order in which a line is read. So what this library writes
itself (the messages of its errors, what it logs, what gearmanctl prints) has them in the form of
`shown`. What an application gets as data (a job's result, the fields of a record, the `code` and
`text` of a ServerError) is what it is.
"""

from __future__ import annotations


def shown(text: str | bytes, limit: int | None = None) -> str:
    r"""Return `text` as one line of printable characters.

    What Unicode takes for printable stays (`str.isprintable`). The rest is written as in Python:
    ``\n``, ``\x1b``, ``\u009b``, ``\u202e``; a byte that is not UTF-8 as ``\xff``. A backslash
    stays one, so that what was shown may be a part of what is shown.

    Args:
        text: The text; bytes are UTF-8.
        limit: How many characters of it to show at most, or None.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # A byte, by surrogateescape.
        return f"\\x{number - 0xDC00:02x}"
    if 0x80 <= number <= 0xFF:
        return f"\\u{number:04x}"
    return ascii(character)[1:-1]
