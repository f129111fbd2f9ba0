"""Checks that apply to every test of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs import tracking

if TYPE_CHECKING:
    from gearman_proto.constants import State
    from gearman_proto.jobs.request import GearmanJobRequest

finish = tracking.finish


@pytest.fixture(autouse=True)
def _no_other_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that each request ends in a state that REQUEST_STATES allows."""

    def check_and_finish(request: GearmanJobRequest, state: State, *args: Any) -> Any:
        assert state in tracking.REQUEST_STATES[request.state], (request, state)
        return finish(request, state, *args)

    monkeypatch.setattr(tracking, "finish", check_and_finish)
