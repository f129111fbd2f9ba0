"""The cases for workers, in the order in which they are run."""

# ruff: noqa: I001 - that order

from . import (
    abilities,
    grabs,
    ends,
    payloads,
    updates,
    errors,
    packets,
    life,
)

__all__ = [
    "abilities",
    "ends",
    "errors",
    "grabs",
    "life",
    "packets",
    "payloads",
    "updates",
]
