"""What makes cases for servers fail: what they do with workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.lying import Lie

#: By the case, what is wrong: one or several wrongs, each of which makes it fail alone.
LIES: Final[dict[str, list[Callable[[], list[Lie]]]]] = {}
