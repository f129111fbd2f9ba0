"""What makes each case for clients fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.conformance.lying import Lie, field_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: By the case, what is wrong: one or several wrongs, each of which makes it fail alone.
LIES: Final[dict[str, list[Callable[[], list[Lie]]]]] = {
    "result/plain/1": [lambda: [field_of("<WORK_COMPLETE", 1, b"other")]],
}
