"""Fuzz targets: one module each, whose first line says what must hold; README.md says how to run.

A target's `check(data)` raises unless that holds for the bytes `data`. pytest, atheris and the
plain runner call it alike. A target may have a `generate(rng, seeds)` of its own, too, which the
plain runner takes its inputs from.
"""


class Failure(AssertionError):
    """What must hold does not."""
