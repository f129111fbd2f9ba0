"""A call reaches the engine through few functions, so that a reader can follow it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

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
