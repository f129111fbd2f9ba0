"""The number of Hypothesis's examples: few and always the same, or many and different each time.

pytest uses `dev` by default. The environment variable HYPOTHESIS_PROFILE or pytest's option
`--hypothesis-profile` selects another profile.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

settings.register_profile("dev", max_examples=15, derandomize=True, database=None, deadline=None)
settings.register_profile("ci", max_examples=30, print_blob=True, database=None, deadline=None)
settings.register_profile("night", settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def examples(times: float, **options: Any) -> settings:
    """Return the profile's settings with `times` as many examples."""
    return settings(max_examples=max(round(times * settings().max_examples), 1), **options)


def seeds(count: int) -> range:
    """Return `count` seeds for a test that generates its own input, or a third of them in `dev`."""
    return range(-(-count // 3) if settings().derandomize else count)


def describe(seed: str) -> str:
    """Return the pytest options that reproduce the same examples."""
    options = f"--hypothesis-profile={settings.get_current_profile_name()}"
    return f"examples: {options}" + ("" if settings().derandomize else f" --hypothesis-seed={seed}")
