"""What holds in every test of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.jobs.request import REQUEST_STATES, GearmanJobRequest

leave = GearmanJobRequest.leave


@pytest.fixture(autouse=True)
def _no_other_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request leaves an engine as the table of its states says."""

    def check_and_leave(request: GearmanJobRequest, state: str, *args: Any) -> Any:
        assert state in REQUEST_STATES[request.state], (request, state)
        return leave(request, state, *args)

    monkeypatch.setattr(GearmanJobRequest, "leave", check_and_leave)
