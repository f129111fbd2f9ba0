"""The cases for clients, in the order in which they are run."""

# ruff: noqa: I001 - that order

from . import (
    submits,
    results,
    pieces,
    failures,
    several,
    lost,
    asks,
)

__all__ = [
    "asks",
    "failures",
    "lost",
    "pieces",
    "results",
    "several",
    "submits",
]
