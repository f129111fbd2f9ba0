"""How jobs end."""

from __future__ import annotations

from gearman_sync.conformance.case import MUST
from gearman_sync.conformance.programkit import WorkerKit, worker_case


@worker_case("end/once/1", MUST, "Worker responses: WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION")
def once(it: WorkerKit) -> None:
    """A job ends with one packet that ends it, and then the worker asks for the next one."""
    worker = it.ready()
    worker.end_of(worker.give(b"data"))
    worker.asked()
