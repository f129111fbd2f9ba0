"""Cases about SIGTERM, and about the loss of the server."""

from __future__ import annotations

from typing import Any

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.program_kit import (
    RECONNECT,
    WorkerKit,
    check_result,
    content,
    worker_case,
)
from gearman_proto.testing.conformance.session import ENDS

_LOST = "not in the document: gearmand 1.1 and 2.0 requeue the jobs of a lost connection"
_BACK = "not in the document: workers of libgearman, Perl and Python reconnect"
_SIGNAL = "not in the document: service managers stop workers with this signal"


@worker_case("life/term/1", SHOULD, _SIGNAL)
def idle(it: WorkerKit) -> None:
    """On SIGTERM, an idle worker disconnects and exits."""
    worker = it.ready()
    worker.serve()
    worker.refuse()
    it.program.signal()
    worker.rest_of()
    it.wait(it.timeout)


@worker_case("life/term/2", SHOULD, _SIGNAL, known={"drops the job": ()})
def working(it: WorkerKit) -> str | None:
    """On SIGTERM, a busy worker finishes its job, reports the end, and exits."""
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
    """If the server disconnects, a worker reconnects within ten seconds and runs jobs."""
    worker = it.ready()
    worker.serve()
    worker.close()
    it.again().serve()


@worker_case("life/back/2", SHOULD, _BACK)
def reset(it: WorkerKit) -> None:
    """If the connection is reset within a packet, a worker reconnects and runs jobs.

    A worker that exits fails, as in `life/back/1`: it can exit after this loss alone.
    """
    worker = it.ready()
    worker.grabs()
    worker.send_raw(b"\0RES\0\0\0\x0b\0\0\0\x40H:conformance")
    worker.reset()
    it.again().serve()


@worker_case("life/back/3", SHOULD, _BACK)
def twice(it: WorkerKit) -> None:
    """If the server restarts twice, a worker reconnects and runs jobs each time.

    A worker that exits fails, as in `life/back/1`: it can exit after the second restart alone.
    """
    worker = it.ready()
    for _ in range(2):
        it.stop_listening()
        worker.close()
        it.listen_again()
        worker = it.again()
        worker.serve()


@worker_case("life/back/4", SHOULD, _BACK)
def reset_asleep(it: WorkerKit) -> None:
    """If the connection is reset while a worker sleeps, it reconnects and runs jobs."""
    worker = it.returning()
    worker.serve()
    worker.refuse()
    worker.reset()
    it.again().serve()


@worker_case("life/back/5", SHOULD, _BACK)
def reset_working(it: WorkerKit) -> None:
    """If the connection is reset during a job, a worker reconnects and runs jobs."""
    worker = it.returning()
    worker.give(b"slow")
    worker.reset()
    it.again().serve()


@worker_case("life/back/6", SHOULD, _BACK)
def closed_working(it: WorkerKit) -> None:
    """If the server disconnects during a job, a worker reconnects and runs jobs."""
    worker = it.returning()
    worker.give(b"slow")
    worker.close()
    it.again().serve()


@worker_case("life/back/7", SHOULD, _BACK)
def closed_within(it: WorkerKit) -> None:
    """If the server disconnects within a job's payload, a worker reconnects and runs jobs."""
    worker = it.returning()
    job = worker.packed(worker.job_for(worker.grabs(), content(5000)))
    worker.send_raw(job[:-1])
    worker.close()
    it.again().serve()


@worker_case("life/back/8", SHOULD, _BACK, slow=True)
def often(it: WorkerKit) -> None:
    """If the connection is lost six times, a worker reconnects and runs jobs each time."""
    worker = it.returning()
    for number in range(6):
        worker.serve(content(20, number))
        (worker.reset if number % 2 else worker.close)()
        worker = it.again()
    worker.serve()


@worker_case("life/lost/1", MUST, _LOST)
def lost(it: WorkerKit) -> None:
    """A worker does not send the result of a lost connection's job on another connection."""
    # Some servers would accept it as the result of another job with the same handle.
    worker = it.ready()
    worker.give(b"slow", handle=b"H:conformance:lost")
    worker.close()
    again = it.again(may_end=True)
    again.serve()
    again.refuse()


@worker_case("life/lost/2", MUST, _LOST)
def lost_late(it: WorkerKit) -> None:
    """A worker sends no result of a lost connection's job, not even during the next job."""
    worker = it.ready()
    worker.give(b"slow", handle=b"H:conformance:lost")
    worker.reset()
    again = it.again(may_end=True)
    for payload in (b"slow", b"updates", b"data"):
        again.serve(payload)
    again.refuse()


@worker_case("life/lost/3", MUST, _LOST)
def lost_alike(it: WorkerKit) -> None:
    """If a job has the handle of a lost connection's job, it gets its own result, once.

    Source: not in the document: gearmand 1.1 and 2.0 count handles from 1 after each start
    """
    worker = it.ready()
    make = it.learned(worker)
    worker.give(b"slow first job", handle=b"H:conformance:1")
    worker.close()
    again = it.again(may_end=True)
    check_result(again.serve(b"slow other", handle=b"H:conformance:1"), make(b"slow other"))
    check_result(again.serve(b"data"), make(b"data"))
    again.refuse()


@worker_case(
    "life/down/1",
    INFO,
    _BACK,
    slow=True,
    known={"waits for it": (), "ends": (), "does not come": ()},
)
def down(it: WorkerKit) -> str:
    """Reaction to a server that is down when the worker starts."""
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
