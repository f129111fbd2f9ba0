"""Cases about the payloads of jobs, and packets that arrive in pieces."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import MUST, SHOULD
from gearman_proto.testing.conformance.kit import around_powers
from gearman_proto.testing.conformance.program_kit import WorkerKit, content, worker_case
from gearman_proto.wire.packets import NoJob, Noop, WorkComplete

_DATA = 'JOB_ASSIGN: "Opaque data that is given to the function as an argument"'
_HEADER = 'Binary Packet: "the size of the data being sent after the header"'


@worker_case("payload/empty/1", MUST, _DATA)
def empty(it: WorkerKit) -> None:
    """A worker runs a job with an empty payload."""
    worker = it.ready()
    worker.serve(b"")
    worker.serve(b"data")


@worker_case("payload/bytes/1", MUST, _DATA)
def everything(it: WorkerKit) -> None:
    """A payload can contain any bytes, such as NULs or a complete packet."""
    worker = it.ready()
    for data in (b"\0", b"a\0b\0", bytes(range(256)), b"\0RES\0\0\0\6\0\0\0\0", b"\r\n.\r\n"):
        worker.serve(data)


@worker_case("payload/large/1", MUST, _HEADER)
def large(it: WorkerKit) -> None:
    """A payload can be a megabyte long."""
    worker = it.ready()
    worker.serve(b"0123456789abcdef" * 65536)
    worker.serve()


@worker_case("payload/unique/1", MUST, 'JOB_ASSIGN_UNIQ: "with the client assigned unique ID"')
def unique(it: WorkerKit) -> None:
    """A worker that asks for uniques accepts empty, binary and maximum-length ones."""
    worker = it.ready()
    for text in (b"", b"-", b"u" * 63, b"a b\t%\xff"):
        job = worker.job_for(worker.grabs(), b"data", unique=text)
        worker.send(job)
        worker.end_of(job.handle)


@worker_case("payload/split/1", MUST, _HEADER)
def split(it: WorkerKit) -> None:
    """A worker accepts a job that arrives byte by byte."""
    worker = it.ready()
    worker.piece = 1
    worker.serve(b"a\0b")
    worker.serve(b"data")


@worker_case("payload/split/2", MUST, _HEADER)
def halves(it: WorkerKit) -> None:
    """Packets can be split anywhere, and a piece can contain parts of two packets."""
    worker = it.ready()
    worker.piece = 17
    for size in range(1, 20):
        job = worker.job_for(worker.grabs(), b"d" * size)
        worker.send(Noop(), job, Noop())
        worker.end_of(job.handle)


@worker_case("payload/joined/1", MUST, _HEADER)
def joined(it: WorkerKit) -> None:
    """A worker accepts a NOOP, a job and another NOOP at once."""
    worker = it.ready()
    job = worker.job_for(worker.grabs(), b"data")
    worker.send(Noop(), job, Noop())
    worker.end_of(job.handle)
    worker.serve()


@worker_case("payload/split/3", MUST, _HEADER)
def large_pieces(it: WorkerKit) -> None:
    """A worker accepts a large payload in many pieces, and returns the whole result."""
    it.run_all(it.ready(), [content(100_000, number) for number in range(3)], piece=997)


@worker_case("payload/size/1", MUST, _HEADER)
def lengths(it: WorkerKit) -> None:
    """A payload and its result can have any length near a power of two, from 4 KiB to 64 KiB."""
    it.run_all(it.ready(), map(content, around_powers(range(12, 17))))


@worker_case("payload/size/2", MUST, _HEADER)
def packet_lengths(it: WorkerKit) -> None:
    """A job or its result can have any packet length near a power of two, up to 64 KiB."""
    worker = it.ready()
    given = worker.job_for(worker.grabs(), b"")
    less = {len(worker.packed(given)), len(worker.packed(WorkComplete(given.handle, b"")))}
    worker.send(NoJob())
    sizes = [size - each for size in around_powers(range(9, 17)) for each in less]
    it.run_all(worker, map(content, sizes))


@worker_case("payload/size/3", MUST, _HEADER)
def large_lengths(it: WorkerKit) -> None:
    """A payload and its result can have any length near a power of two, up to 2 MiB."""
    it.run_all(it.ready(), map(content, around_powers(range(17, 22))))


@worker_case("payload/size/4", MUST, _HEADER, slow=True)
def largest(it: WorkerKit) -> None:
    """A payload and its result can be 16 MiB long."""
    it.run_all(it.ready(), [content(1 << 24), b"data"], piece=1 << 16)


@worker_case("payload/nul/1", SHOULD, 'WORK_COMPLETE: "Opaque data that is returned"')
def nuls(it: WorkerKit) -> None:
    """A worker that returns its payload returns NULs and line breaks as well."""
    worker = it.ready()
    it.learned(worker)
    it.run_all(worker, [b"a\0b\0\0c", b"\0a", b"a\0", b"a\r\nb\n\rc", b"a\x1ab"])
