"""All cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import client, server, worker
from .programkit import CLIENT, WORKER
from .serverkit import SERVER

if TYPE_CHECKING:
    from .case import Suite

# Each of them adds its cases to one of the suites.
_CASES: Final = (server, worker, client)

#: The suites, by their sides.
SUITES: Final[dict[str, Suite]] = {suite.side: suite for suite in (SERVER, WORKER, CLIENT)}
