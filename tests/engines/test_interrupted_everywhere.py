"""Games in which a signal handler's exception interrupts an engine, which is then abandoned.

CPython checks for signals in fewer places, but these differ between versions. Each game is
interrupted once, before a line that no earlier game of the test was interrupted at.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

import gearman_proto
from fuzz.program import Program
from gearman_proto.constants import JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import prepare
from gearman_proto.wire.packets import JobCreated

from . import harness

if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType
    from typing import Self

    from gearman_proto.jobs.request import GearmanJobRequest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.unmeasured,
    # An interrupted generator might end in a place where Python ignores exceptions.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_PACKAGE = os.path.dirname(gearman_proto.__file__)
_INTERRUPTED = tuple(os.path.join(_PACKAGE, name, "") for name in ("engines", "jobs", "wire"))


@pytest.fixture(autouse=True)
def _no_other_states() -> None:
    """Allow `abandon` to end a request again that was interrupted while it ended."""


class Signalled(BaseException):
    """The exception of a signal handler."""


class Interrupting:
    """Context manager that raises Signalled before a line that is not in `seen`, and adds it.

    Attributes:
        where: The interrupted line, or None if all executed lines were in `seen`.
    """

    def __init__(self, seen: set[tuple[CodeType, int]]) -> None:
        self.where: str | None = None
        self._seen = seen

    def __enter__(self) -> Self:
        self._before = sys.gettrace()  # The trace function of the coverage measurement.
        sys.settrace(self._enter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._look if frame.f_code.co_filename.startswith(_INTERRUPTED) else None

    def _look(self, frame: FrameType, event: str, argument: Any) -> Any:
        place = (frame.f_code, frame.f_lineno)
        if event == "line" and self.where is None and place not in self._seen:
            self._seen.add(place)
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise Signalled
        return self._look


def check_abandoned(game: Any) -> None:
    """Abandon the engine of an interrupted game. Nothing waits for it afterwards."""
    engine = game.engine
    waits = engine.abandon(ConnectionError("interrupted"))
    assert all(wait.done for wait in waits)
    assert engine.next_action() is None
    assert engine.next_deadline() is None
    for peer in game.world.peers:
        assert engine.data_to_send(peer.link, game.now) == b""
    for request in dict.fromkeys(getattr(game, "requests", ())):
        check_usable(request)


def check_usable(request: GearmanJobRequest) -> None:
    """Check that another engine can wait for `request`, and submit it again if it was lost."""
    world = harness.World(exceptions=False)
    assert world.wait_completed(request).done
    assert request.state != JOB_PENDING
    assert request.state != JOB_CREATED or request.background
    if request.state == JOB_UNKNOWN:
        # The game might have changed the request to an invalid one.
        with contextlib.suppress(TypeError, ValueError):
            prepare([request], NoopEncoder)
            world.submit(request)
            server = world.serve()
            assert len(server.take()) == 1
            server.send(JobCreated(b"H:7"))
            assert request.handle == "H:7"


@pytest.mark.parametrize(
    "target", ["client_engine", "worker_engine", "server_engine", "admin_engine"]
)
def test_interrupted_engine_can_be_abandoned(target: str) -> None:
    make = importlib.import_module(f"fuzz.{target}")._Game
    rng = random.Random(target)
    seen: set[tuple[CodeType, int]] = set()
    in_vain = 0
    while in_vain < 5:
        data = rng.randbytes(400)
        game = make(Program(data))
        interrupting = Interrupting(seen)
        with contextlib.suppress(Signalled), interrupting:
            game.play()
        if interrupting.where is None:
            in_vain += 1
            continue
        in_vain = 0
        try:
            check_abandoned(game)
        except BaseException as error:
            error.add_note(f"interrupted at {interrupting.where}")
            raise
    assert len(seen) > 300
