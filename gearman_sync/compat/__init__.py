"""The `gearman` module, for programs written for python-gearman and its forks.

`gearman_sync.install_as_gearman` makes ``import gearman`` import this package. Its modules have the
names of python-gearman's modules. Its classes derive from those of gearman_sync, and add the
undocumented parts that such programs use:

* `connection_manager` has the base class of client, worker and admin client. Its `connection_list`
  is a list of GearmanConnections, which can be changed until the first connection is made.
* `connection` has GearmanConnection, whose class attributes are settings.
* `worker` has the methods that python-gearman's `work` consists of, for programs that copy it.
* `job` has jobs and requests that tests can create, with names that can be decoded.

No other module of gearman_sync imports this package.
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
