"""Cases about the jobs that clients submit."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Failed, demand
from gearman_proto.testing.conformance.kit import around_powers
from gearman_proto.testing.conformance.program_kit import (
    HANDLE,
    ClientKit,
    client_case,
    content,
)
from gearman_proto.testing.conformance.session import SUBMITS
from gearman_proto.wire.packets import (
    Event,
    JobCreated,
    PacketEvent,
    SubmitJob,
    SubmitJobHigh,
    SubmitJobLow,
    WorkComplete,
    WorkFail,
)

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.session import Session

# Linux limits an argument of a command to 128 KiB.
_LARGE = 100_000
_LONGEST_UNIQUE = 63
_ONCE = "SUBMIT_JOB: issued when a job needs to be run"
_SIZE = "size: of the data being sent after the header"


@client_case("submit/bytes/1", MUST, 'SUBMIT_JOB: "Opaque data that is given to the function"')
def text(it: ClientKit) -> None:
    """A client sends the function name and the payload unchanged, byte for byte."""
    payload = 'a "b" \\c\\n\td\r\n {e} %s $f é ☃ '.encode()
    _, submit = it.submitted(payload)
    demand(submit.function == it.function, f"the function {it.function!r}", submit.function)
    demand(submit.data == payload, f"the payload {payload!r}", submit.data)


@client_case("submit/bytes/2", INFO, known={"as they are": (), "changed": ()})
def not_text(it: ClientKit) -> str:
    """Treatment of a payload on the command line that is not valid UTF-8.

    Source: SUBMIT_JOB: "Opaque data"; many languages decode command-line arguments to text
    """
    payload = bytes(range(1, 256))
    _, submit = it.submitted(payload)
    return "as they are" if submit.data == payload else "changed"


@client_case("submit/empty/1", SHOULD, known={"refused": ()})
def empty(it: ClientKit) -> str | None:
    """A client submits an empty payload.

    Source: SUBMIT_JOB: "Opaque data": gearmand 1.1 and 2.0 accept an empty payload, libgearman
    refuses it
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
    """A client sends a payload of 100000 bytes unchanged."""
    payload = (b"0123456789" * _LARGE)[:_LARGE]
    _, submit = it.submitted(payload)
    got = f"a different payload of {len(submit.data)} bytes"
    demand(submit.data == payload, f"the payload of {_LARGE} bytes", got)


@client_case("submit/unique/1", MUST)
def unique(it: ClientKit) -> None:
    """A unique is at most 63 bytes long.

    Source: not in the document: gearmand 1.1 and 2.0 refuse 65 bytes, and 64 bytes corrupt the
    payload
    """
    _, submit = it.submitted()
    wanted = f"at most {_LONGEST_UNIQUE} bytes"
    demand(len(submit.unique) <= _LONGEST_UNIQUE, wanted, f"{len(submit.unique)} bytes")


@client_case("submit/unique/2", INFO, known={"none": (), "by payload": (), "of its own": ()})
def unique_kind(it: ClientKit) -> str:
    """Default unique of a job.

    Source: SUBMIT_JOB: "The unique ID can be used by the server to reduce queue length"
    """
    _, submit = it.submitted()
    return {b"": "none", b"-": "by payload"}.get(submit.unique, "of its own")


@client_case("submit/unique/3", MUST, requires=("several",))
def uniques(it: ClientKit) -> None:
    """Jobs with different payloads have different uniques, so they are not coalesced.

    Source: SUBMIT_JOB: "the server may attach this request to the already existing job"
    """
    client, _ = it.several(b"first", b"second", b"third")
    found = [each.unique for each in client.events if isinstance(each, SUBMITS)]
    found = [each for each in found if each not in (b"", b"-")]
    demand(len(found) == len(set(found)), "a unique each", found)


@client_case("submit/unique/4", MUST, requires=("several",))
def similar(it: ClientKit) -> None:
    """Jobs whose payloads are alike, but not equal, have different uniques.

    Source: SUBMIT_JOB: "the server may attach this request to the already existing job"
    """
    base = content(2000)
    payloads = [base[:size] + end for size in (0, 7, 63, 64, 255, 2000) for end in (b"a", b"b")]
    payloads += [b"a" + base, b"b" + base, base + base, base[::-1], b"ab", b"ba", b"A", b"a "]
    payloads += [base[:1000] + letter + base[1000:] for letter in (b"x", b"y")]
    numbers = count(1)
    client, _ = it.several(*payloads, handle=lambda _: b"H:conformance:%d" % next(numbers))
    found = [each.unique for each in client.events if isinstance(each, SUBMITS)]
    found = [each for each in found if each not in (b"", b"-")]
    demand(len(found) == len(set(found)), "a unique each", f"{len(set(found))} of {len(found)}")


@client_case("submit/size/1", MUST, _SIZE, requires=("several",))
def near_powers(it: ClientKit) -> None:
    """Payloads of several jobs can have any length near a power of two, up to 64 KiB."""
    numbers = count(1)
    it.several(
        *map(content, around_powers(range(9, 17))),
        handle=lambda _: b"H:conformance:%d" % next(numbers),
    )


@client_case("submit/large/2", MUST, _SIZE)
def exactly_64k(it: ClientKit) -> None:
    """A client sends a payload of 2^16 bytes unchanged."""
    _, submit = it.submitted(content(1 << 16))
    demand(submit.data == content(1 << 16), "the payload", f"another of {len(submit.data)} bytes")


@client_case("submit/large/3", MUST, _SIZE)
def longest(it: ClientKit) -> None:
    """A client sends a payload of 2^17 - 1 bytes unchanged."""
    size = (1 << 17) - 1
    _, submit = it.submitted(content(size))
    demand(submit.data == content(size), "the payload", f"another of {len(submit.data)} bytes")


@client_case("submit/foreground/1", MUST, "SUBMIT_JOB_BG: the client is not notified when it ends")
def foreground(it: ClientKit) -> None:
    """A client that waits for the result submits a foreground job of any priority."""
    _, submit = it.submitted()
    kinds = (SubmitJob, SubmitJobHigh, SubmitJobLow)
    demand(isinstance(submit, kinds), "a foreground submit", submit)


@client_case("submit/once/1", MUST, "SUBMIT_JOB: issued when a job needs to be run")
def once(it: ClientKit) -> None:
    """A client submits a job only once if no error occurs."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints(b"result")
    more: list[Event] = []
    client.rest_of(more.append)
    demand(not any(isinstance(each, SUBMITS) for each in more), "no other submit", more)


@client_case("submit/once/2", MUST, _ONCE, known={"gives up": ()}, slow=True)
def once_late(it: ClientKit) -> str | None:
    """A client does not submit a job again if JOB_CREATED arrives after two seconds."""
    client, _ = it.submitted()
    return _is_patient(it, client, JobCreated(HANDLE), WorkComplete(HANDLE, b"result"))


@client_case("submit/once/3", MUST, _ONCE, known={"gives up": ()}, slow=True)
def once_slow(it: ClientKit) -> str | None:
    """A client does not submit a job again if its result arrives after two seconds."""
    return _is_patient(it, it.accepted(), WorkComplete(HANDLE, b"result"))


def _is_patient(it: ClientKit, client: Session, *answers: Event) -> str | None:
    """Answer after two seconds, and check that the client has not submitted its job again."""
    if it.ended(2.0) is not None:
        it.fails()
        return "gives up"
    client.send(*answers)
    it.prints(b"result")
    _is_submitted_once(it, client)
    return None


def _is_submitted_once(it: ClientKit, client: Session) -> None:
    """Check that the client sends no other submit, on this connection or another one."""
    client.rest_of()
    other = it.again()
    if other is not None:
        other.rest_of()
    events = [*client.events, *(other.events if other is not None else ())]
    submits = [each for each in events if isinstance(each, SUBMITS)]
    demand(len(submits) == 1, "one submit", submits)


@client_case("submit/once/4", SHOULD, _ONCE)
def once_failed(it: ClientKit) -> None:
    """A client does not submit a failed job again by itself."""
    client = it.accepted()
    client.send(WorkFail(HANDLE))
    it.fails()
    _is_submitted_once(it, client)


@client_case("submit/binary/1", MUST, '"All communication between workers or clients" is binary')
def binary(it: ClientKit) -> None:
    """A client sends only request packets."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints(b"result")
    client.rest_of()
    odd = [each for each in client.events if not isinstance(each, PacketEvent)]
    demand(not odd, "packets", odd)
