"""The cases for clients, in the order in which they are run."""

# ruff: noqa: F401, I001 - each adds its cases to the suite, in that order

from . import (
    submits,
    results,
    pieces,
    failures,
    several,
    lost,
    asks,
)
