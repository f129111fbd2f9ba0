"""The exceptions (`gearman.errors`)."""

from gearman_proto.errors import *  # noqa: F403
from gearman_proto.errors import __all__ as __all__  # noqa: PLC0414
