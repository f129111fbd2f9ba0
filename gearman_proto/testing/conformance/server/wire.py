"""Cases about the framing of packets, and about invalid packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import EVERY, GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.testing.packing import pack, pack_event
from gearman_proto.wire.packets import (
    BY_NAME,
    HEADER,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    AllYours,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    JobCreated,
    Noop,
    OptionReq,
    OptionRes,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkComplete,
)

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.server_kit import Line

_HEADER: Final = 'Binary Packet: "4 byte magic code", "4 byte type", "4 byte size"'
_MEGABYTE: Final = bytes(range(256)) * 4096
_ECHO: Final = BY_NAME["ECHO_REQ"].number


@case("wire/echo/1", MUST, 'ECHO_REQ: "a ECHO_RES packet with the same data"', requires=("echo",))
def echo(it: ServerKit) -> None:
    """ECHO_REQ is answered with the same data, including NULs."""
    client = it.client()
    for data in (b"", b"0", b"a\0b\0", bytes(range(256))):
        client.send(EchoReq(data))
        client.expect(EchoRes, data=data)


@case("wire/echo/2", MUST, _HEADER, requires=("echo",))
def pipelined(it: ServerKit) -> None:
    """Pipelined requests are answered in order, exactly once each."""
    client = it.client()
    client.send(*[EchoReq(b"echo %d" % number) for number in range(100)])
    client.gets(*[EchoRes(b"echo %d" % number) for number in range(100)])
    client.nothing()


@case(
    "wire/order/1", MUST, "not in the document: gearmand 1.1 and 2.0 do this", requires=("options",)
)
def order(it: ServerKit) -> None:
    """Pipelined requests of different types are answered in order."""
    client = it.client()
    handle = client.submit(kind=SubmitJobBg)
    again = SubmitJobBg(it.function, b"", b"data")
    client.send(GetStatus(handle), again, OptionReq(b"exceptions"), GetStatus(b"nobody"), again)
    client.expect(StatusRes, handle=handle, known=b"1")
    client.expect(JobCreated)
    client.expect(OptionRes, option=b"exceptions")
    client.expect(StatusRes, handle=b"nobody", known=b"0")
    client.expect(JobCreated)
    it.worker().run_all(3)


def _send_pieces(line: Line, other: Line, packet: bytes, *ends: int) -> None:
    """Send a packet in pieces, with a round trip on another connection after each."""
    for start, end in zip((0, *ends), (*ends, len(packet)), strict=True):
        line.send_raw(packet[start:end])
        other.settle()


@case("wire/split/1", MUST, _HEADER, requires=("echo",))
def split(it: ServerKit) -> None:
    """A packet can arrive in pieces, split within its magic, type, size or data."""
    client, other = it.client(), it.client()
    for ends in ((2,), (6,), (10,), (12,), (15,), (1, 5, 9, 12, 14)):
        _send_pieces(client, other, client.connection.send(EchoReq(b"pieces")), *ends)
        client.expect(EchoRes, data=b"pieces")


@case("wire/split/2", MUST, _HEADER)
def by_the_byte(it: ServerKit) -> None:
    """Packets can arrive byte by byte."""
    client, worker = it.client(), it.worker()
    for byte in client.connection.send(SubmitJobBg(it.function, b"", b"da\0ta")):
        client.send_raw(bytes([byte]))
    worker.run(handle=client.expect(JobCreated).handle, data=b"da\0ta")


@case(
    "wire/magic/1",
    SHOULD,
    'Binary Packet: "This is either "\\0REQ" for requests or "\\0RES"',
    known={"nothing happens": ("perl",)},
)
def bad_magic(it: ServerKit) -> str | None:
    """The server closes the connection after a packet with an invalid magic."""
    client = it.client()
    client.send_raw(HEADER.pack(b"\0BAD", _ECHO, 0))
    reaction = client.reaction()
    demand(reaction in ("closed", "silence"), "the end of the connection", reaction)
    return "nothing happens" if reaction == "silence" else None


@case(
    "wire/magic/2",
    INFO,
    known={
        "refused with ERROR": GEARMANDS,
        "the connection is closed": (),
        "carried out": (),
        "not answered": ("perl",),
    },
)
def response_magic(it: ServerKit) -> str:
    """Reaction to a request with the response magic.

    Source: not in the document: gearmand 1.1 and 2.0 answer with ERROR INVALID_MAGIC
    """
    client = it.client()
    client.send_raw(pack(BY_NAME["ECHO_REQ"], [b"data"], MAGIC_RESPONSE))
    return client.behaviour(ECHO_RES="carried out")


@case("wire/magic/3", SHOULD, 'Binary Packet: ""\\0RES" for responses"', requires=("echo",))
def magic_of_answers(it: ServerKit) -> None:
    """All packets from the server have the response magic."""
    client = it.client()
    client.send(
        EchoReq(b"data"), SubmitJob(it.function, b"", b"data"), GetStatus(b"H:conformance:nobody")
    )
    packets = [client.packet() for _ in range(3)]
    demand(all(each.startswith(MAGIC_RESPONSE) for each in packets), "response magics", packets)
    it.worker().run()
    end = client.packet()
    demand(end.startswith(MAGIC_RESPONSE), "a response magic", end)


@case("wire/type/1", SHOULD, known={"refused with ERROR": ("perl",)})
def unknown_type(it: ServerKit) -> str | None:
    """The server closes the connection after a packet of an unknown type.

    Source: Binary Packet: "an enumerated packet type"; gearmand 1.1 and 2.0 close the connection
    """
    for number in (0, 43, 1000):
        client = it.client()
        client.send_raw(HEADER.pack(MAGIC_REQUEST, number, 0))
        if (reaction := client.reaction()) == "ERROR":
            return "refused with ERROR"
        demand(reaction == "closed", "the end of the connection", reaction)
    return None


@case("wire/unexpected/1", SHOULD, 'ERROR: "whenever the server encounters an error"')
def unexpected(it: ServerKit) -> None:
    """A packet that only servers send is answered with ERROR, and the connection stays open."""
    client = it.client()
    client.send_anyway(Noop(), JobCreated(b"H:conformance:1"))
    client.send_raw(HEADER.pack(MAGIC_REQUEST, 5, 0))
    for _ in range(3):
        client.expect(Error)
    client.nothing()


@case(
    "wire/unexpected/2",
    INFO,
    known={"refused with ERROR": EVERY, "taken": (), "the connection is closed": ()},
    requires=("echo",),
)
def all_yours(it: ServerKit) -> str:
    """Reaction to ALL_YOURS, which is documented but was never used.

    Source: ALL_YOURS: "Not yet implemented"
    """
    client = it.client()
    client.send_anyway(AllYours(), EchoReq(b"after"))
    return client.behaviour(ECHO_RES="taken")


@case("wire/body/1", SHOULD, requires=("grab",))
def body(it: ServerKit) -> None:
    """The server ignores data in a packet whose type has no arguments.

    Source: GRAB_JOB: "Arguments: - None."; gearmand 1.1 and 2.0 ignore it
    """
    worker = it.worker()
    worker.send_raw(pack(BY_NAME["PRE_SLEEP"], [b"a body", b"of two"], MAGIC_REQUEST))
    worker.nothing()
    worker.send_raw(pack(BY_NAME["GRAB_JOB"], [b"\0REQ another"], MAGIC_REQUEST))
    reaction = worker.reaction()
    demand(reaction == "NO_JOB", "NO_JOB", reaction)
    worker.send_raw(pack(BY_NAME["RESET_ABILITIES"], [b"a body"], MAGIC_REQUEST))
    worker.nothing()


@case("wire/empty/1", MUST, 'SUBMIT_JOB, WORK_COMPLETE: "Opaque data"')
def empty(it: ServerKit) -> None:
    """The data and the result of a job can be empty, but the NULs before them remain."""
    client, worker = it.client(), it.worker()
    handle = client.submit(b"")
    worker.run(b"", data=b"")
    packet = client.packet()
    wanted = pack_event(WorkComplete(handle, b""), MAGIC_RESPONSE)
    demand(packet == wanted, f"{wanted!r}", packet)


@case("wire/large/1", MUST, 'Binary Packet: "the size of the data being sent after the header"')
def large(it: ServerKit) -> None:
    """Data and results of one megabyte are forwarded unchanged."""
    client, worker = it.client(), it.worker()
    handle = client.submit(_MEGABYTE)
    worker.run(_MEGABYTE[::-1], data=_MEGABYTE)
    client.expect(WorkComplete, handle=handle, data=_MEGABYTE[::-1])


@case("wire/text/1", SHOULD, requires=("text", "echo"))
def mixed(it: ServerKit) -> None:
    """Packets and text commands on the same connection are answered in order.

    Source: Administrative Protocol: "differentiates between the two by looking at the first
    character"
    """
    client = it.client()
    client.send(EchoReq(b"1"), TextLine(b"version"), EchoReq(b"2"), TextLine(b"version"))
    client.expect(EchoRes, data=b"1")
    line = client.expect(TextLine)
    client.expect(EchoRes, data=b"2")
    client.expect(TextLine, line=line.line)
    client.nothing()


@case("wire/nul/1", SHOULD, 'Binary Packet: "separated by a NULL byte"', requires=("echo",))
def missing_nul(it: ServerKit) -> None:
    """A submit that lacks a NUL creates no job and does not affect other connections."""
    other, worker, client = it.client(), it.worker(), it.client()
    client.send_raw(pack(BY_NAME["SUBMIT_JOB_BG"], [it.function, b"data"], MAGIC_REQUEST))
    client.send_anyway(EchoReq(b"after"))
    reaction = client.reaction()
    demand(reaction in ("closed", "ERROR"), "the end of the connection or an ERROR", reaction)
    worker.grab_nothing()
    other.nothing()


@case(
    "wire/nul/2",
    INFO,
    known={
        "the connection is closed": (),
        "refused with ERROR": (),
        "not answered": GEARMANDS,
        "carried out": ("perl",),
    },
    requires=("timeouts", "echo"),
    slow=True,
)
def missing_time(it: ServerKit) -> str:
    """Reaction to a CAN_DO_TIMEOUT without a time and the NUL before it.

    Source: not in the document: gearmand 1.1 and 2.0 answer nothing more on the connection
    """
    client = it.client()
    client.send_raw(pack(BY_NAME["CAN_DO_TIMEOUT"], [it.function], MAGIC_REQUEST))
    client.send_anyway(EchoReq(b"after"))
    return client.within(5.0, lambda: client.behaviour(ECHO_RES="carried out"))


@case("wire/truncated/1", MUST, 'Binary Packet: "the size of the data being sent after the header"')
def truncated(it: ServerKit) -> None:
    """A submit that is cut off by the end of the connection creates no job."""
    for less in (1, 10):
        client, worker = it.client(), it.worker()
        packet = client.connection.send(SubmitJobBg(it.function, b"", b"long data"))
        client.send_raw(packet[:-less])
        client.half_close()
        # Once the server has closed the connection as well, it has read all bytes.
        demand(client.rest() == b"", "no reply", "one")
        worker.grab_nothing()


@case("wire/others/1", MUST, "not in the document: servers read from all connections concurrently")
def others(it: ServerKit) -> None:
    """An incomplete packet delays only its own connection."""
    slow, client, worker = it.client(), it.client(), it.worker()
    packet = slow.connection.send(SubmitJob(it.function, b"", b"slow"))
    slow.send_raw(packet[:-2])
    handle = client.submit(b"quick")
    worker.run(data=b"quick")
    client.expect(WorkComplete, handle=handle)
    slow.send_raw(packet[-2:])
    handle = slow.expect(JobCreated).handle
    worker.run()
    slow.expect(WorkComplete, handle=handle)


@case("wire/end/1", INFO, known={"answered": (), "not answered": ()}, requires=("echo",))
def half_closed(it: ServerKit) -> str:
    """Replies to a client that has half-closed its connection.

    Source: not in the document: gearmand 1.1 and 2.0 usually send no replies
    """
    client = it.client()
    client.send(EchoReq(b"data"))
    client.half_close()
    return "answered" if client.rest() else "not answered"
