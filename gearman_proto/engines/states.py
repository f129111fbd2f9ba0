"""State tables: the allowed transitions of each state and their causes.

An engine changes a state only by `transition`, which asserts that the table allows it. The diagrams
in docs/explanation/architecture.md are drawn from the same tables.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias, TypeVar

S = TypeVar("S", bound="State")


class State(enum.Enum):
    """A state, which has a row in a table."""

    # `Enum.__hash__` is written in Python, which would slow down every table lookup.
    if TYPE_CHECKING:

        def __hash__(self) -> int: ...

    else:
        __hash__ = object.__hash__


#: The next states of each state, with the cause of each transition.
StateTable: TypeAlias = dict[S, dict[S, str]]


def transition(table: StateTable[S], state: S, following: S) -> S:
    """Return `following`, the next state, after checking that `table` allows the transition."""
    assert following in table[state], f"{state} can't become {following}"
    return following
