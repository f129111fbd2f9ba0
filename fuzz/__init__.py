"""Fuzz targets, one module each. See README.md for how to run them.

The first line of a module states its invariant. `check(data)` raises if the invariant does not hold
for the bytes `data`. pytest, atheris and the plain runner all call it. A target can also define
`generate(rng, seeds)`, which produces the inputs for the plain runner.
"""


class Failure(AssertionError):
    """Raised when an invariant does not hold."""
