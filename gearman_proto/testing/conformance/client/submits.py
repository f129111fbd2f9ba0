"""Cases about the jobs that clients submit."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case
from gearman_proto.testing.conformance.session import SUBMITS
from gearman_proto.wire.packets import (
    Event,
    PacketEvent,
    SubmitJob,
    SubmitJobHigh,
    SubmitJobLow,
    WorkComplete,
)

# Linux limits an argument of a command to 128 KiB.
_LARGE = 100_000
_LONGEST_UNIQUE = 63


@client_case("submit/bytes/1", MUST, 'SUBMIT_JOB: "Opaque data that is given to the function"')
def text(it: ClientKit) -> None:
    """The function and the payload arrive as they were given, byte for byte."""
    payload = 'a "b" \\c\\n\td\r\n {e} %s $f é ☃ '.encode()
    _, submit = it.submitted(payload)
    demand(submit.function == it.function, f"the function {it.function!r}", submit.function)
    demand(submit.data == payload, f"the payload {payload!r}", submit.data)


@client_case("submit/bytes/2", INFO, known={"as they are": (), "changed": ()})
def not_text(it: ClientKit) -> str:
    """What becomes of a payload that is no UTF-8, where it is an argument of a program.

    Source: SUBMIT_JOB: "Opaque data"; languages have arguments of programs as text
    """
    payload = bytes(range(1, 256))
    _, submit = it.submitted(payload)
    return "as they are" if submit.data == payload else "changed"


@client_case("submit/empty/1", SHOULD, known={"refused": ()})
def empty(it: ClientKit) -> str | None:
    """A payload without a byte is submitted.

    Source: SUBMIT_JOB: "Opaque data": gearmand 1.1 and 2.0 take none as well, libgearman refuses
    that
    """
    it.start(b"")
    client = it.again()
    try:
        submit = client.submitted() if client is not None else None
    except Failed:
        it.fails()
        submit = None
    if submit is None:
        return "refused"
    demand(submit.data == b"", "an empty payload", submit.data)
    return None


@client_case("submit/large/1", MUST, "size: of the data being sent after the header")
def large(it: ClientKit) -> None:
    """A payload of 100000 bytes arrives as it is."""
    payload = (b"0123456789" * _LARGE)[:_LARGE]
    _, submit = it.submitted(payload)
    demand(submit.data == payload, f"{_LARGE} bytes", f"{len(submit.data)} bytes, or others")


@client_case("submit/unique/1", MUST)
def unique(it: ClientKit) -> None:
    """The unique has 63 bytes at most.

    Source: not in the document: gearmand 1.1 and 2.0 refuse 65 bytes, and 64 break the job's
    payload
    """
    _, submit = it.submitted()
    wanted = f"at most {_LONGEST_UNIQUE} bytes"
    demand(len(submit.unique) <= _LONGEST_UNIQUE, wanted, f"{len(submit.unique)} bytes")


@client_case("submit/unique/2", INFO, known={"none": (), "by payload": (), "of its own": ()})
def unique_kind(it: ClientKit) -> str:
    """What unique a client gives a job when it was told none.

    Source: SUBMIT_JOB: "The unique ID can be used by the server to reduce queue length"
    """
    _, submit = it.submitted()
    return {b"": "none", b"-": "by payload"}.get(submit.unique, "of its own")


@client_case("submit/unique/3", MUST, requires=("several",))
def uniques(it: ClientKit) -> None:
    """Jobs of different payloads never have one unique, as then they would be one job.

    Source: SUBMIT_JOB: "the server may attach this request to the already existing job"
    """
    client, _ = it.several(b"first", b"second", b"third")
    found = [each.unique for each in client.events if isinstance(each, SUBMITS)]
    found = [each for each in found if each not in (b"", b"-")]
    demand(len(found) == len(set(found)), "a unique each", found)


@client_case("submit/foreground/1", MUST, "SUBMIT_JOB_BG: the client is not notified when it ends")
def foreground(it: ClientKit) -> None:
    """A client that waits for the result submits a foreground job, of any priority."""
    _, submit = it.submitted()
    kinds = (SubmitJob, SubmitJobHigh, SubmitJobLow)
    demand(isinstance(submit, kinds), "a submit in foreground", submit)


@client_case("submit/once/1", MUST, "SUBMIT_JOB: issued when a job needs to be run")
def once(it: ClientKit) -> None:
    """One job is submitted once, where nothing goes wrong."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints(b"result")
    more: list[Event] = []
    client.rest_of(more.append)
    demand(not any(isinstance(each, SUBMITS) for each in more), "no other submit", more)


@client_case("submit/binary/1", MUST, '"All communication between workers or clients" is binary')
def binary(it: ClientKit) -> None:
    """All that a client sends is packets that are requests."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints(b"result")
    client.rest_of()
    odd = [each for each in client.events if not isinstance(each, PacketEvent)]
    demand(not odd, "packets", odd)
