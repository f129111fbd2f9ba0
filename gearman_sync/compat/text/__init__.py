"""The `gearman` module with data as str, for programs written for python3_gearman or py3gearman.

It is `gearman_sync.compat` with another `data_encoder` of clients and workers.
"""

from __future__ import annotations

from gearman_sync.compat import *  # noqa: F403
from gearman_sync.compat import __version__ as __version__

from . import client as client
from . import worker as worker
from .client import GearmanClient as GearmanClient
from .worker import GearmanWorker as GearmanWorker
