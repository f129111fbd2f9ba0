"""All cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .client import results
from .programkit import CLIENT, WORKER
from .server import coalescing, leaving, queuefull, status, submitting, text, wire
from .serverkit import SERVER
from .worker import abilities, ends, errors, grabs, life, packets, payloads, updates

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
    grabs,
    ends,
    payloads,
    updates,
    errors,
    packets,
    life,
    results,
)
