"""Cases about the packets that end a job."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import MUST, SHOULD, demand
from gearman_proto.testing.conformance.program_kit import (
    WorkerKit,
    check_result,
    content,
    worker_case,
)
from gearman_proto.wire.packets import NoJob, WorkFail

_HANDLE = "Worker Requests: the job handle is that of JOB_ASSIGN"


@worker_case("end/once/1", MUST, "Worker responses: WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION")
def once(it: WorkerKit) -> None:
    """A worker ends each job with one packet, and then asks for the next job."""
    worker = it.ready()
    worker.end_of(worker.give(b"data"))
    worker.asked()


@worker_case("end/many/1", MUST, "Worker Requests: WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION")
def many(it: WorkerKit) -> None:
    """A worker ends each of 200 consecutive jobs."""
    worker = it.ready()
    for number in range(200):
        worker.serve(b"data of %d" % number)


@worker_case("end/many/2", MUST, "Worker Requests: no limit on their number", slow=True)
def very_many(it: WorkerKit) -> None:
    """A worker ends each of 2000 consecutive jobs with the job's own result."""
    it.run_all(it.ready(), [content(10 + number % 100, number) for number in range(2000)])


@worker_case("end/own/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def own(it: WorkerKit) -> None:
    """The result of a job is that of its own payload, not of an earlier job."""
    worker = it.ready()
    it.learned(worker)
    equal = [content(500, number) for number in range(10)]
    lengths = [content(size) for size in (9000, 1, 300, 0, 40000, 2, 0, 5)]
    it.run_all(worker, [*equal, *lengths, *reversed(equal)])


@worker_case("end/own/2", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def own_after_fail(it: WorkerKit) -> None:
    """A failed job, or one with updates, does not change the result of the next job."""
    worker = it.ready()
    make = it.learned(worker)
    for number, payload in enumerate((b"fail", b"updates", b"slow", b"")):
        worker.serve(payload)
        check_result(worker.serve(content(50, number)), make(content(50, number)))


@worker_case("end/after/2", MUST)
def long_after(it: WorkerKit) -> None:
    """A worker sends no packet about a job after its end, not even when it is woken again.

    Source: not in the document: gearmand 1.1 and 2.0 forget a job when it ends
    """
    worker = it.ready()
    for payload in (b"updates", b"fail", b"slow"):
        worker.serve(payload)
        for _ in range(3):
            worker.refuse()
            worker.wakes()
            worker.send(NoJob())
    worker.refuse()


@worker_case("end/after/1", MUST)
def after(it: WorkerKit) -> None:
    """A worker sends no packet about a job after its end.

    Source: not in the document: gearmand 1.1 and 2.0 forget a job when it ends
    """
    worker = it.ready()
    for payload in (b"data", b"fail", b"updates", b"slow", b"data"):
        worker.serve(payload)
    worker.asked()


@worker_case("end/handle/1", MUST, _HANDLE)
def odd(it: WorkerKit) -> None:
    """A worker returns a handle of any format unchanged."""
    worker = it.ready()
    for handle in (b"x", b"7", b"H:host.example:4294967295", b"H:::", b"h: a b%20c\t/\\'\""):
        worker.serve(handle=handle)


@worker_case("end/handle/2", MUST, 'Binary Packet: "not be longer than 64 bytes, including NULL"')
def longest(it: WorkerKit) -> None:
    """A worker returns a handle of the maximum length unchanged."""
    worker = it.ready()
    for last in (b"1", b"2"):
        worker.serve(handle=b"H:" + b"h" * 59 + b":" + last)


@worker_case("end/handle/3", MUST, _HANDLE)
def alike(it: WorkerKit) -> None:
    """A worker distinguishes similar handles, even if one is a prefix of another."""
    worker = it.ready()
    for handle in (b"H:a:1", b"H:a:11", b"H:a:111", b"H:a:11", b"H:A:1"):
        worker.serve(handle=handle)


@worker_case("end/handle/4", SHOULD, _HANDLE)
def binary(it: WorkerKit) -> None:
    """A handle can contain control characters and invalid UTF-8."""
    worker = it.ready()
    for handle in (b"H:\xff\xfe\x80\xc3:1", b"H:\x01\x7f\r\n:2"):
        worker.serve(handle=handle)


@worker_case("end/empty/1", MUST, 'WORK_COMPLETE: "NULL byte terminated job handle"')
def empty(it: WorkerKit) -> None:
    """In WORK_COMPLETE and WORK_EXCEPTION, a NUL follows the handle even if the data is empty."""
    # Without the NUL, the packet is malformed, and some peers wait forever.
    worker = it.ready()
    worker.serve(b"")
    worker.serve(b"fail")


@worker_case("end/fail/1", SHOULD, "WORK_FAIL: the only argument is the job handle")
def fail(it: WorkerKit) -> None:
    """WORK_FAIL contains only the handle, without a NUL or a reason after it."""
    # The judged worker should fail a job with this payload, if possible.
    worker = it.ready()
    for number in range(10):
        end = worker.serve(b"fail %d" % number)
        if isinstance(end, WorkFail):
            demand(end.reason is None, "the bare handle", end)


@worker_case("end/exception/1", SHOULD, known={"WORK_EXCEPTION, then WORK_FAIL": ()})
def exception(it: WorkerKit) -> str | None:
    """A failed job ends with one packet as well.

    Source: not in the document: WORK_EXCEPTION ends a job for gearmand 1.1 and 2.0, but not for
    Perl's server
    """
    worker = it.ready()
    worker.serve(b"fail")
    worker.serve()
    return "WORK_EXCEPTION, then WORK_FAIL" if worker.fails_twice else None
