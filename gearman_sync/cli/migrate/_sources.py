"""The files of a program, which are found and read but not run."""

from __future__ import annotations

import io
import os
import stat
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Maximum bytes of a file. Larger files were not written by hand.
MAX_SIZE: Final = 5_000_000
#: Folders with installed or generated files.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_SUFFIXES: Final = (".py", ".pyw")


class Source(NamedTuple):
    """A Python file."""

    path: Path
    text: str


def read(names: Iterable[str], problems: list[str], notes: list[str]) -> Iterator[Source]:
    """Find the Python files at these paths, and search folders. Yield each file once.

    Add a line to `problems` for each unreadable path, and to `notes` for each path without Python.
    """
    seen: set[tuple[int, int]] = set()
    for name in names:
        before = len(seen), len(problems)
        for path in _find(Path(name), seen, problems, is_named=True):
            try:
                yield Source(path, _text(path))
            except (SyntaxError, UnicodeError, LookupError) as error:
                problems.append(f"{path}: this is no text: {error}")
            except OSError as error:
                problems.append(f"{path}: {error.strerror or error}")
        if os.path.isdir(name) and before == (len(seen) - 1, len(problems)):
            notes.append(f"{name}: there is no Python in this directory")


def _find(
    path: Path, seen: set[tuple[int, int]], problems: list[str], *, is_named: bool = False
) -> Iterator[Path]:
    """Yield `path` or, if it is a folder, the files in it."""
    try:
        status = path.stat()
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder and not is_named and (path / "pyvenv.cfg").exists():
            return
        if is_folder or is_named or path.suffix in _SUFFIXES or _is_script(path, status.st_mode):
            if (status.st_dev, status.st_ino) in seen:
                return  # A link or another path has led to the same file.
            seen.add((status.st_dev, status.st_ino))
            if not is_folder:
                yield path
                return
            entries = [each for each in path.iterdir() if each.name[0] != "."]
            for each in sorted(entries, key=lambda each: (os.path.isdir(each), each)):
                if each.name not in _SKIPPED:
                    yield from _find(each, seen, problems)
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL.
        if is_named or path.suffix in _SUFFIXES or os.path.isdir(path):
            problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")


def _is_script(path: Path, mode: int) -> bool:
    if path.suffix or not stat.S_ISREG(mode):
        return False
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


def _text(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("this is no regular file")
    if status.st_size > MAX_SIZE:
        raise OSError(f"this is larger than {MAX_SIZE // 1_000_000} MB")
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.TextIOWrapper(io.BytesIO(data), encoding).read()
