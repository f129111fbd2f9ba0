"""Cases about priorities and the order of queued jobs."""

from __future__ import annotations

from typing import Final

from gearman_proto.testing.conformance.case import INFO, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    WorkComplete,
)

_LEVELS: Final = 'SUBMIT_JOB: "three levels: normal, high, and low"'
_ORDER: Final = "not in the document: gearmand 1.1 and 2.0 do this"
_GLOBAL: Final = 'SUBMIT_JOB in 2.0: "applied globally across registered functions"'


def _run(worker: Line, count: int) -> list[bytes]:
    """Grab `count` jobs, complete them, and return their data."""
    jobs = [worker.grab() for _ in range(count)]
    for job in jobs:
        worker.complete(job.handle)
    return [job.data for job in jobs]


@case("grab/priority/1", SHOULD, _LEVELS)
def levels(it: ServerKit) -> None:
    """Jobs of high priority are assigned before normal jobs, and normal jobs before low ones."""
    client, worker = it.client(), it.worker()
    for data, kind in ((b"l", SubmitJobLowBg), (b"n", SubmitJobBg), (b"h", SubmitJobHighBg)):
        client.submit(data, kind=kind)
    got = _run(worker, 3)
    demand(got == [b"h", b"n", b"l"], "the high, then the normal, then the low job", got)


@case("grab/priority/2", SHOULD, _ORDER)
def oldest_first(it: ServerKit) -> None:
    """Jobs of equal priority are assigned in the order of submission."""
    client, worker = it.client(), it.worker()
    for number in (b"1", b"2"):
        for data, kind in ((b"l", SubmitJobLowBg), (b"n", SubmitJobBg), (b"h", SubmitJobHighBg)):
            client.submit(data + number, kind=kind)
    got = _run(worker, 6)
    demand(got == [b"h1", b"h2", b"n1", b"n2", b"l1", b"l2"], "h1, h2, n1, n2, l1, l2", got)


@case("grab/priority/3", SHOULD, _LEVELS)
def foreground_and_background(it: ServerKit) -> None:
    """Foreground and background jobs of equal priority are assigned in the order of submission."""
    client, worker = it.client(), it.worker()
    kinds = (SubmitJobLow, SubmitJobLowBg, SubmitJobBg, SubmitJob, SubmitJobHighBg, SubmitJobHigh)
    handles = [client.submit(b"%d" % number, kind=kind) for number, kind in enumerate(kinds)]
    got = _run(worker, 6)
    demand(got == [b"4", b"5", b"2", b"3", b"0", b"1"], "4, 5, 2, 3, 0, 1", got)
    for number in (5, 3, 0):
        client.expect(WorkComplete, handle=handles[number])


@case(
    "grab/priority/4",
    INFO,
    _GLOBAL,
    known={
        "the highest priority first": ("gearmand-2.0",),
        "the function registered last first": ("gearmand-1.1",),
        "another order": (),
    },
)
def across_functions(it: ServerKit) -> str:
    """Order of jobs with different priorities and different functions."""
    client, other = it.client(), it.another("other")
    worker = it.worker(it.function, other)
    client.submit(b"first", kind=SubmitJobBg, function=other)
    client.submit(b"second", kind=SubmitJobBg, function=other)
    client.submit(b"high", kind=SubmitJobHigh)
    orders = {
        b"high first second": "the highest priority first",
        b"first second high": "the function registered last first",
    }
    return orders.get(b" ".join(_run(worker, 3)), "another order")


@case(
    "grab/priority/5",
    INFO,
    known={
        "the oldest first": (),
        "the functions take turns": ("gearmand-2.0",),
        "the function registered last first": ("gearmand-1.1",),
        "another order": (),
    },
)
def turns(it: ServerKit) -> str:
    """Order of jobs with equal priority and different functions.

    Source: not in the document: gearmand 1.1 and 2.0 differ
    """
    client, other = it.client(), it.another("other")
    worker = it.worker(it.function, other)
    for data, function in ((b"a1", it.function), (b"a2", it.function), (b"b1", other)):
        client.submit(data, kind=SubmitJobBg, function=function)
    client.submit(b"b2", kind=SubmitJobBg, function=other)
    orders = {
        b"a1 a2 b1 b2": "the oldest first",
        b"b1 a1 b2 a2": "the functions take turns",
        b"b1 b2 a1 a2": "the function registered last first",
    }
    return orders.get(b" ".join(_run(worker, 4)), "another order")
