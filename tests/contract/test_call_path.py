"""The functions through which a call reaches the engine: few, and those that programs override."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

import gearman_anyio
import gearman_sync

if TYPE_CHECKING:
    import types

    from .kit import Kit

PACKAGES = tuple(str(module.__path__[0]) for module in (gearman_sync, gearman_anyio))


async def test_submit_job_reaches_the_engine_in_five_frames(kit: Kit) -> None:
    client = await kit.client("127.0.0.1:1")
    engine = client._gm_driver.engine
    submit = engine.submit
    names: list[str] = []

    def counting(*args: Any, **options: Any) -> Any:
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(PACKAGES):
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return submit(*args, **options)

    engine.submit = counting
    # No server listens on this port, but the call reaches the engine before it connects.
    with contextlib.suppress(gearman_sync.errors.ServerUnavailable):
        await client.submit_job("task", b"", poll_timeout=0)
    assert names[-1] == "submit_job", names
    assert len(names) <= 5, names


async def test_overridden_methods_of_a_subclass_are_called(kit: Kit) -> None:
    calls: list[str] = []

    class Client(kit.gearman.GearmanClient):  # type: ignore[name-defined,misc]
        def submit_multiple_jobs(self, *args: Any, **options: Any) -> Any:
            calls.append("jobs")
            return super().submit_multiple_jobs(*args, **options)

        def submit_multiple_requests(self, *args: Any, **options: Any) -> Any:
            calls.append("requests")
            return super().submit_multiple_requests(*args, **options)

    client = await kit._open(Client(["127.0.0.1:1"]))
    with pytest.raises(gearman_sync.errors.ServerUnavailable):
        await client.submit_job("task", b"")
    assert calls == ["jobs", "requests"]
