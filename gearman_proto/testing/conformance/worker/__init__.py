"""Cases for workers, in execution order."""

# ruff: noqa: F401, I001 - each module adds its cases to the suite, in this order

from . import abilities, grabs, ends, payloads, updates, errors, packets, life
