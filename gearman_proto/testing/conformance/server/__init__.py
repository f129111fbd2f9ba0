"""The cases for servers, in the order in which they are run."""

# ruff: noqa: F401, I001 - each adds its cases to the suite, in that order

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
