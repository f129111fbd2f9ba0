"""The extent of a measurement, its interleaved rounds, and their statistics."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from .processes import Child

#: The figures of one subject in one round.
Figures: TypeAlias = dict[str, float]
#: The figures of all rounds, by subject.
Results: TypeAlias = dict[str, list[Figures]]


@dataclass(frozen=True)
class Settings:
    """The extent of a measurement.

    Attributes:
        jobs: Jobs in one call. Slower subjects get a fixed fraction of them.
        rounds: Rounds of each measurement.
    """

    jobs: int = 100_000
    rounds: int = 7

    def share(self, part: int) -> int:
        """Return the jobs divided by `part`, but at least two."""
        return max(self.jobs // part, 2)


def interleaved(subjects: Mapping[str, Callable[[], Figures]], rounds: int) -> Results:
    """Measure all subjects in each round, one after the other."""
    results: Results = {name: [] for name in subjects}
    names = list(subjects)
    for _ in range(rounds):
        for name in names:
            results[name].append(subjects[name]())
        # Reverse the order, so that no subject always runs after the same one.
        names.reverse()
    return results


def asked(starts: Mapping[str, AbstractContextManager[Child]], count: int, rounds: int) -> Results:
    """Start and warm up all subjects. In each round, let each subject do `count` jobs."""
    with ExitStack() as stack:
        children = {name: stack.enter_context(start) for name, start in starts.items()}
        for child in children.values():
            child.ask(min(count, 100))
        return interleaved(
            {name: partial(child.ask, count) for name, child in children.items()}, rounds
        )


def at_levels(
    start: Callable[[str, int], AbstractContextManager[Child]],
    names: list[str],
    levels: list[int],
    count: int,
    rounds: int,
) -> dict[str, Results]:
    """Measure each subject at each level with `asked`. `start` takes the name and the level."""
    starts = {f"{name} {level}": start(name, level) for level in levels for name in names}
    return by_level(asked(starts, count, rounds), names, levels)


def by_level(results: Results, names: list[str], levels: list[int]) -> dict[str, Results]:
    """Return the results by name and level. The keys of `results` consist of a name and a level."""
    return {name: {str(level): results[f"{name} {level}"] for level in levels} for name in names}


def median(found: list[Figures], what: str) -> float:
    return statistics.median(figures[what] for figures in found)


def ratio(found: list[Figures], other: list[Figures], what: str) -> float:
    """Return the median of the ratios within each round, whose conditions were the same."""
    return statistics.median(mine[what] / its[what] for mine, its in zip(found, other))
