"""Cases about the packets that workers send about their jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import EVERY, GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import (
    Event,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_FORWARDS: Final = (
    'Client Responses: "the server forwards these packets from the worker to clients"'
)
_DATA: Final = 'WORK_DATA: "Opaque data that is returned to the client"'
_WARNING: Final = 'WORK_WARNING: "acts just like a WORK_DATA response"'
_STATUS: Final = 'WORK_STATUS: "update the server (and any listening clients)"'
_COMPLETE: Final = 'WORK_COMPLETE: "Opaque data that is returned to the client as a response"'
_FAIL: Final = 'WORK_FAIL: "notify the server (and any listening clients) that the job failed"'
_BACKGROUND: Final = 'SUBMIT_JOB_BG: "the client is not updated with status or notified"'
_HOLDER: Final = "not in the document: gearmand 1.1, gearmand 2.0 and Perl's server do this"
_REFUSES: Final = "not in the document: gearmand 1.1, gearmand 2.0 and Perl's server send ERROR"
_REACTIONS: Final = {"ERROR": EVERY, "nothing": ()}
_PIECES: Final = (b"", b"a\0b\0", bytes(range(256)))


def _all_about(handle: bytes, it: ServerKit) -> list[Event]:
    """Return one packet of each type that workers send about a job."""
    makers: list[Callable[[bytes, bytes], Event]] = [WorkException, WorkComplete]
    if "data" in it.has:
        makers = [WorkData, WorkWarning, *makers]
    updates = [make(handle, b"foreign") for make in makers]
    return [WorkStatus(handle, b"1", b"3"), *updates, WorkFail(handle)]


def _passes(it: ServerKit, kind: type[WorkData | WorkWarning]) -> None:
    """Check that packets of this type reach the client and do not end the job."""
    client, worker, handle = it.running()
    for piece in _PIECES:
        worker.send(kind(handle, piece))
        client.gets(kind(handle, piece))
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle)


@case("work/data/1", MUST, _DATA, requires=("data",))
def data(it: ServerKit) -> None:
    """WORK_DATA reaches the client byte for byte and does not end the job."""
    _passes(it, WorkData)


@case("work/warning/1", MUST, _WARNING, requires=("data",))
def warning(it: ServerKit) -> None:
    """WORK_WARNING reaches the client byte for byte and does not end the job."""
    _passes(it, WorkWarning)


@case("work/status/1", MUST, _STATUS)
def status(it: ServerKit) -> None:
    """WORK_STATUS reaches the client with both numbers and does not end the job."""
    client, worker, handle = it.running()
    for numbers in ((b"0", b"100"), (b"70", b"100"), (b"4294967295", b"1")):
        worker.send(WorkStatus(handle, *numbers))
        client.gets(WorkStatus(handle, *numbers))
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle)


@case("work/status/2", INFO, known={"the same bytes": EVERY, "others": ()})
def odd_status(it: ServerKit) -> str:
    """Forwarding of unusual number formats in a WORK_STATUS.

    Source: not in the document: gearmand 1.1 and 2.0 forward the bytes unchanged
    """
    client, worker, handle = it.running()
    worker.send(WorkStatus(handle, b"007", b"1.5"))
    got = client.expect(WorkStatus, handle=handle)
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle)
    same = (got.numerator, got.denominator) == (b"007", b"1.5")
    return "the same bytes" if same else "others"


@case("work/order/1", MUST, _FORWARDS, requires=("data",))
def order(it: ServerKit) -> None:
    """The packets about a job reach the client exactly once each, in the order sent."""
    client, worker, handle = it.running()
    sent = [WorkData(handle, b"1"), WorkStatus(handle, b"1", b"2"), WorkWarning(handle, b"2")]
    sent += [WorkData(handle, b"3"), WorkData(handle, b"3"), WorkComplete(handle, b"4")]
    worker.send(*sent)
    client.gets(*sent)
    client.nothing()


@case("work/clients/1", SHOULD, _STATUS, requires=("coalescing",))
def all_clients(it: ServerKit) -> None:
    """All clients that wait for a job receive the packets of its worker."""
    clients, worker = [it.client() for _ in range(3)], it.worker()
    handles = [client.submit(unique=it.another("unique")) for client in clients]
    handle = worker.grab().handle
    demand(set(handles) == {handle}, "the same handle for all clients", handles)
    sent = [WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"2")]
    worker.send(*sent)
    for client in clients:
        client.gets(*sent)


@case("work/clients/2", MUST, _FORWARDS)
def no_other_client(it: ServerKit) -> None:
    """A worker's packets about a job do not reach the clients of other jobs."""
    client, worker, handle = it.running(unique=it.another("unique"))
    other = it.client()
    second = other.submit(unique=it.another("unique2"))
    worker.tell(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    other.nothing()
    worker.run()
    client.gets(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    client.nothing()
    other.expect(WorkComplete, handle=second)


@case("work/background/1", MUST, _BACKGROUND)
def background(it: ServerKit) -> None:
    """The client of a background job receives no packet about it after JOB_CREATED."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.send(WorkStatus(handle, b"1", b"2"))
    if "data" in it.has:
        worker.send(WorkData(handle, b"1"), WorkWarning(handle, b"2"))
    worker.complete(handle)
    client.nothing()


@case("work/complete/1", MUST, "Binary Packet: arguments are separated by a NULL byte")
def empty_result(it: ServerKit) -> None:
    """WORK_COMPLETE with an empty result keeps the NUL after its handle."""
    client, worker, handle = it.running()
    worker.complete(handle, b"")
    client.expect(WorkComplete, handle=handle, data=b"")


@case("work/complete/2", MUST, _COMPLETE)
def result_with_nul(it: ServerKit) -> None:
    """A result reaches the client byte for byte, including NULs."""
    client, worker = it.client(), it.worker()
    for result in (b"\0", b"a\0b\0", bytes(range(256))):
        handle = client.submit()
        worker.run(result)
        client.expect(WorkComplete, handle=handle, data=result)


@case("work/complete/3", MUST, _COMPLETE)
def large_result(it: ServerKit) -> None:
    """A result of one megabyte reaches the client."""
    client, worker, handle = it.queued()
    worker.run(bytes(range(256)) * 4096)
    client.expect(WorkComplete, handle=handle, data=bytes(range(256)) * 4096)


@case("work/fail/1", MUST, 'WORK_FAIL: "Job handle."')
def fail(it: ServerKit) -> None:
    """WORK_FAIL reaches the client with the bare handle, without a NUL after it."""
    client, worker, handle = it.running()
    worker.send(WorkFail(handle))
    client.expect(WorkFail, handle=handle, reason=None)
    client.nothing()


@case("work/fail/2", MUST, _FAIL)
def failed_is_gone(it: ServerKit) -> None:
    """A failed job does not run again."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.send(WorkFail(handle))
    worker.grab_nothing()
    status = client.status(handle)
    demand(status.known == b"0", "an unknown job", status)


@case(
    "work/fail/3", INFO, known={"with it": GEARMANDS, "the bare handle": (), "nothing": ("perl",)}
)
def reason(it: ServerKit) -> str:
    """Forwarding of a WORK_FAIL that has data after its handle.

    Source: not in the document: gearmand 1.1 and 2.0 forward the data
    """
    client, worker, handle = it.running()
    worker.send_anyway(WorkFail(handle, b"reason"))
    worker.heard()
    got = client.settle()
    if not got:
        worker.send(WorkFail(handle))
        client.expect(WorkFail, handle=handle)
        return "nothing"
    return "with it" if got == [WorkFail(handle, b"reason")] else "the bare handle"


@case("work/foreign/1", MUST, _HOLDER)
def foreign(it: ServerKit) -> None:
    """Packets about another worker's job have no effect, and the connection stays open."""
    (client, worker, handle), other = it.running(), it.worker()
    other.send(*_all_about(handle, it))
    got = other.heard()
    demand(set(got) <= {"ERROR"}, "only ERROR, or nothing", got)
    client.nothing()
    worker.complete(handle)
    client.expect(WorkComplete, handle=handle, data=b"result")
    other.grab_nothing()


@case("work/foreign/2", INFO, _REFUSES, known=_REACTIONS)
def foreign_answer(it: ServerKit) -> str:
    """Reply to a worker that completes a job of another worker."""
    (_, worker, handle), other = it.running(SubmitJobBg), it.worker()
    other.send(WorkComplete(handle, b"foreign"))
    got = other.heard()
    worker.send(WorkComplete(handle, b"result"))
    worker.heard()
    return "ERROR" if got else "nothing"


@case("work/unknown/1", SHOULD, _HOLDER)
def unknown(it: ServerKit) -> None:
    """The server does not close the connection of a worker that sends an unknown handle."""
    client, worker = it.client(), it.worker()
    worker.send(*_all_about(b"H:conformance:nobody", it))
    got = worker.heard()
    demand(set(got) <= {"ERROR"}, "only ERROR, or nothing", got)
    handle = client.submit()
    worker.run()
    client.expect(WorkComplete, handle=handle)


@case("work/ended/1", MUST, _HOLDER)
def after_the_end(it: ServerKit) -> None:
    """A worker's packets about a completed job do not reach the client."""
    client, worker, handle = it.running()
    worker.send(WorkComplete(handle, b"result"), *_all_about(handle, it))
    worker.heard()
    client.expect(WorkComplete, handle=handle, data=b"result")
    client.nothing()
    worker.grab_nothing()


@case("work/ended/2", MUST, _HOLDER)
def after_failure(it: ServerKit) -> None:
    """A worker's packets about a failed job do not reach the client."""
    client, worker, handle = it.running()
    worker.send(WorkFail(handle), *_all_about(handle, it))
    worker.heard()
    client.expect(WorkFail, handle=handle)
    client.nothing()


@case("work/ended/3", INFO, _REFUSES, known=_REACTIONS)
def after_the_end_answer(it: ServerKit) -> str:
    """Reply to a worker that completes a job twice."""
    _, worker, handle = it.running(SubmitJobBg)
    worker.complete(handle)
    worker.send(WorkComplete(handle, b"again"))
    return "ERROR" if worker.heard() else "nothing"


@case("order/handles/1", MUST)
def handles(it: ServerKit) -> None:
    """A client's jobs can end in any order, and each result has its job's handle.

    Source: JOB_ASSIGN: "All communication about the job … should use the handle"
    """
    client, workers = it.client(), [it.worker() for _ in range(4)]
    handles = [client.submit(b"%d" % number) for number in range(4)]
    for worker in workers:
        worker.grab()
    for number in (2, 0, 3, 1):
        workers[number].complete(handles[number], b"result of %d" % number)
    for number in (2, 0, 3, 1):
        client.expect(WorkComplete, handle=handles[number], data=b"result of %d" % number)
    client.nothing()


@case("order/both/1", SHOULD, "not in the document: gearmand 1.1 and 2.0 do not distinguish roles")
def client_and_worker(it: ServerKit) -> None:
    """One connection can be a client and a worker at once, even of the same job."""
    line = it.worker()
    handle = line.submit(b"for myself")
    line.grab(handle=handle)
    sent = WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result")
    line.send(*sent)
    line.gets(*sent)
    line.nothing()
