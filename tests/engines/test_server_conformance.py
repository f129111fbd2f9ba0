"""ServerEngine passes the conformance suite, in memory and virtual time."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.testing.conformance import server  # noqa: F401 - adds the cases
from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Judge, Selection
from gearman_proto.testing.conformance.server_kit import SERVER, ServerKit
from gearman_proto.testing.memory import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.testing.conformance.case import Case

HAS: Final = frozenset(CAPABILITIES)
#: Seconds of virtual time.
PATIENCE: Final = 20.0
#: The behaviour of our server in each case that knows several.
TOLD: Final = {
    "wire/magic/2": "refused with ERROR",
    "wire/unexpected/2": "refused with ERROR",
    "wire/end/1": "answered",
    "submit/handle/4": "all of one length",
    "submit/function/3": "it is a function",
    "submit/unique/2": "kept",
    "submit/unique/3": "refused with ERROR",
    "submit/epoch/3": "refused with ERROR",
    "submit/sched/1": "refused with ERROR",
    "submit/coalesce/10": "twice",
    "submit/coalesce/11": "stays as it was",
    "status/unique/4": "the unique",
    "status/numbers/1": "0",
    "status/numbers/2": "0",
    "leave/queued/1": "forgotten at once",
    "leave/queued/2": "run",
    "leave/queued/3": "run",
    "ability/function/4": "as any other name",
    "ability/cant/6": "it stays",
    "grab/all/2": "JOB_ASSIGN_UNIQ",
    "grab/priority/4": "the highest priority first",
    "grab/priority/5": "the oldest first",
    "sleep/waiting/2": "a NOOP for each",
    "sleep/several/1": "all",
    "sleep/register/2": "it is woken",
    "sleep/both/1": "the NOOP",
    "sleep/due/1": "it is woken",
    "work/status/2": "the same bytes",
    "work/fail/3": "the bare handle",
    "work/foreign/2": "ERROR",
    "work/ended/3": "ERROR",
    "exception/end/1": "it has ended",
    "exception/end/2": "nothing",
    "exception/end/3": "WORK_EXCEPTION",
    "option/case/1": "granted",
    "requeue/order/1": "the first one first",
    "requeue/order/2": "after it",
    "requeue/timeout/1": "it is given to another worker",
    "life/restart/2": "it is unknown",
    "text/version/2": "after OK",
    "text/cancel/3": "the client is told, and gets no result",
    "text/words/1": "any case",
    "text/words/2": "the connection is closed",
}
# Seeds of the engines.
_SEEDS: Final = itertools.count(1)


def make_engine(wall_clock: Callable[[], float]) -> ServerEngine:
    # After a restart, handles begin with another number.
    return ServerEngine(rng=random.Random(next(_SEEDS)), wall_clock=wall_clock)


def make_kit(case: Case) -> Any:
    return ServerKit(World(make_engine), f"conformance-{case.id}", PATIENCE, HAS)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in SERVER.cases.values()])
def test_server_engine_in_memory_passes_the_case(case: Case) -> None:
    outcome = Judge(make_kit, HAS, selection=Selection(slow=True)).judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED
    assert outcome.got == TOLD.get(case.id, "")
