"""Replays of recorded exchanges with gearmand against our server. See `server_replay`."""

from __future__ import annotations

import pytest

from tests.recordings import VECTORS

from .server_replay import Replay


@pytest.mark.unmeasured
@pytest.mark.parametrize("chunk", [0, 3], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", VECTORS)
def test_replay(name: str, chunk: int) -> None:
    replay = Replay(name, 1000 if chunk and name == "50_large_payload" else chunk)
    replay.play()
    replay.check()
