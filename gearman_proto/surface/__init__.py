"""The public interface that all adapters share: names, parameters, defaults, checks and docs.

The abstract classes in this package are python-gearman's client, worker and admin client, and the
job server. They implement all methods that don't wait. Each adapter implements the other methods,
blocking or async, with the same parameters, and inherits their documentation. The marks
"(blocking)" and "(awaited)" show that a sentence applies to one kind of adapter only.

The package creates no engines. Each adapter's class has a `_gm_driver`, which runs its `engine`.
"""

from __future__ import annotations

from .admin import AdminClient
from .client import Client
from .server import JobServer
from .worker import Worker

__all__ = ["AdminClient", "Client", "JobServer", "Worker"]
