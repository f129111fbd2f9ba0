"""The output of gearmanctl: tables on a terminal, tab-separated lines in a pipe, or JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from gearman_proto.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def complain(message: str) -> None:
    """Write one line to standard error."""
    write_errors(f"gearmanctl: {printable(message)}\n".encode())


def write_errors(data: bytes) -> None:
    """Write to standard error, ignoring errors.

    Signal handlers call this function, so it bypasses the buffer, which the interrupted code might
    be using.
    """
    # If an error message can't be written, don't raise another error.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(sys.stderr.fileno(), data) :]


def write(data: bytes) -> None:
    """Write to standard output. Call `flush` to make the output visible."""
    # With PYTHONUNBUFFERED, this is a raw file, which may accept only a part of the data.
    while data:
        data = data[sys.stdout.buffer.write(data) :]


def flush() -> None:
    """Flush standard output."""
    sys.stdout.flush()


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, as_json: bool) -> None:
    """Write rows in the form that suits the reader.

    Args:
        rows: The rows. JSON contains them completely.
        columns: The keys that the other forms show, in this order.
        as_json: True to write JSON.
    """
    names = list(columns)
    if as_json:
        print(json.dumps([dict(row) for row in rows], indent=2))  # noqa: T201
    elif sys.stdout.isatty():
        # Slow imports that only tables need.
        from rich import box  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in names:
            is_number = bool(rows) and all(_is_number(row[name]) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(Text(printable(_cell(row[name]))) for name in names))
        Console().print(table)
    else:
        for row in rows:
            # Doubled backslashes make the escapes of a field reversible.
            cells = [_cell(row[name], as_digit=True).replace("\\", r"\\") for name in names]
            write("\t".join(map(printable, cells)).encode() + b"\n")
    flush()


def in_order(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> list[Mapping[str, Any]]:
    """Sort rows by the given columns.

    Numbers within a text compare as numbers, so H:h:9 and 10.0.0.9 precede H:h:10 and 10.0.0.10.
    """
    names = list(columns)
    return sorted(rows, key=lambda row: [_natural(_cell(row[name])) for name in names])


def _natural(text: str) -> list[str | tuple[int, str]]:
    """Return a sort key for `text`.

    Texts and digits alternate, so a text is never compared with digits.
    """
    parts: list[str | tuple[int, str]] = [*re.split(r"([0-9]+)", text)]
    for index in range(1, len(parts), 2):
        # Don't convert to int: a server can send more digits than Python converts.
        digits = str(parts[index]).lstrip("0")
        parts[index] = (len(digits), digits)
    return parts


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object, *, as_digit: bool = False) -> str:
    if isinstance(value, bool):
        return str(int(value)) if as_digit else ("yes" if value else "")
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)
