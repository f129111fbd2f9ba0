"""How many examples Hypothesis tries: few and always the same, or many and each time others.

`dev` is what pytest takes by itself. The environment's HYPOTHESIS_PROFILE or pytest's option
`--hypothesis-profile` choose another.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

settings.register_profile("dev", max_examples=15, derandomize=True, database=None, deadline=None)
settings.register_profile("ci", max_examples=60, print_blob=True, database=None, deadline=None)
settings.register_profile("night", settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def examples(times: float, **options: Any) -> settings:
    """The profile's settings, with so many times its examples."""
    return settings(max_examples=max(round(times * settings().max_examples), 1), **options)


def seeds(count: int) -> range:
    """Seeds for a test that draws by itself: `count`, and a third of them in `dev`."""
    return range(-(-count // 3) if settings().derandomize else count)


def describe(seed: str) -> str:
    """What to give to pytest for the same examples again."""
    options = f"--hypothesis-profile={settings.get_current_profile_name()}"
    return f"examples: {options}" + ("" if settings().derandomize else f" --hypothesis-seed={seed}")
