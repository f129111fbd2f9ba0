"""All cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

# Each of these adds its cases to one of the suites.
from . import client, server, worker  # noqa: F401
from .program_kit import CLIENT, WORKER
from .server_kit import SERVER

if TYPE_CHECKING:
    from .case import Suite

#: The suites, by their sides.
SUITES: Final[dict[str, Suite]] = {suite.side: suite for suite in (SERVER, WORKER, CLIENT)}
