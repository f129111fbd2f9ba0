"""Find out what of all that happened a failure needs: delta debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gearman_proto.arguments import check_callable, check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def shrink(decisions: Sequence[T], fails: Callable[[list[T]], bool], *, most: int = 500) -> list[T]:
    """Return as few of `decisions` as will do for the failure, in their order.

    None of those that are left can be taken away alone, unless `most` was too little.

    Args:
        decisions: What happened: the faults of a network, the actions of a test, or both.
        fails: Does it all again with some of them, and says whether it fails.
        most: How often to try at most.

    Raises:
        TypeError, ValueError: `fails` can't be called, or `most` is no whole number from 0 on.
    """
    check_callable("fails", fails, "of a list of decisions")
    check_count("most", most, 0)
    left = list(decisions)
    size = len(left)
    while size:
        at = 0
        removed = False
        while at < len(left):
            if not most:
                return left
            most -= 1
            fewer = left[:at] + left[at + size :]
            if fails(fewer):
                left, removed = fewer, True
            else:
                at += size
        if size > 1 or not removed:
            size //= 2
    return left
