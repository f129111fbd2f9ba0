"""Cases about the status of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.testing.packing import pack
from gearman_proto.wire.packets import (
    BY_NAME,
    HEADER_SIZE,
    MAGIC_REQUEST,
    GetStatus,
    SubmitJobBg,
    WorkComplete,
    WorkFail,
    WorkStatus,
    number,
)

if TYPE_CHECKING:
    from gearman_proto.wire.packets import StatusRes, StatusResUnique

_KNOWN: Final = 'STATUS_RES: "known status, this is 0 (false) or 1 (true)"'
_STORED: Final = 'WORK_STATUS: "The job server should store this information"'
_UNIQUE: Final = 'GET_STATUS_UNIQUE: "get status information for a submitted job"'
_UNIQUE_NEEDS: Final = ("unique-status",)

_UNKNOWN: Final = (b"0", b"0", 0, 0)
_QUEUED: Final = (b"1", b"0", 0, 0)


def _demand_status(status: StatusRes | StatusResUnique, *wanted: object) -> None:
    """Check the fields of a status. An unknown number can be 0 or empty."""
    numbers = number(status.numerator), number(status.denominator)
    demand((status.known, status.running, *numbers) == wanted, f"{wanted}", status)


@case("status/handle/1", MUST, _KNOWN)
def unknown(it: ServerKit) -> None:
    """STATUS_RES reports a handle that the server never assigned as unknown."""
    _demand_status(it.client().status(b"H:conformance:status"), *_UNKNOWN)


@case("status/handle/2", MUST, _KNOWN)
def queued(it: ServerKit) -> None:
    """STATUS_RES reports a queued job as known and not running, to any client."""
    client, other = it.client(), it.client()
    handle = client.submit(kind=SubmitJobBg)
    for each in (client, other):
        _demand_status(each.status(handle), *_QUEUED)
    it.worker().run()


@case("status/handle/3", MUST, _KNOWN)
def running(it: ServerKit) -> None:
    """STATUS_RES reports a job that a worker holds as known and running."""
    client, worker, handle = it.running(SubmitJobBg)
    _demand_status(client.status(handle), b"1", b"1", 0, 0)
    worker.complete(handle)


@case("status/handle/4", SHOULD, _STORED)
def progress(it: ServerKit) -> None:
    """STATUS_RES reports the latest WORK_STATUS of a running job."""
    client, worker, handle = it.running(SubmitJobBg)
    for numerator in (b"1", b"25"):
        worker.tell(WorkStatus(handle, numerator, b"100"))
        _demand_status(client.status(handle), b"1", b"1", int(numerator), 100)
    worker.complete(handle)


@case("status/handle/5", MUST, 'STATUS_RES: "to see if the job has been completed"')
def ended(it: ServerKit) -> None:
    """STATUS_RES reports a completed job as unknown."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.tell(WorkStatus(handle, b"1", b"2"), WorkComplete(handle, b"result"))
    _demand_status(client.status(handle), *_UNKNOWN)


@case("status/handle/6", SHOULD, known={"the job is not run again": ("perl",)})
def lost(it: ServerKit) -> str | None:
    """If a worker disconnects, its job is queued again, without progress.

    Source: not in the document: gearmand 1.1 and 2.0 requeue the job and reset its progress
    """
    client, worker, handle = it.running(SubmitJobBg)
    worker.tell(WorkStatus(handle, b"1", b"2"))
    worker.close()
    it.until(lambda: client.status(handle).running == b"0", "a job that is no longer running")
    if (status := client.status(handle)).known == b"0":
        return "the job is not run again"
    _demand_status(status, *_QUEUED)
    it.worker().run()
    return None


@case("status/handle/7", MUST, 'STATUS_RES: "NULL byte terminated job handle"')
def several(it: ServerKit) -> None:
    """Each STATUS_RES has the handle of its request, and the replies are in order."""
    client, worker = it.client(), it.worker()
    handles = [client.submit(kind=SubmitJobBg) for _ in range(3)]
    worker.grab()
    asked = [handles[2], b"H:conformance:status", handles[0], handles[1]]
    client.send_anyway(*[GetStatus(handle) for handle in asked])
    heads = [client.packet()[HEADER_SIZE:].rsplit(b"\0", 2)[0] for _ in asked]
    known = [(b"1", b"0"), (b"0", b"0"), (b"1", b"1"), (b"1", b"0")]
    wanted = [b"\0".join((handle, *bits)) for handle, bits in zip(asked, known, strict=True)]
    demand(heads == wanted, f"{wanted}", heads)
    worker.complete(handles[0])
    worker.run_all(2)


@case("status/handle/8", MUST, 'STATUS_RES: "to see if the job has been completed"')
def failed(it: ServerKit) -> None:
    """STATUS_RES reports a failed job as unknown."""
    client, worker, handle = it.running(SubmitJobBg)
    worker.tell(WorkFail(handle))
    _demand_status(client.status(handle), *_UNKNOWN)


@case("status/unique/1", SHOULD, _UNIQUE, requires=_UNIQUE_NEEDS)
def unknown_unique(it: ServerKit) -> None:
    """STATUS_RES_UNIQUE reports an unused unique as unknown, without waiting clients."""
    status = it.client().status_unique(it.another("nobody"))
    _demand_status(status, *_UNKNOWN)
    demand(number(status.clients) == 0, "no waiting clients", status)


@case("status/unique/2", SHOULD, _UNIQUE, requires=_UNIQUE_NEEDS)
def by_unique(it: ServerKit) -> None:
    """STATUS_RES_UNIQUE reports the state and progress of a job until the job ends."""
    unique = it.another("u")
    client, worker, handle = it.queued(SubmitJobBg, unique=unique)
    _demand_status(client.status_unique(unique), *_QUEUED)
    worker.grab()
    worker.tell(WorkStatus(handle, b"1", b"4"))
    _demand_status(client.status_unique(unique), b"1", b"1", 1, 4)
    worker.complete(handle)
    _demand_status(client.status_unique(unique), *_UNKNOWN)


@case("status/unique/3", SHOULD, requires=("unique-status", "coalescing"))
def clients(it: ServerKit) -> None:
    """STATUS_RES_UNIQUE counts only the foreground clients of a job.

    Source: STATUS_RES_UNIQUE: "Count of clients waiting"
    """
    lines, unique = [it.client() for _ in range(3)], it.another("u")
    lines[0].submit(unique=unique, kind=SubmitJobBg)
    for count, line in enumerate(lines):
        status = line.status_unique(unique)
        demand(number(status.clients) == count, f"{count} waiting clients", status)
        line.submit(unique=unique)
    it.worker().run()


@case(
    "status/unique/4",
    INFO,
    known={"the unique": GEARMANDS, "the handle": ()},
    requires=_UNIQUE_NEEDS,
)
def first_of_unique(it: ServerKit) -> str:
    """First argument of the reply to GET_STATUS_UNIQUE.

    Source: STATUS_RES_UNIQUE: "NULL byte terminated job handle"; gearmand 1.1 and 2.0 send the
    unique
    """
    client, unique = it.client(), it.another("u")
    handle = client.submit(unique=unique, kind=SubmitJobBg)
    client.send_raw(pack(BY_NAME["GET_STATUS_UNIQUE"], [unique], MAGIC_REQUEST))
    first = client.packet()[HEADER_SIZE:].split(b"\0")[0]
    it.worker().run()
    demand(first in (unique, handle), f"{unique!r} or {handle!r}", first)
    return "the unique" if first == unique else "the handle"


@case("status/numbers/1", INFO, known={"0": GEARMANDS, "empty": ("perl",), "something else": ()})
def unreported(it: ServerKit) -> str:
    """Numerator and denominator in the status of a job without progress.

    Source: not in the document: gearmand 1.1 and 2.0 send 0; Perl's server and gear send empty
    numbers
    """
    client = it.client()
    handle = client.submit(kind=SubmitJobBg)
    status = client.status(handle)
    it.worker().run()
    numbers = {(b"0", b"0"): "0", (b"", b""): "empty"}
    return numbers.get((status.numerator, status.denominator), "something else")


@case(
    "status/numbers/2",
    INFO,
    known={"4294967295": GEARMANDS, "0": (), "as it was sent": ("perl",), "something else": ()},
)
def negative(it: ServerKit) -> str:
    """Numerator in the status of a job whose worker has reported a progress of -1.

    Source: not in the document: gearmand 1.1 and 2.0 send the numerator modulo 2 to the 32nd
    """
    client, worker, handle = it.running(SubmitJobBg)
    worker.send_anyway(WorkStatus(handle, b"-1", b"100"))
    worker.settle()
    numerator = client.status(handle).numerator.decode()
    worker.complete(handle)
    kinds = {"4294967295": "4294967295", "0": "0", "-1": "as it was sent"}
    return kinds.get(numerator, "something else")
