"""Cases about the packets that end a job."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import MUST, SHOULD, demand
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.wire.packets import WorkFail

_HANDLE = "Worker Requests: the job handle is that of JOB_ASSIGN"


@worker_case("end/once/1", MUST, "Worker responses: WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION")
def once(it: WorkerKit) -> None:
    """A job ends with one packet that ends it, and then the worker asks for the next one."""
    worker = it.ready()
    worker.end_of(worker.give(b"data"))
    worker.asked()


@worker_case("end/many/1", MUST, "Worker Requests: WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION")
def many(it: WorkerKit) -> None:
    """Each of 200 jobs ends that are given one after the other."""
    worker = it.ready()
    for number in range(200):
        worker.serve(b"data of %d" % number)


@worker_case("end/after/1", MUST)
def after(it: WorkerKit) -> None:
    """A worker says nothing about a job any more when it has ended, while it does the next ones.

    Source: not in the document: gearmand 1.1 and 2.0 forget a job that ends
    """
    worker = it.ready()
    for payload in (b"data", b"fail", b"updates", b"slow", b"data"):
        worker.serve(payload)
    worker.asked()


@worker_case("end/handle/1", MUST, _HANDLE)
def odd(it: WorkerKit) -> None:
    """The end of a job has its handle byte for byte, whatever that looks like."""
    worker = it.ready()
    for handle in (b"x", b"7", b"H:host.example:4294967295", b"H:::", b"h: a b%20c\t/\\'\""):
        worker.serve(handle=handle)


@worker_case("end/handle/2", MUST, 'Binary Packet: "not be longer than 64 bytes, including NULL"')
def longest(it: WorkerKit) -> None:
    """The end of a job has its handle to the last byte, where that is as long as it may be."""
    worker = it.ready()
    for last in (b"1", b"2"):
        worker.serve(handle=b"H:" + b"h" * 59 + b":" + last)


@worker_case("end/handle/3", MUST, _HANDLE)
def alike(it: WorkerKit) -> None:
    """Handles that begin alike, of which one is the beginning of the next, are told apart."""
    worker = it.ready()
    for handle in (b"H:a:1", b"H:a:11", b"H:a:111", b"H:a:11", b"H:A:1"):
        worker.serve(handle=handle)


@worker_case("end/handle/4", SHOULD, _HANDLE)
def binary(it: WorkerKit) -> None:
    """A handle may have bytes that are no text."""
    worker = it.ready()
    for handle in (b"H:\xff\xfe\x80\xc3:1", b"H:\x01\x7f\r\n:2"):
        worker.serve(handle=handle)


@worker_case("end/empty/1", MUST, 'WORK_COMPLETE: "NULL byte terminated job handle"')
def empty(it: WorkerKit) -> None:
    """The handle in a WORK_COMPLETE or WORK_EXCEPTION is followed by a NUL, even without a result.

    Without that NUL the packet is none, and some peers wait for ever.
    """
    worker = it.ready()
    worker.serve(b"")
    worker.serve(b"fail")


@worker_case("end/fail/1", SHOULD, "WORK_FAIL: the only argument is the job handle")
def fail(it: WorkerKit) -> None:
    """A WORK_FAIL has the bare handle, without a NUL or anything else behind it.

    (A job whose payload is `fail` is to fail, if that can be arranged.)
    """
    end = it.ready().serve(b"fail")
    if isinstance(end, WorkFail):
        demand(end.reason is None, "the bare handle", end)


@worker_case("end/exception/1", SHOULD, known={"WORK_EXCEPTION, then WORK_FAIL": ()})
def exception(it: WorkerKit) -> str | None:
    """A job that fails ends with one packet, too.

    Source: not in the document: WORK_EXCEPTION ends a job on gearmand 1.1, 2.0, and not on Perl's
    server
    """
    worker = it.ready()
    worker.serve(b"fail")
    worker.serve()
    return "WORK_EXCEPTION, then WORK_FAIL" if worker.fails_twice else None
