"""Measures what this library costs, beside others that do the same: ``python -m bench``.

Each measure is a module of its own, and a row in `bench.__main__`; it returns tables (`tables`).
What is measured runs in processes of its own (`processes`, `child`), and those that are compared
take turns (`rounds`), so that what disturbs the machine disturbs them all. ``python -m
bench.instructions`` counts instead of timing: what needs no I/O (`stages`), for CI.
"""
