"""Safe output of untrusted text.

Servers send names, ids, and the texts of errors and warnings. Any client that can submit a job can
choose such text. Unescaped, it could move a terminal's cursor, forge a log line, end a field in a
pipe, or reverse the reading order of a line. Therefore the library passes it through `printable` in
its own output: error messages, log records, and the output of gearmanctl. Applications get
unescaped data, such as a job's result, the fields of a record, or the `code` and `text` of a
ServerError.
"""

from __future__ import annotations


def printable(text: str | bytes, limit: int | None = None) -> str:
    r"""Return `text` as one line of printable characters.

    Printable characters (`str.isprintable`) remain unchanged. Other characters are escaped as in
    Python: ``\n``, ``\x1b``, ``\u009b``, ``\u202e``. A byte that is not UTF-8 is escaped as
    ``\xff``. Backslashes are not escaped, so `text` can contain text that is already escaped.

    Args:
        text: The text. Bytes are decoded as UTF-8.
        limit: Maximum number of characters of the text to show. None means no limit.
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
    if 0xDC80 <= number <= 0xDCFF:  # A byte decoded with surrogateescape.
        return f"\\x{number - 0xDC00:02x}"
    if 0x80 <= number <= 0xFF:
        return f"\\u{number:04x}"
    return ascii(character)[1:-1]
