"""How much to measure."""

from __future__ import annotations

from dataclasses import dataclass


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
