"""The engines pass the conformance suites, in memory and virtual time."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.testing.conformance import client, server, worker  # noqa: F401 - adds the cases
from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Judge, Selection
from gearman_proto.testing.conformance.program_kit import CLIENT, WORKER, ClientKit, WorkerKit
from gearman_proto.testing.conformance.server_kit import SERVER, ServerKit
from gearman_proto.testing.memory import World
from tests.conformance.memory import ClientWorld, WorkerWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.testing.conformance.case import Case

# Seconds of virtual time.
_PATIENCE: Final = 20.0
# Seeds of the servers' engines.
_SEEDS: Final = itertools.count(1)

#: The behaviour of our server in each case that knows several.
OF_SERVER: Final = {
    "wire/magic/2": "refused with ERROR",
    "wire/nul/2": "the connection is closed",
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
    "leave/queued/8": "run",
    "ability/function/4": "as any other name",
    "ability/cant/6": "it stays",
    "grab/all/2": "JOB_ASSIGN_UNIQ",
    "grab/priority/4": "the highest priority first",
    "grab/priority/5": "the oldest first",
    "sleep/waiting/2": "a NOOP for each",
    "sleep/several/1": "all",
    "sleep/register/2": "it is woken",
    "sleep/both/1": "the NOOP",
    "sleep/again/1": "it is woken",
    "sleep/due/1": "it is woken",
    "work/status/2": "the same bytes",
    "work/fail/3": "the bare handle",
    "work/foreign/2": "ERROR",
    "work/ended/3": "ERROR",
    "exception/end/1": "it has ended",
    "exception/end/2": "nothing",
    "exception/end/3": "WORK_EXCEPTION",
    "exception/end/4": "nothing",
    "option/case/1": "granted",
    "option/nul/1": "granted",
    "requeue/order/1": "the first one first",
    "requeue/order/2": "after it",
    "requeue/timeout/1": "it is given to another worker",
    "life/restart/2": "it is unknown",
    "text/version/2": "after OK",
    "text/cancel/3": "the client is told, and gets no result",
    "text/cancel/5": "it is refused",
    "text/words/1": "any case",
    "text/words/2": "the connection is closed",
    "text/words/4": "carried out",
}
#: The behaviour of our client in each case that knows several.
OF_CLIENT: Final = {
    "submit/unique/2": "of its own",
    "result/short/1": "gives up",
    "order/same/3": "both end",
    "life/stray/1": "gives up",
    "life/stray/2": "gives up",
    "life/stray/3": "gives up",
    "life/stray/4": "gives up",
    "life/silent/1": "waits",
    "life/silent/2": "waits",
    "echo/ping/1": "does not ask",
    "option/silence/1": "goes on",
    "option/error/1": "goes on",
}
#: The behaviour of our worker in each case that knows several.
OF_WORKER: Final = {
    "ability/later/1": "before it asks",
    "ability/limit/2": "CAN_DO",
    "ability/id/1": "it has none",
    "grab/first/1": "asks first",
    "grab/kind/1": "GRAB_JOB_UNIQ",
    "grab/unanswered/1": "waits",
    "error/option/1": "asks for none",
    "wire/stray/1": "connects again",
    "wire/echo/1": "sends none",
    "life/down/1": "ends",
}


def make_server(wall_clock: Callable[[], float]) -> ServerEngine:
    # After a restart, handles begin with another number.
    return ServerEngine(rng=random.Random(next(_SEEDS)), wall_clock=wall_clock)


def judged(case: Case, make: Callable[[str], Any], has: frozenset[str]) -> str:
    """Return the behaviour in a case, which must be good."""
    judge = Judge(lambda case: make(f"conformance-{case.id}"), has, selection=Selection(slow=True))
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED
    return outcome.got


def each(suite: Any) -> pytest.MarkDecorator:
    cases = [pytest.param(case, id=case.id) for case in suite.cases.values()]
    return pytest.mark.parametrize("case", cases)


@each(SERVER)
def test_server_engine_in_memory_passes_the_case(case: Case) -> None:
    has = frozenset(CAPABILITIES)
    got = judged(case, lambda name: ServerKit(World(make_server), name, _PATIENCE, has), has)
    assert got == OF_SERVER.get(case.id, "")


@each(CLIENT)
def test_client_engine_in_memory_passes_the_case(case: Case) -> None:
    has = frozenset({"several"})
    got = judged(case, lambda name: ClientKit(ClientWorld(), name, _PATIENCE), has)
    assert got == OF_CLIENT.get(case.id, got)


@each(WORKER)
def test_worker_engine_in_memory_passes_the_case(case: Case) -> None:
    got = judged(case, lambda name: WorkerKit(WorkerWorld(), name, _PATIENCE), frozenset())
    assert got == OF_WORKER.get(case.id, "")
