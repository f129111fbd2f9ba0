"""Cases about the packets that a worker sends about a job before its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.case import MUST, SHOULD, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.wire.packets import WorkStatus

if TYPE_CHECKING:
    from gearman_proto.wire.packets import Event


@worker_case("order/updates/1", MUST)
def updates(it: WorkerKit) -> None:
    """WORK_DATA, WORK_WARNING and WORK_STATUS refer to the current job and precede its end.

    Source: WORK_DATA: "to update the client with data from a running job"
    """
    # The judged worker should send updates for jobs with this payload, if possible.
    worker = it.ready()
    worker.serve(b"updates")
    worker.serve(b"updates")
    worker.asked()


@worker_case("order/status/1", SHOULD, 'WORK_STATUS: "percent complete numerator", "denominator"')
def status(it: WorkerKit) -> None:
    """WORK_STATUS contains two decimal numbers of at most eleven digits."""
    # gearmand closes the connection if the denominator is longer.
    came: list[Event] = []
    worker = it.ready()
    worker.end_of(worker.give(b"updates"), came)
    for event in came:
        if isinstance(event, WorkStatus):
            for number in (event.numerator, event.denominator):
                is_valid = number.isdigit() and len(number) <= 11
                demand(is_valid, "two decimal numbers of at most 11 digits", event)
