"""``gearmanctl run``: a supervisor of worker processes.

`engine` decides everything, and does no I/O. `supervisor` starts processes and handles signals for
it. `child` is the program of each process.
"""
