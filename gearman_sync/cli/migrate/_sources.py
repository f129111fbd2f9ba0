"""Finds the programs, and reads them. Nothing of them is run."""

from __future__ import annotations

import ast
import io
import re
import stat
import tokenize
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._families import ALL_MODULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Bytes. Nobody writes more by hand.
MAX_SIZE: Final = 5_000_000
#: Folders of what is installed or made, and not of the program.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_IMPORTS: Final = re.compile(
    r"^[ \t]*(?:from[ \t]+|import[ \t]+(?:[^\n#]*,[ \t]*)?)"
    rf"(?:{'|'.join(ALL_MODULES)})\b(?![ \t]*=)",
    re.MULTILINE,
)


class Unreadable(Exception):
    """A path that can't be read, and why."""


@dataclass
class Source:
    """A file of Python.

    Attributes:
        path: Where it is.
        text: What is in it.
        tree: The same, parsed; None if it can't be, or was not yet.
        error: Why it can't be, and in which line.
    """

    path: Path
    text: str
    tree: ast.Module | None = None
    error: tuple[int, str] = field(default=(0, ""))

    def parse(self) -> None:
        """Make the tree of the text, or say why not.

        Raises:
            RecursionError, MemoryError: It is nested too deeply.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "\\d" in a text, and so on.
                self.tree = ast.parse(self.text)
        except SyntaxError as error:
            self.error = (error.lineno or 1, error.msg or "invalid syntax")
        except ValueError as error:  # A NUL.
            self.error = (1, str(error))

    @property
    def imports_library(self) -> bool:
        """Whether a line looks like the import of one of the libraries."""
        return _IMPORTS.search(self.text) is not None


def find(paths: Iterable[str], problems: list[str], notes: list[str]) -> Iterator[Path]:
    """Yield the files of Python at `paths`, each once; folders are searched.

    Args:
        paths: Files and folders.
        problems: Gets a line for each that can't be read.
        notes: Gets a line for each folder without Python.
    """
    seen: set[tuple[int, int]] = set()
    for name in paths:
        try:
            path = Path(name)
            if stat.S_ISDIR(path.stat().st_mode):
                before = len(seen)
                yield from _walk(path, seen, problems)
                if len(seen) == before:
                    notes.append(f"{name}: there is no Python in this directory")
            elif _is_new(path, seen):
                yield path
        except (OSError, ValueError) as error:
            problems.append(f"{name}: {_reason(error)}")


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    status = path.stat()
    key = status.st_dev, status.st_ino
    if key in seen:
        return False
    seen.add(key)
    return True


def _walk(top: Path, seen: set[tuple[int, int]], problems: list[str]) -> Iterator[Path]:
    folders: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            if not _is_new(folder, folders):
                continue  # A link to a folder that was here already.
            entries = sorted(folder.iterdir())
        except OSError as error:
            problems.append(f"{folder}: {_reason(error)}")
            continue
        inner = []
        for path in entries:
            if path.name.startswith(".") or path.name in _SKIPPED:
                continue
            try:
                if stat.S_ISDIR(path.stat().st_mode):
                    if not (path / "pyvenv.cfg").exists():
                        inner.append(path)
                elif _is_python(path) and _is_new(path, seen):
                    yield path
            except OSError as error:
                if path.suffix in (".py", ".pyw"):
                    problems.append(f"{path}: {_reason(error)}")
        waiting += reversed(inner)


def _is_python(path: Path) -> bool:
    if path.suffix in (".py", ".pyw"):
        return True
    if path.suffix or not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:  # A script without a suffix.
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


def read(path: Path) -> Source:
    """Read a file.

    Raises:
        Unreadable: It is no text of Python's, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("this is no regular file")
        if status.st_size > MAX_SIZE:
            raise Unreadable(f"this is larger than {MAX_SIZE // 1_000_000} MB")
        data = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except (OSError, SyntaxError, UnicodeError, LookupError) as error:
        raise Unreadable(_reason(error)) from None
    return Source(path, text)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError | LookupError | SyntaxError):
        return f"this is no text: {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
