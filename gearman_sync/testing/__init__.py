"""Tools to test what speaks Gearman over real sockets, and applications."""

from gearman_proto.testing.runs import JobRun

from .jobs import JobDouble
from .running import WorkerUnderTest

__all__ = ["JobDouble", "JobRun", "WorkerUnderTest"]
