"""Cases about jobs that fail."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case, content
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    Error,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)


@client_case("fail/plain/1", MUST, 'WORK_FAIL: notifies the clients "that the job failed"')
def plain(it: ClientKit) -> None:
    """A job that ends with WORK_FAIL has failed."""
    it.accepted().send(WorkFail(HANDLE))
    it.fails()


@client_case("fail/data/1", MUST, 'WORK_FAIL: notifies the clients "that the job failed"')
def after_data(it: ClientKit) -> None:
    """A job that ends with WORK_FAIL has failed, even after WORK_DATA."""
    it.accepted().send(WorkData(HANDLE, b"part"), WorkFail(HANDLE))
    it.fails()


@client_case("fail/nul/1", MUST)
def with_nul(it: ClientKit) -> None:
    """WORK_FAIL with a NUL after the handle ends the job as well.

    Source: not in the document: gearmand 1.1 and 2.0 send it in place of WORK_EXCEPTION to clients
    without the option `exceptions`
    """
    client = it.accepted()
    client.send_anyway(WorkFail(HANDLE + b"\0"))
    it.fails()


@client_case("fail/magic/1", SHOULD)
def with_magic(it: ClientKit) -> None:
    """A client stops waiting if WORK_FAIL has the magic code of a request.

    Source: not in the document: gear 0.16 sends it if a worker disconnects during a job
    """
    client = it.accepted()
    fail = client.packed(WorkFail(HANDLE))
    client.send_raw(fail.replace(MAGIC_RESPONSE, MAGIC_REQUEST))
    it.fails()


@client_case("fail/exception/1", MUST, 'WORK_EXCEPTION: "the job failed with the given exception"')
def exception(it: ClientKit) -> None:
    """A job that ends with WORK_EXCEPTION has failed, even without a WORK_FAIL."""
    it.accepted().send(WorkException(HANDLE, b"exception"))
    it.fails()


@client_case("fail/exception/2", MUST)
def both(it: ClientKit) -> None:
    """A job that ends with WORK_EXCEPTION and then WORK_FAIL has failed.

    Source: not in the document: the Perl server forwards both if its worker sends both
    """
    it.accepted().send(WorkException(HANDLE, b"exception"), WorkFail(HANDLE))
    it.fails()


@client_case("fail/exception/4", MUST, 'WORK_EXCEPTION: "the job failed with the given exception"')
def without_data(it: ClientKit) -> None:
    """A job that ends with WORK_EXCEPTION without data has failed."""
    it.accepted().send(WorkException(HANDLE, b""))
    it.fails()


@client_case("fail/exception/6", MUST, 'WORK_EXCEPTION: "the job failed with the given exception"')
def large_exception(it: ClientKit) -> None:
    """A job that ends with a large WORK_EXCEPTION has failed."""
    it.accepted().send(WorkException(HANDLE, content(100_000)))
    it.fails()


@client_case("fail/exception/5", MUST, 'WORK_EXCEPTION: "the job failed with the given exception"')
def exception_after_data(it: ClientKit) -> None:
    """A job that ends with WORK_EXCEPTION has failed, even after WORK_DATA and a full status."""
    updates = (WorkData(HANDLE, b"part"), WorkStatus(HANDLE, b"1", b"1"))
    it.accepted().send(*updates, WorkException(HANDLE, b"exception"))
    it.fails()


@client_case("fail/data/2", MUST, 'WORK_FAIL: notifies the clients "that the job failed"')
def after_full_status(it: ClientKit) -> None:
    """A job that ends with WORK_FAIL has failed, even after a full status and a warning."""
    updates = (WorkStatus(HANDLE, b"2", b"2"), WorkWarning(HANDLE, b"warning"))
    it.accepted().send(*updates, WorkFail(HANDLE))
    it.fails()


@client_case(
    "fail/exception/3",
    INFO,
    known={"on standard error": (), "on standard output": (), "nowhere": ()},
)
def told(it: ClientKit) -> str:
    """The stream that receives the text of an exception.

    Source: WORK_EXCEPTION: "Opaque data that is returned to the client as an exception"
    """
    it.accepted().send(WorkException(HANDLE, b"conformance-exception"))
    it.ended()
    if b"conformance-exception" in it.errors:
        return "on standard error"
    printed = b"conformance-exception" in it.program.output
    return "on standard output" if printed else "nowhere"


@client_case("fail/error/1", MUST, 'ERROR: "whenever the server encounters an error"')
def error(it: ClientKit) -> None:
    """A job has failed if the server answers its submit with ERROR."""
    client, _ = it.submitted()
    client.send(Error(b"QUEUE_ERROR", b"Job queue is full"))
    it.fails()


@client_case("fail/error/2", MUST, 'ERROR: "NULL byte terminated error code string"')
def unknown_error(it: ClientKit) -> None:
    """A job has failed even if the ERROR has an unknown code and no text."""
    client, _ = it.submitted()
    client.send(Error(b"conformance_error", b""))
    it.fails()
