"""Reduce a failing run to the decisions that the failure needs: delta debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gearman_proto.checks import check_callable, check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def shrink(decisions: Sequence[T], fails: Callable[[list[T]], bool], *, most: int = 500) -> list[T]:
    """Return a minimal subset of `decisions` that still fails, in the same order.

    No single decision can be removed from the result, unless `most` was too small.

    Args:
        decisions: The decisions of the failing run: the faults of a network, the actions of a test,
            or both.
        fails: Repeats the run with a subset of the decisions, and returns whether it fails.
        most: Maximum number of attempts.

    Raises:
        TypeError, ValueError: `fails` is not callable, or `most` is not an integer from 0 on.
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
