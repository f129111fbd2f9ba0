"""Jobs and requests, where programs for python-gearman import them from (`gearman.job`)."""

from gearman_proto.jobs import *  # noqa: F403
from gearman_proto.jobs import __all__ as __all__  # noqa: PLC0414
