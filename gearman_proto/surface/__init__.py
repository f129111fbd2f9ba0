"""The surface that all adapters have, once: names, parameters, defaults, checks, documentation.

The abstract classes here are python-gearman's client, worker and admin client, and the job server.
Methods that wait for nothing are made here. The others an adapter adds, blocking or async, with the
same parameters; their documentation is inherited. What holds for one kind of adapter only is marked
"(blocking)" or "(awaited)".

This knows no engines. An adapter's class has a `_driver` with an `engine`; the methods here that
begin with ``_begin`` make what such a driver runs: a function of the engine, the time and a `wake`.
"""

from __future__ import annotations

from .admin import AdminClient
from .client import Client
from .server import JobServer
from .worker import Worker

__all__ = ["AdminClient", "Client", "JobServer", "Worker"]
