"""Cases for clients, in execution order."""

# ruff: noqa: F401, I001 - each module adds its cases to the suite, in this order

from . import submits, results, pieces, failures, several, lost, asks
