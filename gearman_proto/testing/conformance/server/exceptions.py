"""Cases about WORK_EXCEPTION, and the option that enables it."""

from __future__ import annotations

from typing import Final

from gearman_proto.testing.conformance.case import GEARMANDS, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import Line, ServerKit, case
from gearman_proto.wire.packets import (
    Error,
    OptionReq,
    OptionRes,
    SubmitJobBg,
    WorkComplete,
    WorkException,
    WorkFail,
    WorkStatus,
)

_OPTION: Final = 'OPTION_REQ: "Forward WORK_EXCEPTION packets to the client"'
_ANSWER: Final = 'OPTION_REQ: "Returns a OPTION_RES packet on success, or an ERROR packet"'
_LISTENING: Final = 'WORK_EXCEPTION: "notify the server (and any listening clients)"'
_ENDS: Final = "not in the document: for gearmand 1.1 and 2.0, WORK_EXCEPTION ends the job"
_NUL: Final = "WORK_FAIL with a NUL after the handle"
_SILENCE: Final = "nothing, until the worker sends WORK_FAIL"
_NEEDS: Final = ("options",)


def _thrown(worker: Line, data: bytes = b"exception") -> bytes:
    """Grab a job, send WORK_EXCEPTION for it, and return its handle."""
    handle = worker.grab().handle
    worker.send(WorkException(handle, data))
    worker.heard()
    return handle


def _fails_too(worker: Line, handle: bytes) -> None:
    """Send WORK_FAIL, because WORK_EXCEPTION does not end a job on some servers."""
    worker.send(WorkFail(handle))
    worker.heard()


def _failed(client: Line, worker: Line, handle: bytes) -> str | None:
    """Check that the server reports a failed job to a client without the option.

    Return the name of a known deviation, or None if the client receives a plain WORK_FAIL.
    """
    got = client.settle()
    if not got:
        worker.send(WorkFail(handle))
        client.expect(WorkFail, handle=handle)
        return _SILENCE
    demand(got in ([WorkFail(handle)], [WorkFail(handle, b"")]), f"{WorkFail(handle)}", got)
    return None if got == [WorkFail(handle)] else _NUL


@case("exception/forward/1", MUST, _OPTION, requires=_NEEDS)
def forwarded(it: ServerKit) -> None:
    """A client with the option `exceptions` receives WORK_EXCEPTION with the same bytes."""
    client, worker = it.client(exceptions=True), it.worker()
    for data in (b"exception", b"", b"a\0b\0"):
        handle = client.submit()
        _thrown(worker, data)
        client.expect(WorkException, handle=handle, data=data)
        _fails_too(worker, handle)
        client.settle()


@case("exception/forward/2", SHOULD, _OPTION, requires=_NEEDS)
def late_option(it: ServerKit) -> None:
    """The option also applies to jobs that the client submitted before the OPTION_REQ."""
    client, worker, handle = it.queued()
    client.send(OptionReq(b"exceptions"))
    client.expect(OptionRes)
    _thrown(worker)
    client.expect(WorkException, handle=handle, data=b"exception")
    _fails_too(worker, handle)


@case("exception/fail/1", MUST, known={_NUL: GEARMANDS, _SILENCE: ("perl",)}, requires=_NEEDS)
def not_asked_for(it: ServerKit) -> str | None:
    """For a WORK_EXCEPTION, a client without the option receives WORK_FAIL with only the handle.

    Source: not in the document: gearmand 1.1 and 2.0 send WORK_FAIL
    """
    client, worker, handle = it.queued()
    _thrown(worker)
    told = _failed(client, worker, handle)
    client.nothing()
    return told


@case(
    "exception/fail/2",
    SHOULD,
    _LISTENING,
    known={_NUL: GEARMANDS, _SILENCE: ("perl",)},
    requires=("options", "coalescing"),
)
def mixed_clients(it: ServerKit) -> str | None:
    """Clients of one job receive WORK_EXCEPTION with the option, and WORK_FAIL without it."""
    client, other, worker = it.client(exceptions=True), it.client(), it.worker()
    for each in (client, other):
        each.submit(unique=it.another("unique"))
    handle = _thrown(worker)
    client.expect(WorkException, handle=handle, data=b"exception")
    return _failed(other, worker, handle)


@case("exception/end/1", INFO, _ENDS, known={"it has ended": GEARMANDS, "it goes on": ("perl",)})
def end(it: ServerKit) -> str:
    """State of a job after its worker has sent WORK_EXCEPTION."""
    client, worker, _ = it.queued(SubmitJobBg)
    handle = _thrown(worker)
    known = client.status(handle).known != b"0"
    _fails_too(worker, handle)
    return "it goes on" if known else "it has ended"


@case("exception/end/2", INFO, _ENDS, known={"ERROR": GEARMANDS, "nothing": ("perl",)})
def fail_after_exception(it: ServerKit) -> str:
    """Reaction to a WORK_FAIL that follows WORK_EXCEPTION, as Perl's workers send it."""
    _, worker, _ = it.queued(SubmitJobBg)
    handle = _thrown(worker)
    worker.send(WorkFail(handle))
    return "ERROR" if worker.heard() else "nothing"


@case(
    "exception/end/3",
    INFO,
    _ENDS,
    known={"WORK_EXCEPTION": GEARMANDS, "both": ("perl",)},
    requires=_NEEDS,
)
def both(it: ServerKit) -> str:
    """Packets to a client with the option after WORK_EXCEPTION and WORK_FAIL from the worker."""
    client, worker = it.client(exceptions=True), it.worker()
    handle = client.submit()
    _thrown(worker)
    _fails_too(worker, handle)
    client.expect(WorkException, handle=handle)
    got = client.settle()
    demand(got in ([], [WorkFail(handle)]), "nothing, or WORK_FAIL", got)
    return "both" if got else "WORK_EXCEPTION"


@case(
    "exception/end/4",
    INFO,
    _ENDS,
    known={"ERROR": GEARMANDS, "nothing": (), "they reach the client": ("perl",)},
    requires=_NEEDS,
)
def updates_after_exception(it: ServerKit) -> str:
    """Reaction to updates of a job whose worker has sent WORK_EXCEPTION."""
    client, worker = it.client(exceptions=True), it.worker()
    client.submit()
    handle = _thrown(worker)
    client.expect(WorkException, handle=handle)
    worker.send(WorkStatus(handle, b"1", b"2"))
    answer, got = worker.heard(), client.settle()
    _fails_too(worker, handle)
    demand(got in ([], [WorkStatus(handle, b"1", b"2")]), "nothing, or the update", got)
    return "they reach the client" if got else "ERROR" if answer else "nothing"


@case("option/exceptions/1", MUST, _ANSWER, requires=_NEEDS)
def granted(it: ServerKit) -> None:
    """A server answers OPTION_REQ for `exceptions` with OPTION_RES and the same name."""
    for line in (it.client(), it.worker()):
        for _ in range(2):
            line.send(OptionReq(b"exceptions"))
            line.expect(OptionRes, option=b"exceptions")
        line.nothing()


@case("option/exceptions/2", MUST, _OPTION, requires=_NEEDS)
def usual_ends(it: ServerKit) -> None:
    """The option changes neither WORK_COMPLETE nor WORK_FAIL."""
    client, worker = it.client(exceptions=True), it.worker()
    handle = client.submit()
    worker.run()
    client.expect(WorkComplete, handle=handle, data=b"result")
    handle = client.submit()
    worker.send(WorkFail(worker.grab().handle))
    client.expect(WorkFail, handle=handle, reason=None)
    client.nothing()


@case("option/unknown/1", MUST, _ANSWER, requires=_NEEDS)
def unknown(it: ServerKit) -> None:
    """OPTION_REQ for an unknown option is answered with ERROR, and the connection stays open."""
    client = it.client()
    for option in (b"conformance", b"", b"exceptions2"):
        client.send(OptionReq(option))
        client.expect(Error)
    client.nothing()


@case("option/case/1", INFO, known={"granted": GEARMANDS, "refused": ("perl",)}, requires=_NEEDS)
def case_of_letters(it: ServerKit) -> str:
    """Reaction to OPTION_REQ with the option's name in capitals.

    Source: not in the document: gearmand 1.1 and 2.0 grant it
    """
    client = it.client()
    client.send(OptionReq(b"EXCEPTIONS"))
    return "granted" if isinstance(client.next(), OptionRes) else "refused"


@case("option/nul/1", INFO, known={"granted": GEARMANDS, "refused": ("perl",)}, requires=_NEEDS)
def nul(it: ServerKit) -> str:
    """Reaction to OPTION_REQ with a NUL after the option's name.

    Source: not in the document: gearmand 1.1 and 2.0 grant it
    """
    client, worker = it.client(), it.worker()
    client.send_anyway(OptionReq(b"exceptions\0"))
    reaction = client.reaction()
    client.submit()
    handle = _thrown(worker)
    if reaction == "OPTION_RES":
        client.expect(WorkException, handle=handle, data=b"exception")
    _fails_too(worker, handle)
    return "granted" if reaction == "OPTION_RES" else "refused"
