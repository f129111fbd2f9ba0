"""Probe a server for its capabilities before the cases run.

A server without a capability answers with ERROR, closes the connection, or stays silent. One answer
decides. Faults that follow are left to the cases, which a server without the capability skips.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from gearman_proto.wire.packets import (
    CanDoTimeout,
    EchoReq,
    EchoRes,
    Event,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    OptionReq,
    OptionRes,
    StatusResUnique,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitReduceJobBackground,
    WorkComplete,
    WorkData,
)

from .case import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server_kit import Line, ServerKit

#: The capabilities and their meanings.
CAPABILITIES: Final = {
    "echo": "the server answers ECHO_REQ",
    "options": "the server grants OPTION_REQ `exceptions`",
    "unique-status": "the server answers GET_STATUS_UNIQUE",
    "epoch": "SUBMIT_JOB_EPOCH creates a job",
    "reduce": "SUBMIT_REDUCE_JOB_BACKGROUND creates a job",
    "coalescing": "the server coalesces queued jobs with the same unique",
    "grab": "GRAB_JOB gets a job",
    "grab-uniq": "GRAB_JOB_UNIQ gets a job",
    "grab-all": "GRAB_JOB_ALL gets a job",
    "data": "WORK_DATA reaches the client",
    "timeouts": "CAN_DO_TIMEOUT registers a function",
    "text": "the server answers `version`",
    "workers": "the server answers `workers` with a list",
    "status": "the server answers `status` with a list",
    "maxqueue": "the server answers `maxqueue`",
    "cancel": "the server knows `cancel job`",
    "restart": "the suite has started the server, and can restart it",
}


def probe(
    make_kit: Callable[[frozenset[str]], ServerKit], revive: Callable[[str], object]
) -> frozenset[str]:
    """Return the capabilities of a server, except `restart`.

    Args:
        make_kit: Called with the capabilities found so far. Returns a kit.
        revive: Called with the name of a capability after each probe. Restarts the server if the
            probe has crashed it.
    """
    found: set[str] = set()
    for name, question in _QUESTIONS.items():
        with make_kit(frozenset(found)) as kit:
            try:
                if question(kit):
                    found.add(name)
            except Failed:
                pass
        revive(name)
    return frozenset(found)


def _answers(kit: ServerKit, ask: Callable[[Line], None], answer: type[Event]) -> bool:
    line = kit.client()
    try:
        ask(line)
        line.expect(answer)
    except Failed:
        return False
    finally:
        line.close()
    return True


def _grabs(kit: ServerKit, name: str, grab: Event, *answers: type[Event]) -> bool:
    """Return whether a grab of this type gets a job."""
    function = kit.another(name)
    kit.client().submit(kind=SubmitJobBg, function=function)
    worker = kit.worker(function)
    worker.send(grab)
    event = worker.next()
    if not isinstance(event, answers):
        return False
    with contextlib.suppress(Failed):
        worker.complete(event.handle)  # type: ignore[attr-defined]
    return True


def _joins(kit: ServerKit) -> bool:
    function = kit.another("join")
    client, unique = kit.client(), kit.another("unique")
    handles = {client.submit(kind=SubmitJobBg, function=function, unique=unique) for _ in "12"}
    with contextlib.suppress(Failed):
        kit.worker(function).run_all(len(handles))
    return len(handles) == 1


def _makes(kit: ServerKit, name: str, submit: Callable[[bytes], Event]) -> bool:
    function = kit.another(name)
    kit.client().created(submit(function))
    with contextlib.suppress(Failed):
        kit.worker(function).run()
    return True


def _has_timeouts(kit: ServerKit) -> bool:
    function = kit.another("timeout")
    client, worker = kit.client(), kit.worker()
    client.submit(kind=SubmitJobBg, function=function)
    worker.send(CanDoTimeout(function, b"60000"))
    handle = worker.grab().handle
    with contextlib.suppress(Failed):
        worker.complete(handle)
    return True


def _passes_data(kit: ServerKit) -> bool:
    function = kit.another("data")
    client, worker = kit.client(), kit.worker(function)
    handle = client.submit(function=function)
    worker.grab()
    worker.send(WorkData(handle, b"part"), WorkComplete(handle, b""))
    return isinstance(client.next(), WorkData)


def is_unknown(reply: bytes) -> bool:
    """Return whether a reply reports an unknown command."""
    return reply.upper().startswith(b"ERR UNKNOWN_COMMAND")


def knows(kit: ServerKit, command: bytes) -> bool:
    """Return whether the server knows a text command, even if it refuses the arguments."""
    return not is_unknown(kit.admin().text(command))


#: The probes by capability. Their order matters: later ones use the results of earlier ones.
_QUESTIONS: Final[dict[str, Callable[[ServerKit], bool]]] = {
    "echo": lambda kit: _answers(kit, lambda line: line.send(EchoReq(b"?")), EchoRes),
    "grab-uniq": lambda kit: _grabs(kit, "grab-uniq", GrabJobUniq(), JobAssignUniq),
    "options": lambda kit: _answers(kit, lambda e: e.send(OptionReq(b"exceptions")), OptionRes),
    "unique-status": lambda kit: _answers(
        kit, lambda e: e.send(GetStatusUnique(b"nobody")), StatusResUnique
    ),
    "epoch": lambda kit: _makes(
        kit, "epoch", lambda function: SubmitJobEpoch(function, b"", b"1", b"data")
    ),
    "reduce": lambda kit: _makes(
        kit,
        "reduce",
        lambda function: SubmitReduceJobBackground(function, b"", b"reducer", b"", b"data"),
    ),
    "coalescing": _joins,
    "grab": lambda kit: _grabs(kit, "grab", GrabJob(), JobAssign),
    "grab-all": lambda kit: _grabs(kit, "grab-all", GrabJobAll(), JobAssignUniq),
    "data": _passes_data,
    "timeouts": _has_timeouts,
    "text": lambda kit: bool(kit.admin().text(b"version")),
    "workers": lambda kit: kit.admin().list(b"workers") is not None,
    "status": lambda kit: kit.admin().list(b"status") is not None,
    "maxqueue": lambda kit: kit.admin().text(b"maxqueue " + kit.function).startswith(b"OK"),
    "cancel": lambda kit: knows(kit, b"cancel job H:conformance:nobody"),
}
