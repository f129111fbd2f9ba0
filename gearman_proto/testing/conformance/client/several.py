"""Cases about several jobs on one connection."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD, Failed
from gearman_proto.testing.conformance.kit import around_powers
from gearman_proto.testing.conformance.program_kit import (
    HANDLE,
    ClientKit,
    client_case,
    content,
)
from gearman_proto.wire.packets import (
    Error,
    JobCreated,
    WorkComplete,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

_SEVERAL = ("several",)


def _handle(payload: bytes) -> bytes:
    """Return the handle of the job with this payload."""
    return b"H:conformance:" + payload


def _the_same(_: bytes) -> bytes:
    """Return the same handle for each payload, as if the jobs were coalesced."""
    return HANDLE


def _complete(payload: bytes) -> WorkComplete:
    return WorkComplete(_handle(payload), b"result " + payload)


@client_case("order/backwards/1", MUST, requires=_SEVERAL)
def backwards(it: ClientKit) -> None:
    """Jobs can end in any order, and each gets its own result.

    Source: JOB_ASSIGN: "All communication about the job" uses the handle
    """
    client, came = it.several(b"1", b"2", b"3")
    client.send(*[_complete(each) for each in reversed(came)])
    it.prints(b"result 1", b"result 2", b"result 3")


@client_case("order/early/1", MUST, requires=_SEVERAL)
def early(it: ClientKit) -> None:
    """A job can end before the next one on the connection is acknowledged.

    Source: not in the document: gearmand 1.1 and 2.0 can send a job's end before they answer the
    next submit
    """
    it.start(b"1", b"2", b"3")
    client = it.accept()
    for _ in range(3):
        payload = client.submitted().data
        client.send(JobCreated(_handle(payload)), _complete(payload))
    it.prints(b"result 1", b"result 2", b"result 3")


@client_case("order/error/1", MUST, known={"gives up at once": ()}, requires=_SEVERAL)
def error(it: ClientKit) -> str | None:
    """An ERROR between two JOB_CREATED answers the submit between them.

    Source: not in the document: gearmand 1.1 and 2.0 send ERROR in the order of the submits
    """
    it.start(b"1", b"2", b"3")
    client = it.accept()
    first = client.submitted().data
    client.send(JobCreated(_handle(first)))
    client.submitted()
    client.send(Error(b"QUEUE_ERROR", b"Job queue is full"))
    try:
        third = client.submitted().data
        client.send(JobCreated(_handle(third)), _complete(third), _complete(first))
    except (Failed, ConnectionError):
        it.fails()
        return "gives up at once"
    it.fails()
    return None


@client_case("order/fail/1", MUST, requires=_SEVERAL)
def one_fails(it: ClientKit) -> None:
    """A client reports the failure of one of several jobs, and completes the others.

    Source: WORK_FAIL: notifies the clients "that the job failed"
    """
    client, came = it.several(b"1", b"2", b"3")
    client.send(_complete(came[0]), WorkFail(_handle(came[1])), _complete(came[2]))
    it.fails()


@client_case("order/fail/2", MUST, requires=_SEVERAL)
def first_fails(it: ClientKit) -> None:
    """A client reports the failure of the first of several jobs, even if the last succeeds.

    Source: WORK_FAIL: notifies the clients "that the job failed"
    """
    client, came = it.several(b"1", b"2", b"3")
    client.send(WorkFail(_handle(came[0])), _complete(came[1]), _complete(came[2]))
    it.fails()


@client_case("order/fail/3", MUST, requires=_SEVERAL)
def last_fails(it: ClientKit) -> None:
    """A client reports the failure of the last of several jobs, even if the others succeed.

    Source: WORK_FAIL: notifies the clients "that the job failed"
    """
    client, came = it.several(b"1", b"2", b"3")
    client.send(_complete(came[0]), _complete(came[1]), WorkFail(_handle(came[2])))
    it.fails()


@client_case(
    "order/many/1", MUST, "SUBMIT_JOB: no limit on the jobs of a client", requires=_SEVERAL
)
def many(it: ClientKit) -> None:
    """Of 200 jobs at once, each gets its own result, in whatever order they end."""
    payloads = [b"%03d" % number for number in range(200)]
    client, came = it.several(*payloads)
    client.send(*[_complete(each) for each in [*came[1::2], *reversed(came[::2])]])
    it.prints(*[b"result " + each for each in payloads])


@client_case("order/large/1", MUST, "WORK_COMPLETE: by job handle", requires=_SEVERAL)
def large(it: ClientKit) -> None:
    """Large results of several jobs belong to their own jobs, in whatever order they end."""
    client, came = it.several(b"1", b"2", b"3")
    for each in (came[1], came[2], came[0]):
        client.send(WorkComplete(_handle(each), content(100_000, each)))
    it.prints(*[content(100_000, each) for each in (b"1", b"2", b"3")])


@client_case("order/size/1", MUST, "WORK_COMPLETE: by job handle", requires=_SEVERAL)
def near_powers(it: ClientKit) -> None:
    """Results of several jobs can have any length near a power of two, up to 64 KiB."""
    overheads = (0, len(_complete(b"00").handle) + 13)
    _results_of(it, [size - less for size in around_powers(range(9, 17)) for less in overheads])


@client_case("order/size/2", MUST, "WORK_COMPLETE: by job handle", requires=_SEVERAL)
def near_large_powers(it: ClientKit) -> None:
    """Results of several jobs can have any length near a power of two, up to 1 MiB."""
    _results_of(it, around_powers(range(17, 21)))


def _results_of(it: ClientKit, lengths: list[int]) -> None:
    """Check that several jobs at once get results of these lengths."""
    results = {b"%02d" % number: content(size) for number, size in enumerate(lengths)}
    client, came = it.several(*results)
    for each in reversed(came):
        client.send(WorkComplete(_handle(each), results[each]))
    it.prints(*results.values())


@client_case("order/alike/1", MUST, requires=_SEVERAL)
def longer_first(it: ClientKit) -> None:
    """If a handle is a prefix of another, the job of the longer one can end first.

    Source: not in the document: gearmand's handles end with a number, and 1 is a prefix of 10
    """
    client, _ = it.several(b"1", b"10")
    client.send(_complete(b"10"), _complete(b"1"))
    it.prints(b"result 1", b"result 10")


@client_case("order/alike/2", MUST, requires=_SEVERAL)
def shorter_first(it: ClientKit) -> None:
    """If a handle is a prefix of another, the job of the shorter one can end first.

    Source: not in the document: gearmand's handles end with a number, and 1 is a prefix of 10
    """
    client, _ = it.several(b"10", b"1")
    client.send(_complete(b"1"), _complete(b"10"))
    it.prints(b"result 10", b"result 1")


@client_case("order/same/1", MUST, requires=_SEVERAL)
def joined(it: ClientKit) -> None:
    """If two submits get the same handle, the client accepts an end for each of them.

    Source: SUBMIT_JOB: "may attach this request to the already existing job"; gearmand sends
    each packet twice
    """
    client, _ = it.several(b"same", b"same", handle=_the_same)
    client.send(*[WorkComplete(HANDLE, b"result")] * 2)
    it.prints(b"result", b"result")


@client_case("order/same/2", MUST, requires=_SEVERAL)
def joined_late(it: ClientKit) -> None:
    """Updates of a job can arrive before a second submit gets the same handle.

    Source: SUBMIT_JOB: "This includes jobs already in progress", which send updates meanwhile
    """
    it.start(b"same", b"same")
    client, status = it.accept(), WorkStatus(HANDLE, b"1", b"2")
    for _ in range(2):
        client.submitted()
        client.send(JobCreated(HANDLE), status)
    client.send(status, *[WorkComplete(HANDLE, b"result")] * 2)
    it.prints_also(b"result", b"result")


@client_case(
    "order/same/3",
    INFO,
    known={"both end": (), "one waits": (), "it gives up": ()},
    requires=_SEVERAL,
)
def joined_once(it: ClientKit) -> str:
    """Reaction to a single end for two submits that have the same handle.

    Source: not in the document: other servers than gearmand can send one end per connection
    """
    client, _ = it.several(b"same", b"same", handle=_the_same)
    client.send(WorkComplete(HANDLE, b"result"))
    status = it.ended()
    if status == 0:
        it.prints(b"result", b"result")
        return "both end"
    return "one waits" if status is None else "it gives up"


@client_case("order/mixed/1", MUST, "WORK_STATUS, WORK_WARNING: by job handle", requires=_SEVERAL)
def updates(it: ClientKit) -> None:
    """Updates of several jobs can arrive in any order, and do not change the results."""
    client, came = it.several(b"1", b"2", b"3")
    for each in (*came, *reversed(came)):
        client.send(WorkStatus(_handle(each), b"1", b"2"), WorkWarning(_handle(each), b"warning"))
    client.send(*[_complete(each) for each in came])
    it.prints_also(b"result 1", b"result 2", b"result 3")


@client_case("order/twice/1", MUST)
def fails_first(it: ClientKit) -> None:
    """A job has failed if WORK_FAIL is its first end, even if WORK_COMPLETE follows.

    Source: not in the document: gearmand 1.1 and 2.0 send a second end after `cancel job`
    """
    it.accepted().send(WorkFail(HANDLE), WorkComplete(HANDLE, b"result"))
    it.fails()


@client_case("order/twice/2", MUST, requires=_SEVERAL)
def ends_twice(it: ClientKit) -> None:
    """If a job ends twice, the first end counts, and the second affects no other job.

    Source: not in the document: gearmand 1.1 and 2.0 do so if a connection submits the job twice
    """
    client, came = it.several(b"1", b"2")
    client.send(_complete(came[0]), WorkComplete(_handle(came[0]), b"other"), _complete(came[1]))
    it.prints(b"result 1", b"result 2")


@client_case("order/foreign/1", SHOULD)
def foreign(it: ClientKit) -> None:
    """A client ignores packets with an unknown handle.

    Source: not in the document: servers can still send packets about an abandoned job
    """
    client = it.accepted()
    client.send(WorkStatus(_handle(b"2"), b"1", b"2"), _complete(b"3"), WorkFail(_handle(b"4")))
    client.send(WorkComplete(HANDLE, b"result"))
    it.prints(b"result")
