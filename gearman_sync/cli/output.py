"""What gearmanctl writes: tables for a terminal, tab-separated lines for a pipe, or JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gearman_proto.foreign import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def complain(message: str) -> None:
    """Write one line to standard error."""
    write_errors(f"gearmanctl: {shown(message)}\n".encode())


def write_errors(data: bytes) -> None:
    """Write to standard error, if it can be written to.

    A signal handler may do that, and so it is written past the buffer, which might be in use.
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
    """Let others see what was written."""
    sys.stdout.flush()


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, as_json: bool) -> None:
    """Write rows in the form that whoever reads them wants.

    Args:
        rows: What there is to show; JSON has all of it.
        columns: The keys that the other forms show, in this order.
        as_json: Whether it is to be JSON.
    """
    names = list(columns)
    if as_json:
        print(json.dumps([dict(row) for row in rows], indent=2))  # noqa: T201
    elif sys.stdout.isatty():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in names:
            is_number = bool(rows) and all(_is_number(row[name]) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(Text(shown(_cell(row[name]))) for name in names))
        Console().print(table)
    else:
        for row in rows:
            # With its backslashes doubled, a field tells what it was.
            cells = [_cell(row[name], as_digit=True).replace("\\", r"\\") for name in names]
            write("\t".join(map(shown, cells)).encode() + b"\n")
    flush()


def in_order(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> list[Mapping[str, Any]]:
    """Rows by the first of these columns, then by the next.

    A number within a text counts as one, so that H:h:9 and 10.0.0.9 come before H:h:10 and
    10.0.0.10.
    """
    names = list(columns)
    return sorted(rows, key=lambda row: [_natural(_cell(row[name])) for name in names])


def _natural(text: str) -> list[str | tuple[int, str]]:
    """What to sort `text` by. Texts and digits alternate, so that like is compared with like."""
    parts: list[str | tuple[int, str]] = [*re.split(r"([0-9]+)", text)]
    for index in range(1, len(parts), 2):
        # Not as an int: a server may send more digits than Python makes one of.
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
