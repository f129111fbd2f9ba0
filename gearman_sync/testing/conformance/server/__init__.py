"""The cases for servers, in the order in which they are run."""

# ruff: noqa: I001 - that order

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
    text,
)

__all__ = [
    "abilities",
    "coalescing",
    "exceptions",
    "grabbing",
    "lasting",
    "leaving",
    "priorities",
    "queuefull",
    "requeueing",
    "sleeping",
    "status",
    "submitting",
    "text",
    "wire",
    "working",
]
