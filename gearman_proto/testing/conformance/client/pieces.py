"""Cases about packets that arrive in pieces, or several at once."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import MUST
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case, content
from gearman_proto.wire.packets import JobCreated, WorkComplete, WorkStatus

_SOURCE = "size: only the size marks the end of a packet; TCP can split and join packets"


@client_case("wire/pieces/1", MUST, _SOURCE)
def single_bytes(it: ClientKit) -> None:
    """A client accepts packets that arrive byte by byte."""
    client, _ = it.submitted()
    for byte in client.packed(JobCreated(HANDLE), WorkComplete(HANDLE, b"result")):
        client.send_raw(bytes([byte]))
    it.prints(b"result")


@client_case("wire/pieces/2", MUST, _SOURCE)
def across(it: ClientKit) -> None:
    """A client accepts packets that are split anywhere, even within a header."""
    client, _ = it.submitted()
    created = client.packed(JobCreated(HANDLE))
    whole = created + client.packed(WorkStatus(HANDLE, b"1", b"2"), WorkComplete(HANDLE, b"result"))
    first, second = len(created) + 6, len(whole) - 3
    for piece in (whole[:5], whole[5:first], whole[first:second], whole[second:]):
        client.send_raw(piece)
    it.prints_also(b"result")


@client_case("wire/pieces/3", MUST, _SOURCE)
def large(it: ClientKit) -> None:
    """A client accepts a large result in many pieces."""
    client = it.accepted()
    client.piece = 997
    client.send(WorkComplete(HANDLE, content(100_000)))
    it.prints(content(100_000))


@client_case("wire/joined/1", MUST, _SOURCE)
def joined(it: ClientKit) -> None:
    """A client accepts all packets of a job at once, from JOB_CREATED to its end."""
    client, _ = it.submitted()
    status = WorkStatus(HANDLE, b"1", b"2")
    client.send(JobCreated(HANDLE), *[status] * 100, WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")
