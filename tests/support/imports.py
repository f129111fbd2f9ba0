"""Control of imports of `gearman`: the module of a peer, or this library in its place."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The names that programs import, and the programs, which keep references to these modules.
_NAMES = ("gearman", "python3_gearman", "py3gearman", "other", "tests.compat.programs")


def _imported() -> dict[str, Any]:
    return {
        name: module
        for name, module in sys.modules.items()
        if name in _NAMES or name.startswith(tuple(f"{each}." for each in _NAMES))
    }


@contextlib.contextmanager
def nothing_imported() -> Iterator[None]:
    """Remove imported `gearman` modules, and forget later imports after the block."""
    before = _imported()
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in _imported():
            del sys.modules[name]
        sys.modules.update(before)
