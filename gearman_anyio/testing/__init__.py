"""Tools to test applications on trio and asyncio."""

from gearman_proto.testing.runs import JobRun

from .blocking import BlockingWorkerUnderTest
from .clock import VirtualTimeLoop, virtual_clock
from .jobs import JobDouble
from .running import WorkerUnderTest

__all__ = [
    "BlockingWorkerUnderTest",
    "JobDouble",
    "JobRun",
    "VirtualTimeLoop",
    "WorkerUnderTest",
    "virtual_clock",
]
