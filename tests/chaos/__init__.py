"""Chaos: clients and workers of all surfaces, through a proxy with faults, with servers that die.

README.md beside this file says how it is run, and what it shows. `proxy` and `faults` depend on
nothing else in here.
"""
