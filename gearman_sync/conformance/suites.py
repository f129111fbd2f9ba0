"""All cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .client import asks, failures, lost, pieces, results, several, submits
from .programkit import CLIENT, WORKER
from .server import (
    abilities,
    coalescing,
    exceptions,
    grabbing,
    lasting,
    leaving,
    priorities,
    queuefull,
    requeueing,
    sleeping,
    status,
    submitting,
    text,
    wire,
    working,
)
from .serverkit import SERVER
from .worker import ends

if TYPE_CHECKING:
    from .case import Suite

#: The suites, by their sides.
SUITES: Final[dict[str, Suite]] = {suite.side: suite for suite in (SERVER, WORKER, CLIENT)}

# Each of these modules adds its cases to one of the suites.
_MODULES: Final = (
    wire,
    submitting,
    coalescing,
    queuefull,
    status,
    leaving,
    text,
    abilities,
    grabbing,
    priorities,
    sleeping,
    working,
    exceptions,
    requeueing,
    lasting,
    ends,
    submits,
    results,
    pieces,
    failures,
    several,
    lost,
    asks,
)
