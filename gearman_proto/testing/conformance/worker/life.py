"""Cases about SIGTERM, and about the loss of the server."""

from __future__ import annotations

from typing import Any

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.program_kit import RECONNECT, WorkerKit, worker_case
from gearman_proto.testing.conformance.session import ENDS

_LOST = "not in the document: gearmand 1.1 and 2.0 give the jobs of a lost connection to others"
_BACK = "not in the document: workers of gearmand's library, Perl and Python connect again"
_SIGNAL = "not in the document: what a service manager sends to a worker that is to end"


@worker_case("life/term/1", SHOULD, _SIGNAL)
def idle(it: WorkerKit) -> None:
    """A worker that has nothing to do ends when it gets SIGTERM, and its connection with it."""
    worker = it.ready()
    worker.serve()
    worker.refuse()
    it.program.signal()
    worker.rest_of()
    it.wait(it.timeout)


@worker_case("life/term/2", SHOULD, _SIGNAL, known={"drops the job": ()})
def working(it: WorkerKit) -> str | None:
    """A worker that gets SIGTERM while it does a job does that to its end, says so, and ends."""
    worker = it.ready()
    handle = worker.give(b"slow")
    it.program.signal()
    ends: list[Any] = []
    worker.rest_of(ends.append)
    it.wait(it.timeout)
    ends = [event for event in ends if isinstance(event, ENDS)]
    demand(all(e.handle == handle for e in ends) and len(ends) < 2, "one end of the job", ends)
    return None if ends else "drops the job"


@worker_case("life/back/1", SHOULD, _BACK)
def closed(it: WorkerKit) -> None:
    """A worker whose server closes the connection is back within ten seconds, and does jobs."""
    worker = it.ready()
    worker.serve()
    worker.close()
    it.again(may_end=False).serve()


@worker_case("life/back/2", SHOULD, _BACK)
def reset(it: WorkerKit) -> None:
    """The same if the connection is reset in the middle of a packet."""
    worker = it.ready()
    worker.grabs()
    worker.send_raw(b"\0RES\0\0\0\x0b\0\0\0\x40H:conformance")
    worker.reset()
    it.again().serve()


@worker_case("life/back/3", SHOULD, _BACK)
def twice(it: WorkerKit) -> None:
    """The same if the server is started again two times."""
    worker = it.ready()
    for _ in range(2):
        it.stop_listening()
        worker.close()
        it.listen_again()
        worker = it.again()
        worker.serve()


@worker_case("life/lost/1", MUST, _LOST)
def lost(it: WorkerKit) -> None:
    """The result of a job whose connection was lost is not sent over another connection.

    Some servers would take it for the result of another job of the same handle.
    """
    worker = it.ready()
    worker.give(b"slow", handle=b"H:conformance:lost")
    worker.close()
    again = it.again()
    again.serve()
    again.refuse()


@worker_case(
    "life/down/1",
    INFO,
    _BACK,
    slow=True,
    known={"waits for it": (), "ends": (), "does not come": ()},
)
def down(it: WorkerKit) -> str:
    """Does a worker that is started while its server is down wait for it, or end?"""
    it.stop_listening()
    it.start()
    try:
        it.wait(2.0)
    except Failed:
        it.listen_again()
        try:
            it.next_ready(RECONNECT)
        except Failed:
            return "does not come"
        return "waits for it"
    it.listen_again()
    return "ends"
