"""What options take for a number of seconds."""

from __future__ import annotations

import math

import typer


def check_seconds(value: float | None) -> float | None:
    """Return the value of an option. The option's bounds do not see what is no number at all.

    Raises:
        typer.BadParameter: It is "nan".
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number of seconds.")
    return value
