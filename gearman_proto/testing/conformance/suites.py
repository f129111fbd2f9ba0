"""All cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

# On import, each package adds its cases to a suite.
from . import client, server, worker  # noqa: F401
from .program_kit import CLIENT, WORKER
from .server_kit import SERVER

if TYPE_CHECKING:
    from .case import Suite

#: The suites, by side.
SUITES: Final[dict[str, Suite]] = {suite.side: suite for suite in (SERVER, WORKER, CLIENT)}
