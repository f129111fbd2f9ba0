"""Benchmarks of this library and of others that do the same: ``python -m bench``.

Each benchmark is a module and a row in `bench.__main__`, and returns tables (`tables`). The
measured code runs in separate processes (`processes`, `child`). Subjects that are compared take
turns (`rounds`), so a disturbance of the machine affects all of them. For CI, ``python -m
bench.instructions`` counts instructions of the code that does no I/O (`stages`).
"""
