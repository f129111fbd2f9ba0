"""Cases for servers, in execution order."""

# ruff: noqa: F401, I001 - each module adds its cases to the suite, in this order

from . import (
    wire,
    submitting,
    coalescing,
    queuefull,
    status,
    leaving,
    abilities,
    grabbing,
    priorities,
    sleeping,
    working,
    exceptions,
    requeueing,
    lasting,
    sizes,
    text,
    mixups,
    states,
    regular,
)
