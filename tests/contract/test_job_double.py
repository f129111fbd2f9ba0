"""Hooks that a test calls directly, with a JobDouble."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .kit import settled

if TYPE_CHECKING:
    from .kit import Kit


async def test_hooks_called_with_a_job_double_record_updates(kit: Kit) -> None:
    double: Any = importlib.import_module(f"{kit.gearman.__name__}.testing").JobDouble
    job = double("task", b"")
    assert await settled(job.worker.on_job_complete(job, b"out")) is True
    assert [update.result for update in job.updates] == [b"out"]
    failed = double("task", b"")
    error = ValueError("no")
    returned = await settled(failed.worker.on_job_exception(failed, (ValueError, error, None)))
    assert returned is False
    assert failed.ended
