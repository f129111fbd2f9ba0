"""What `gearman` was, for programs that were written for python-gearman and its forks.

`gearman_sync.install_as_gearman` lets ``import gearman`` mean this package. Its modules have the
names of python-gearman's, and its classes are those of gearman_sync, with what such programs use
beyond the documentation:

* `connection_manager` has the base of client, worker and admin client. There, `connection_list` is
  a list of GearmanConnections that may be changed until the first connection is made.
* `connection` has GearmanConnection, whose class attributes are settings.
* `worker` has the functions that copies of python-gearman's `work` are made of.
* `job` has jobs and requests that tests make by hand, with names that can be decoded.

Nothing here is imported by the other modules of gearman_sync.
"""

from __future__ import annotations

from gearman_proto import DataEncoder, __version__
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from gearman_sync import constants, errors

from . import job, protocol, util
from .admin_client import GearmanAdminClient
from .client import GearmanClient
from .worker import GearmanWorker

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "DataEncoder",
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanWorker",
    "__version__",
    "constants",
    "errors",
    "job",
    "protocol",
    "util",
]
