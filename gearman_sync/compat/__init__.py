"""The `gearman` module, for programs written for python-gearman and its forks.

`gearman_sync.install_as_gearman` makes ``import gearman`` import this package. Its modules have the
names of python-gearman's modules. Its classes derive from those of gearman_sync, and add the
undocumented parts that such programs use:

* `connection_manager` has the base class of client, worker and admin client. Its `connection_list`
  is a list of GearmanConnections, which can be changed until the first connection is made.
* `connection` has GearmanConnection, whose class attributes are settings.
* `worker` has the methods that python-gearman's `work` consists of, for programs that copy it.
* `job` has jobs and requests that tests can create, with names that can be decoded.

The package `text` is the same with str as data. No other module of gearman_sync imports these
packages.
"""

from __future__ import annotations

from gearman_proto import DataEncoder as DataEncoder
from gearman_proto import __version__ as __version__
from gearman_proto.constants import *  # noqa: F403
from gearman_sync import constants as constants
from gearman_sync import errors as errors

from . import job as job
from . import protocol as protocol
from . import util as util
from .admin_client import GearmanAdminClient as GearmanAdminClient
from .client import GearmanClient as GearmanClient
from .worker import GearmanWorker as GearmanWorker
