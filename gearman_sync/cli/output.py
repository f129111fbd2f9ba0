"""What gearmanctl writes: tables for a terminal, tab-separated lines for a pipe, or JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# In a tab-separated line, what would end a field or a line is written as in C.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def complain(message: str) -> None:
    """Write one line to standard error.

    A signal handler may do that, and so it is written past the buffer, which might be in use.
    """
    line = f"gearmanctl: {' '.join(message.splitlines())}\n"
    os.write(sys.stderr.fileno(), line.encode("utf-8", "surrogateescape"))


def write(data: bytes) -> None:
    """Write to standard output; `flush` makes it seen."""
    sys.stdout.buffer.write(data)


def flush() -> None:
    """Let others see what was written."""
    sys.stdout.flush()


def printable(text: str) -> str:
    """`text` for a terminal, which must not take commands from a name."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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
            table.add_row(*(Text(printable(_cell(row[name]))) for name in names))
        Console().print(table)
    else:
        for row in rows:
            line = "\t".join(_cell(row[name], as_digit=True).translate(_ESCAPES) for name in names)
            write(line.encode("utf-8", "surrogateescape") + b"\n")
    flush()


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
