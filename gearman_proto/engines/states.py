"""Tables of states: which may follow which, and what leads there.

An engine changes a state by `turn` only, which refuses what is not in the table. The diagrams in
docs/explanation/architecture.md are drawn from the same tables.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias, TypeVar

S = TypeVar("S", bound="State")


class State(enum.Enum):
    """What a table has a row for."""

    # Enum has one that is written in Python, and each look into a table needs it.
    if TYPE_CHECKING:

        def __hash__(self) -> int: ...

    else:
        __hash__ = object.__hash__


#: State -> the states that may follow, and what leads to each.
StateTable: TypeAlias = dict[S, dict[S, str]]


def turn(table: StateTable[S], state: S, following: S) -> S:
    """Return `following`, which a thing in `state` turns into."""
    assert following in table[state], f"{state} can't turn into {following}"
    return following
