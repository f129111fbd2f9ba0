"""Cases about the text commands of admins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.capabilities import is_unknown, knows
from gearman_proto.testing.conformance.case import (
    EVERY,
    GEARMANDS,
    INFO,
    SHOULD,
    Unsupported,
    demand,
)
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import (
    CanDo,
    CantDo,
    ResetAbilities,
    SetClientId,
    SubmitJobBg,
    SubmitJobHighBg,
    SubmitJobLowBg,
    TextLine,
    WorkComplete,
    WorkFail,
)

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.server_kit import Line

_VERSION: Final = 'version: "Send back the version of the server"'
_STATUS: Final = 'status: "FUNCTION\\tTOTAL\\tRUNNING\\tAVAILABLE_WORKERS"'
_PRIORITY: Final = "prioritystatus: the number of queued jobs by priority"
_WORKERS: Final = 'workers: "FD IP-ADDRESS CLIENT-ID : FUNCTION ..."'
_GEARMAND: Final = "not in the document: gearmand 1.1 and 2.0 do this"


def _row(admin: Line, command: bytes, function: bytes) -> list[bytes]:
    """Return the columns of a function in a list, or [] if the function is missing."""
    rows = [line.split(b"\t") for line in admin.list(command)]
    return next((row[1:] for row in rows if row[0] == function), [])


def _demand_ok(admin: Line, command: bytes) -> None:
    """Send a command, and check that the reply is OK.

    Raises:
        Unsupported: The server does not know the command.
    """
    reply = admin.text(command)
    if is_unknown(reply):
        raise Unsupported(f"the server does not know {command.decode()}")
    demand(reply.startswith(b"OK"), "OK", reply)


@case("text/version/1", SHOULD, _VERSION, requires=("text",))
def version(it: ServerKit) -> None:
    """`version` followed by CR LF or by LF is answered with one line."""
    admin = it.admin()
    reply = admin.text(b"version")
    demand(reply.strip(), "a version", reply)
    admin.send(TextLine(b"version", b"\n"))
    line = admin.expect(TextLine)
    demand(line.line + line.ending == reply, f"{reply!r} again", line)
    admin.nothing()


@case(
    "text/version/2",
    INFO,
    _VERSION,
    known={"after OK": GEARMANDS, "alone": ("perl",)},
    requires=("text",),
)
def form_of_version(it: ServerKit) -> str:
    """Position of the version number in the reply to `version`."""
    return "after OK" if it.admin().text(b"version").startswith(b"OK ") else "alone"


@case("text/status/1", SHOULD, _STATUS, requires=("status",))
def status(it: ServerKit) -> None:
    """`status` lists the numbers of jobs, running jobs and workers of a function."""
    client, worker, other, admin = it.client(), it.worker(), it.worker(), it.admin()
    rows = [_row(admin, b"status", it.function)]
    handles = [client.submit(kind=SubmitJobBg) for _ in range(3)]
    rows.append(_row(admin, b"status", it.function))
    worker.grab()
    rows.append(_row(admin, b"status", it.function))
    worker.complete(handles[0])
    other.run_all(2)
    rows.append(_row(admin, b"status", it.function))
    wanted = [[b"0", b"0", b"2"], [b"3", b"0", b"2"], [b"3", b"1", b"2"], [b"0", b"0", b"2"]]
    demand(rows == wanted, f"{wanted}", rows)


@case("text/status/2", SHOULD, _STATUS, requires=("status",))
def status_without_workers(it: ServerKit) -> None:
    """`status` lists a function that has jobs but no workers."""
    it.client().submit(kind=SubmitJobBg)
    row = _row(it.admin(), b"status", it.function)
    it.worker().run()
    demand(row == [b"1", b"0", b"0"], "one job and no workers", row)


@case("text/status/3", SHOULD, _STATUS, requires=("status",))
def status_after_ends(it: ServerKit) -> None:
    """`status` no longer counts failed jobs, removed functions, or disconnected workers."""
    client, workers, admin = it.client(), [it.worker() for _ in range(3)], it.admin()
    client.submit()
    handle = workers[0].grab().handle
    rows = [_row(admin, b"status", it.function)]
    workers[0].tell(WorkFail(handle))
    rows.append(_row(admin, b"status", it.function))
    workers[0].tell(CantDo(it.function))
    rows.append(_row(admin, b"status", it.function))
    workers[1].tell(ResetAbilities())
    rows.append(_row(admin, b"status", it.function))
    counts = [[b"1", b"1", b"3"], [b"0", b"0", b"3"], [b"0", b"0", b"2"], [b"0", b"0", b"1"]]
    demand(rows == counts, f"{counts}", rows)
    workers[2].close()
    # Some servers no longer list the function at all.
    it.until(lambda: _row(admin, b"status", it.function)[2:] in ([b"0"], []), "no workers")


@case("text/workers/2", SHOULD, _WORKERS, requires=("workers",))
def workers_change(it: ServerKit) -> None:
    """`workers` lists neither removed functions nor closed connections."""
    names = [it.another(f"{number}") for number in range(4)]
    worker, other, admin = it.worker(*names[:3]), it.worker(names[3]), it.admin()
    worker.tell(CantDo(names[1]))
    found = b" ".join(admin.list(b"workers")).split(b" ")
    listed = [name for name in names if name in found]
    demand(listed == [names[0], names[2], names[3]], "the registered functions", listed)
    worker.tell(ResetAbilities())
    other.close()
    it.until(lambda: names[3] not in b" ".join(admin.list(b"workers")), "no closed connection")
    found = b" ".join(admin.list(b"workers")).split(b" ")
    demand(not {*names} & {*found}, "none of the functions", found)
    worker.nothing()


@case("text/prioritystatus/1", SHOULD, _PRIORITY, requires=("text",))
def prioritystatus(it: ServerKit) -> None:
    """`prioritystatus` lists the numbers of queued jobs per priority and of workers."""
    client, worker, admin = it.client(), it.worker(), it.admin()
    if not knows(it, b"prioritystatus"):
        raise Unsupported("the server does not know `prioritystatus`")
    kinds = (SubmitJobLowBg, SubmitJobBg, SubmitJobHighBg, SubmitJobHighBg, SubmitJobHighBg)
    for kind in kinds:
        client.submit(kind=kind)
    handle = worker.grab().handle
    row = _row(admin, b"prioritystatus", it.function)
    worker.complete(handle)
    worker.run_all(4)
    demand(row == [b"2", b"1", b"1", b"1"], "two high, one normal, one low, one worker", row)


@case("text/workers/1", SHOULD, _WORKERS, requires=("workers",))
def workers(it: ServerKit) -> None:
    """`workers` lists a connection with its client ID and its functions."""
    worker, admin, name = it.worker(), it.admin(), it.another("id")
    worker.tell(SetClientId(name), CanDo(it.another("other")))
    found = [line.split(b" ") for line in admin.list(b"workers") if b" " + name + b" :" in line]
    demand(len(found) == 1, f"one line with {name!r}", found)
    number, _, _, colon, *functions = [word for word in found[0] if word]
    demand(number.isdigit() and colon == b":", "a number, an address, an ID and a colon", found)
    wanted = {it.function, it.another("other")}
    demand(set(functions) == wanted, f"the functions {wanted}", functions)


@case("text/unknown/1", SHOULD, _GEARMAND, requires=("text",))
def unknown(it: ServerKit) -> None:
    """An unknown command is answered with an ERR line, and the connection stays open."""
    admin = it.admin()
    for command in (b"conformance", b"conformance of servers", b"VERSIONS"):
        admin.text(command, b"ERR")
    demand(admin.text(b"version"), "a version", "nothing")
    admin.nothing()


@case("text/maxqueue/1", SHOULD, 'maxqueue: "a single line with "OK""', requires=("maxqueue",))
def maxqueue(it: ServerKit) -> None:
    """`maxqueue` with zero, one or three limits is answered with OK."""
    it.worker()
    admin = it.admin()
    for sizes in (b"", b" 10", b" 10 20 30", b" 0"):
        admin.text(b"maxqueue " + it.function + sizes, b"OK")
    admin.nothing()


@case("text/cancel/1", SHOULD, _GEARMAND, requires=("cancel",))
def cancel_unknown(it: ServerKit) -> None:
    """`cancel job` with an unknown handle is answered with an ERR line."""
    it.admin().text(b"cancel job H:conformance:nobody", b"ERR")


@case("text/cancel/2", SHOULD, _GEARMAND, requires=("cancel",))
def cancel_queued(it: ServerKit) -> None:
    """`cancel job` removes a queued job, and the job's client receives WORK_FAIL."""
    (client, worker, handle), admin = it.queued(), it.admin()
    admin.text(b"cancel job " + handle, b"OK")
    client.expect(WorkFail, handle=handle)
    worker.grab_nothing()
    client.nothing()


@case("text/cancel/4", SHOULD, _GEARMAND, requires=("cancel",))
def cancel_one(it: ServerKit) -> None:
    """`cancel job` affects no other job, even of the same client."""
    client, other, worker, admin = it.client(), it.client(), it.worker(), it.admin()
    handles = [client.submit(b"%d" % number) for number in range(3)]
    last = other.submit(b"3")
    admin.text(b"cancel job " + handles[1], b"OK")
    # `text/cancel/2` demands the WORK_FAIL.
    demand(client.settle() in ([], [WorkFail(handles[1])]), "at most a WORK_FAIL", "others")
    for handle in (handles[0], handles[2], last):
        worker.run(b"for " + handle, handle=handle)
    worker.grab_nothing()
    for handle in (handles[0], handles[2]):
        client.gets(WorkComplete(handle, b"for " + handle))
    other.gets(WorkComplete(last, b"for " + last))
    client.nothing()


@case(
    "text/cancel/3",
    INFO,
    known={
        "the client is told, and gets no result": (),
        "the client is told, and gets the result as well": GEARMANDS,
        "it is refused": (),
    },
    requires=("cancel",),
)
def cancel_running(it: ServerKit) -> str:
    """Effect of `cancel job` on a running job.

    Source: not in the document: gearmand 1.1 and 2.0 send WORK_FAIL, and later the result as well
    """
    (client, worker, handle), admin = it.running(), it.admin()
    ok = admin.text(b"cancel job " + handle).startswith(b"OK")
    worker.send(WorkComplete(handle, b"result"))
    worker.settle()
    got = client.settle()
    if not ok:
        return "it is refused"
    demand(got[:1] == [WorkFail(handle)], "a WORK_FAIL", got)
    more = "and gets the result as well" if got[1:] else "and gets no result"
    return f"the client is told, {more}"


@case(
    "text/cancel/5",
    INFO,
    known={"it is refused": (), "OK": (), "OK, and the client is told again": GEARMANDS},
    requires=("cancel",),
)
def cancelled_twice(it: ServerKit) -> str:
    """Effect of a second `cancel job` on a queued job.

    Source: not in the document: gearmand 1.1 and 2.0 send WORK_FAIL each time
    """
    (client, worker, handle), admin = it.queued(), it.admin()
    admin.text(b"cancel job " + handle, b"OK")
    client.settle()
    reply = admin.text(b"cancel job " + handle)
    got = client.settle()
    worker.grab_nothing()
    demand(got in ([], [WorkFail(handle)]), "nothing, or a WORK_FAIL", got)
    answer = "OK" if reply.startswith(b"OK") else "it is refused"
    return f"{answer}, and the client is told again" if got else answer


@case("text/function/1", SHOULD, _GEARMAND, requires=("text", "status"))
def create(it: ServerKit) -> None:
    """`create function` adds a function to `status`, and `drop function` removes it."""
    admin = it.admin()
    _demand_ok(admin, b"create function " + it.function)
    row = _row(admin, b"status", it.function)
    demand(row == [b"0", b"0", b"0"], "a function without jobs or workers", row)
    _demand_ok(admin, b"drop function " + it.function)
    demand(
        not _row(admin, b"status", it.function),
        "a list without the dropped function",
        "a list with it",
    )


@case("text/function/2", SHOULD, _GEARMAND, requires=("text", "status"))
def drop_in_use(it: ServerKit) -> None:
    """`drop function` is refused with ERR if the function has a worker."""
    admin, worker = it.admin(), it.worker()
    _demand_ok(admin, b"create function " + it.another("known"))
    admin.text(b"drop function " + it.function, b"ERR")
    _demand_ok(admin, b"drop function " + it.another("known"))
    it.client().submit(kind=SubmitJobBg)
    worker.run()


@case("text/jobs/1", SHOULD, _GEARMAND, requires=("text",))
def show_jobs(it: ServerKit) -> None:
    """`show jobs` lists the handles of all jobs, and `show unique jobs` their uniques."""
    admin, client, worker, unique = it.admin(), it.client(), it.worker(), it.another("u")
    if not knows(it, b"show conformance"):
        raise Unsupported("the server does not know `show`")
    handle = client.submit(unique=unique, kind=SubmitJobBg)
    jobs = [line.split(b"\t")[0] for line in admin.list(b"show jobs")]
    demand(handle in jobs, f"a list with {handle!r}", jobs)
    uniques = admin.list(b"show unique jobs")
    demand(unique in uniques, f"a list with {unique!r}", uniques)
    worker.run()
    jobs = [line.split(b"\t")[0] for line in admin.list(b"show jobs")]
    demand(handle not in jobs, f"a list without {handle!r}", jobs)


@case("text/words/1", INFO, known={"any case": EVERY, "small letters only": ()}, requires=("text",))
def case_of_letters(it: ServerKit) -> str:
    """Case sensitivity of commands.

    Source: not in the document: gearmand 1.1 and 2.0 accept any case
    """
    reply = it.admin().text(b"VERSION")
    return "small letters only" if reply.startswith(b"ERR") else "any case"


@case(
    "text/words/2",
    INFO,
    known={
        "the connection is closed": GEARMANDS,
        "refused with ERR": ("perl",),
        "not answered": (),
    },
    requires=("text",),
)
def six_words(it: ServerKit) -> str:
    """Reaction to a command of six words.

    Source: not in the document: gearmand 1.1 and 2.0 close the connection
    """
    admin = it.admin()
    admin.send_anyway(TextLine(b"conformance 2 3 4 5 6"))
    return admin.behaviour(TEXT="refused with ERR")


@case("text/words/3", SHOULD, _GEARMAND, requires=("text", "status"))
def several_spaces(it: ServerKit) -> None:
    """Several spaces between two words of a command count as one."""
    admin = it.admin()
    _demand_ok(admin, b"create  function   " + it.function)
    row = _row(admin, b"status", it.function)
    demand(row == [b"0", b"0", b"0"], "a function without jobs or workers", row)
    _demand_ok(admin, b"drop   function  " + it.function)


@case(
    "text/words/4", INFO, known={"carried out": EVERY, "refused with ERR": ()}, requires=("text",)
)
def more_words(it: ServerKit) -> str:
    """Reaction to a command with more words than it needs.

    Source: not in the document: gearmand 1.1 and 2.0 ignore the other words of `version`
    """
    admin = it.admin()
    replies = [admin.text(line) for line in (b"version", b"version conformance", b"version ")]
    return "carried out" if len({*replies}) == 1 else "refused with ERR"
