"""The constants (`gearman.constants`)."""

from gearman_proto.constants import *  # noqa: F403
from gearman_proto.constants import __all__ as __all__  # noqa: PLC0414
