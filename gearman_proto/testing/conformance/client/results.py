"""Cases about the results and the progress of jobs."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.kit import around_powers
from gearman_proto.testing.conformance.program_kit import (
    HANDLE,
    ClientKit,
    client_case,
    content,
)
from gearman_proto.wire.packets import JobCreated, WorkComplete, WorkData, WorkStatus, WorkWarning

_LARGE = 1_000_000
_SIZE = "size: of the data being sent after the header"


@client_case("result/plain/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def plain(it: ClientKit) -> None:
    """The result of a job is the data of its WORK_COMPLETE."""
    client, _ = it.submitted()
    client.send(JobCreated(b"H:conformance:1"), WorkComplete(b"H:conformance:1", b"result"))
    it.prints(b"result")


@client_case("result/empty/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def empty(it: ClientKit) -> None:
    """An empty result is a result."""
    it.accepted().send(WorkComplete(HANDLE, b""))
    it.prints(b"")


@client_case("result/bytes/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def all_bytes(it: ClientKit) -> None:
    """A result can contain any bytes, with NULs at its beginning and its end."""
    result = b"\0\0" + bytes(range(256)) + b"\0"
    it.accepted().send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/packet/1", MUST)
def packet(it: ClientKit) -> None:
    """A client prints a result that looks like packets unchanged.

    Source: size: only the size of the data marks the end of a packet
    """
    client = it.accepted()
    result = client.packed(WorkComplete(HANDLE, b"other")) * 2
    client.send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/large/1", MUST, "size: of the data being sent after the header")
def large(it: ClientKit) -> None:
    """A result of a million bytes arrives complete."""
    result = (b"0123456789" * _LARGE)[:_LARGE]
    it.accepted().send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/large/2", MUST, _SIZE)
def over_a_mebibyte(it: ClientKit) -> None:
    """A result of 2^20 + 1 bytes arrives complete."""
    _result_of(it, (1 << 20) + 1)


@client_case("result/size/1", MUST, _SIZE)
def under_64k(it: ClientKit) -> None:
    """A result of 2^16 - 1 bytes arrives complete."""
    _result_of(it, (1 << 16) - 1)


@client_case("result/size/2", MUST, _SIZE)
def exactly_64k(it: ClientKit) -> None:
    """A result of 2^16 bytes arrives complete."""
    _result_of(it, 1 << 16)


@client_case("result/size/3", MUST, _SIZE)
def over_64k(it: ClientKit) -> None:
    """A result of 2^16 + 1 bytes arrives complete."""
    _result_of(it, (1 << 16) + 1)


@client_case("result/size/4", MUST, _SIZE)
def packet_of_64k(it: ClientKit) -> None:
    """A WORK_COMPLETE of 2^16 bytes, with its header, arrives complete."""
    _result_of(it, (1 << 16) - 13 - len(HANDLE))


@client_case("result/size/5", MUST, _SIZE)
def exactly_a_mebibyte(it: ClientKit) -> None:
    """A result of 2^20 bytes arrives complete."""
    _result_of(it, 1 << 20)


@client_case("result/size/6", MUST, _SIZE)
def data_near_powers(it: ClientKit) -> None:
    """WORK_DATA of any length near a power of two does not hide the result."""
    client = it.accepted()
    overheads = (0, 13 + len(HANDLE))
    for size in [size - less for size in around_powers(range(9, 17)) for less in overheads]:
        client.send(WorkData(HANDLE, content(size)))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


def _result_of(it: ClientKit, size: int) -> None:
    """Check that a result of this size arrives complete."""
    it.accepted().send(WorkComplete(HANDLE, content(size)))
    it.prints(content(size))


@client_case("result/newline/1", INFO, known={"kept": (), "added": (), "cut": ()})
def newline(it: ClientKit) -> str:
    """Treatment of a newline at the end of a result.

    Source: not in the document: programs choose their output format
    """
    it.accepted().send(WorkComplete(HANDLE, b"result\n"))
    demand(it.ended() == 0, "exit status 0", f"{it.program.status}")
    ways = {b"result\n": "kept", b"result\n\n": "added", b"result": "cut"}
    if it.program.output not in ways:
        raise Failed("the result", repr(it.program.output))
    return ways[it.program.output]


@client_case("result/data/1", MUST, 'WORK_DATA: "when it needs to send updates"')
def data(it: ClientKit) -> None:
    """WORK_DATA does not end a job, and a program prints the result last."""
    client = it.accepted()
    client.send(WorkData(HANDLE, b"part "), WorkData(HANDLE, b"of it "))
    client.send(WorkComplete(HANDLE, b"result"))
    demand(it.ended() == 0, "exit status 0", f"{it.program.status}")
    printed = it.program.output
    demand(printed.rstrip(b"\n").endswith(b"result"), "the result at the end", printed)


@client_case("result/data/2", INFO, known={"printed": (), "not printed": ()})
def printed_data(it: ClientKit) -> str:
    """Output of WORK_DATA in addition to the result.

    Source: not in the document: programs choose their output format
    """
    it.accepted().send(WorkData(HANDLE, b"part "), WorkComplete(HANDLE, b"result"))
    demand(it.ended() == 0, "exit status 0", f"{it.program.status}")
    return "printed" if b"part" in it.program.output else "not printed"


@client_case("result/status/1", MUST, 'WORK_STATUS: "the status of a running job"')
def status(it: ClientKit) -> None:
    """WORK_STATUS is neither a result nor the end of a job, not even with 1/1."""
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"1", b"2"), WorkStatus(HANDLE, b"1", b"1"))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/status/2", INFO, known={"printed": (), "not printed": ()})
def printed_status(it: ClientKit) -> str:
    """Output of WORK_STATUS in addition to the result.

    Source: WORK_STATUS: "of the status of a running job"; programs choose their output format
    """
    it.accepted().send(WorkStatus(HANDLE, b"1", b"2"), WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")
    return "not printed" if it.program.output.strip() == b"result" else "printed"


@client_case("result/status/3", SHOULD)
def odd_status(it: ClientKit) -> None:
    """A client survives WORK_STATUS with fractional, negative or invalid numbers.

    Source: not in the document: gearmand 1.1 and 2.0 forward the worker's numbers unchanged
    """
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"0.5", b""), WorkStatus(HANDLE, b"half", b"-1"))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/status/4", SHOULD)
def of_nothing(it: ClientKit) -> None:
    """A client survives WORK_STATUS with 0/0, for a job without any work.

    Source: not in the document: gearmand 1.1 and 2.0 forward the worker's numbers unchanged
    """
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"0", b"0"), WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/warning/1", SHOULD)
def warning(it: ClientKit) -> None:
    """WORK_WARNING is neither part of the result nor the end of the job.

    Source: WORK_WARNING: "should be treated as a warning instead of normal response data"
    """
    it.accepted().send(WorkWarning(HANDLE, b"warning"), WorkComplete(HANDLE, b"result"))
    it.prints(b"result")


@client_case("result/handle/1", MUST)
def long_handle(it: ClientKit) -> None:
    """A handle can be 63 bytes long.

    Source: "must not be longer than 64 bytes, including NULL terminator"
    """
    client, _ = it.submitted()
    handle = b"H:".ljust(63, b"x")
    client.send(JobCreated(handle), WorkComplete(handle, b"result"))
    it.prints(b"result")


@client_case("result/handle/2", SHOULD, 'JOB_CREATED: "Job handle assigned by server"')
def odd_handle(it: ClientKit) -> None:
    """A client accepts any handle, not only those in gearmand's format."""
    client, _ = it.submitted()
    handle = b"::FFFF:127.0.0.1 \xc3\xa9"
    client.send(JobCreated(handle), WorkComplete(handle, b"result"))
    it.prints(b"result")


@client_case("result/short/1", INFO, known={"goes on": (), "gives up": (), "waits": GEARMANDS})
def short(it: ClientKit) -> str:
    """Reaction to a WORK_COMPLETE without a NUL after the handle.

    Source: not in the document: gearmand always sends the NUL, even if the worker has omitted it
    """
    client = it.accepted()
    whole = client.packed(WorkComplete(HANDLE, b""))
    # Drop the final NUL, and reduce the size in the header by one.
    client.send_raw(whole[:11] + bytes([whole[11] - 1]) + whole[12:-1])
    status = it.ended()
    return "waits" if status is None else "gives up" if status else "goes on"
