"""What makes each case for workers fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.conformance.lying import Lie, drop

if TYPE_CHECKING:
    from collections.abc import Callable

#: By the case, what is wrong: one or several wrongs, each of which makes it fail alone.
LIES: Final[dict[str, list[Callable[[], list[Lie]]]]] = {
    "end/once/1": [lambda: [drop(">WORK_COMPLETE")]],
}
