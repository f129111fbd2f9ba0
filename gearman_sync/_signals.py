"""The functions of `gearman_proto.signals` for this process."""

from __future__ import annotations

import functools
import os
from typing import Final

from gearman_proto import signals

handled: Final = functools.partial(signals.handled, getpid=os.getpid)
draining: Final = functools.partial(signals.draining, getpid=os.getpid)
end_process: Final = functools.partial(signals.end_process, os._exit)
