"""Tools to test what speaks Gearman: properties of parsers, and a network that is simulated.

The strategies for Hypothesis, which comes with ``pip install gearman-sansio[testing]``, are in
`gearman_proto.testing.strategies`; nothing else needs it.
"""

from __future__ import annotations

from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE

from .packing import pack, pack_event
from .parsers import ConnectionParser, MakeParser, Outcome, Parser, parse
from .properties import (
    PropertyFailed,
    check_chunking,
    check_exceptions,
    check_meaning,
    check_round_trip,
    check_time,
    chunkings,
)

__all__ = [
    "MAGIC_REQUEST",
    "MAGIC_RESPONSE",
    "ConnectionParser",
    "MakeParser",
    "Outcome",
    "Parser",
    "PropertyFailed",
    "check_chunking",
    "check_exceptions",
    "check_meaning",
    "check_round_trip",
    "check_time",
    "chunkings",
    "pack",
    "pack_event",
    "parse",
]
