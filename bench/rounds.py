"""How much to measure, in interleaved rounds, and what they come to."""

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

#: What one measurement of one subject has found.
Figures: TypeAlias = dict[str, float]
#: By subject, what each round has found.
Results: TypeAlias = dict[str, list[Figures]]


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        jobs: Jobs in one call; what is slower gets a fixed share of them.
        rounds: Rounds of each measurement.
    """

    jobs: int = 100_000
    rounds: int = 7

    def share(self, part: int) -> int:
        """One for so many jobs, and two at least."""
        return max(self.jobs // part, 2)


def interleaved(subjects: Mapping[str, Callable[[], Figures]], rounds: int) -> Results:
    """Measure all subjects in each round, one after the other."""
    results: Results = {name: [] for name in subjects}
    names = list(subjects)
    for _ in range(rounds):
        for name in names:
            results[name].append(subjects[name]())
        # Whoever follows another is followed by it in the next round.
        names.reverse()
    return results


def asked(starts: Mapping[str, AbstractContextManager[Child]], count: int, rounds: int) -> Results:
    """Start all subjects, warm them up, and in each round have each of them do so many jobs."""
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
    """What `asked` finds of each subject at each level; `start` gets its name and the level."""
    starts = {f"{name} {level}": start(name, level) for level in levels for name in names}
    return by_level(asked(starts, count, rounds), names, levels)


def by_level(results: Results, names: list[str], levels: list[int]) -> dict[str, Results]:
    """The results of subjects that are called a name and a level, by name and level."""
    return {name: {str(level): results[f"{name} {level}"] for level in levels} for name in names}


def median(found: list[Figures], what: str) -> float:
    return statistics.median(figures[what] for figures in found)


def ratio(found: list[Figures], other: list[Figures], what: str) -> float:
    """The median of the ratios within each round: these are pairs that had the same weather."""
    return statistics.median(mine[what] / its[what] for mine, its in zip(found, other))
