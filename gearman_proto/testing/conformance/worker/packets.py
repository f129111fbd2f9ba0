"""Cases about the packets that a worker sends, and unexpected ones that it receives."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.wire.packets import EchoReq, EchoRes, StatusRes


@worker_case("wire/requests/1", MUST, 'Binary Packet: "\\0REQ for requests"; Worker Requests')
def requests(it: WorkerKit) -> None:
    """A worker sends only well-formed requests of the types defined for workers."""
    worker = it.ready()
    for payload in (b"data", b"updates", b"fail"):
        worker.serve(payload)
    worker.refuse()


@worker_case("wire/stray/1", SHOULD, known={"connects again": ()})
def stray(it: WorkerKit) -> str | None:
    """A worker survives a well-formed packet that it has not requested.

    Source: not in the document: libgearman drops unrequested packets
    """
    worker = it.ready()
    worker.send(StatusRes(b"H:conformance:nobody", b"0", b"0", b"0", b"0"), EchoRes(b"nobody"))
    return it.goes_on(worker)


@worker_case("wire/garbage/1", SHOULD)
def garbage(it: WorkerKit) -> None:
    """A worker that receives garbage closes the connection and reconnects.

    Source: Binary Packet: "4 byte magic code"; no rule for other codes
    """
    worker = it.returning()
    worker.send_raw(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    worker.rest_of()
    it.again().serve()


@worker_case("wire/echo/1", INFO, known={"sends ECHO_REQ": (), "sends none": ()})
def echo(it: WorkerKit) -> str:
    """Use of ECHO_REQ by a starting worker to check its connection.

    Source: ECHO_REQ: "primarily used for testing or debugging"
    """
    worker = it.ready()
    worker.serve()
    came = any(isinstance(event, EchoReq) for event in worker.events)
    return "sends ECHO_REQ" if came else "sends none"
