"""Cases about the results and the progress of jobs."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case
from gearman_proto.wire.packets import JobCreated, WorkComplete, WorkData, WorkStatus, WorkWarning

_LARGE = 1_000_000


@client_case("result/plain/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def plain(it: ClientKit) -> None:
    """The result of a job is the data of its WORK_COMPLETE."""
    client, _ = it.submitted()
    client.send(JobCreated(b"H:conformance:1"), WorkComplete(b"H:conformance:1", b"result"))
    it.prints(b"result")


@client_case("result/empty/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def empty(it: ClientKit) -> None:
    """A result without a byte is a result."""
    it.accepted().send(WorkComplete(HANDLE, b""))
    it.prints(b"")


@client_case("result/bytes/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def all_bytes(it: ClientKit) -> None:
    """A result may have all bytes, and NULs at its beginning and its end."""
    result = b"\0\0" + bytes(range(256)) + b"\0"
    it.accepted().send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/packet/1", MUST)
def packet(it: ClientKit) -> None:
    """A result that looks like packets is nothing but a result.

    Source: size: the data's size alone tells where a packet ends, not its bytes
    """
    client = it.accepted()
    result = client.packed(WorkComplete(HANDLE, b"other")) * 2
    client.send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/large/1", MUST, "size: of the data being sent after the header")
def large(it: ClientKit) -> None:
    """A result of a million bytes arrives whole."""
    result = (b"0123456789" * _LARGE)[:_LARGE]
    it.accepted().send(WorkComplete(HANDLE, result))
    it.prints(result)


@client_case("result/newline/1", INFO, known={"kept": (), "added": (), "cut": ()})
def newline(it: ClientKit) -> str:
    """What a program makes of the end of a line that is the end of a result.

    Source: not in the document: how programs print a result that ends a line
    """
    it.accepted().send(WorkComplete(HANDLE, b"result\n"))
    demand(it.ended() == 0, "the exit status 0", f"{it.program.status}")
    ways = {b"result\n": "kept", b"result\n\n": "added", b"result": "cut"}
    if it.program.output not in ways:
        raise Failed("the result", repr(it.program.output))
    return ways[it.program.output]


@client_case("result/data/1", MUST, 'WORK_DATA: "when it needs to send updates"')
def data(it: ClientKit) -> None:
    """WORK_DATA before the result is not the end of the job, and the result comes last."""
    client = it.accepted()
    client.send(WorkData(HANDLE, b"part "), WorkData(HANDLE, b"of it "))
    client.send(WorkComplete(HANDLE, b"result"))
    demand(it.ended() == 0, "the exit status 0", f"{it.program.status}")
    printed = it.program.output
    demand(printed.rstrip(b"\n").endswith(b"result"), "the result at the end", printed)


@client_case("result/data/2", INFO, known={"printed": (), "not printed": ()})
def printed_data(it: ClientKit) -> str:
    """Whether a program prints WORK_DATA beside the result.

    Source: not in the document: what a program prints of it
    """
    it.accepted().send(WorkData(HANDLE, b"part "), WorkComplete(HANDLE, b"result"))
    demand(it.ended() == 0, "the exit status 0", f"{it.program.status}")
    return "printed" if b"part" in it.program.output else "not printed"


@client_case("result/status/1", MUST, 'WORK_STATUS: "the status of a running job"')
def status(it: ClientKit) -> None:
    """WORK_STATUS is neither a result nor the end of a job, not even when it says 1/1."""
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"1", b"2"), WorkStatus(HANDLE, b"1", b"1"))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/status/2", INFO, known={"printed": (), "not printed": ()})
def printed_status(it: ClientKit) -> str:
    """Whether a program prints WORK_STATUS beside the result.

    Source: WORK_STATUS: "of the status of a running job"; no document says where a program prints
    it
    """
    it.accepted().send(WorkStatus(HANDLE, b"1", b"2"), WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")
    return "not printed" if it.program.output.strip() == b"result" else "printed"


@client_case("result/status/3", SHOULD)
def odd_status(it: ClientKit) -> None:
    """WORK_STATUS whose numbers are no whole ones, or no numbers, does not end a client.

    Source: not in the document: gearmand 1.1 and 2.0 pass on what the worker has said, whatever it
    is
    """
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"0.5", b""), WorkStatus(HANDLE, b"half", b"-1"))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/status/4", SHOULD)
def of_nothing(it: ClientKit) -> None:
    """WORK_STATUS that says 0/0, as of a job that has nothing to do, does not end a client.

    Source: not in the document: gearmand 1.1 and 2.0 pass on what the worker has said, whatever it
    is
    """
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"0", b"0"), WorkComplete(HANDLE, b"result"))
    it.prints_also(b"result")


@client_case("result/warning/1", SHOULD)
def warning(it: ClientKit) -> None:
    """WORK_WARNING is neither a result, nor a part of one, nor the end of a job.

    Source: WORK_WARNING: "should be treated as a warning instead of normal response data"
    """
    it.accepted().send(WorkWarning(HANDLE, b"warning"), WorkComplete(HANDLE, b"result"))
    it.prints(b"result")


@client_case("result/handle/1", MUST)
def long_handle(it: ClientKit) -> None:
    """A handle may have 63 bytes.

    Source: "job handle arguments must not be longer than 64 bytes" with a NUL
    """
    client, _ = it.submitted()
    handle = b"H:".ljust(63, b"x")
    client.send(JobCreated(handle), WorkComplete(handle, b"result"))
    it.prints(b"result")


@client_case("result/handle/2", SHOULD, 'JOB_CREATED: "Job handle assigned by server"')
def odd_handle(it: ClientKit) -> None:
    """A handle is any text that the server likes, and need not look like gearmand's."""
    client, _ = it.submitted()
    handle = b"::FFFF:127.0.0.1 \xc3\xa9"
    client.send(JobCreated(handle), WorkComplete(handle, b"result"))
    it.prints(b"result")


@client_case("result/short/1", INFO, known={"goes on": (), "gives up": (), "waits": GEARMANDS})
def short(it: ClientKit) -> str:
    """What a client makes of a WORK_COMPLETE that has a handle, and no NUL behind it.

    Source: not in the document: gearmand sends the NUL behind the handle, whatever a worker has
    sent
    """
    client = it.accepted()
    whole = client.packed(WorkComplete(HANDLE, b""))
    # Drop the final NUL, and reduce the size in the header by one.
    client.send_raw(whole[:11] + bytes([whole[11] - 1]) + whole[12:-1])
    status = it.ended()
    return "waits" if status is None else "gives up" if status else "goes on"
