"""Cases about servers that disconnect, stay silent, or send unexpected packets."""

from __future__ import annotations

from gearman_proto.testing.conformance.case import INFO, MUST, SHOULD
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case, content
from gearman_proto.wire.packets import (
    HEADER,
    MAGIC_RESPONSE,
    JobCreated,
    WorkComplete,
    WorkData,
    WorkStatus,
    WorkWarning,
)

_LOST = "not in the document: a server or its host can stop at any time"
_ODD = "not in the document: gearmand 1.1 and 2.0 never send it"
_AGAIN = {"tries again": ()}
# In seconds. Few clients have a shorter timeout of their own.
_LONG = 5.0
_PATIENCE = {"gives up": (), "waits": ()}
_DOES = {"goes on": (), "gives up": (), "waits": ()}


@client_case("life/refused/1", MUST, _LOST)
def refused(it: ClientKit) -> None:
    """A client fails if its server does not listen."""
    it.stop_listening()
    it.start()
    it.fails(it.timeout)


@client_case("life/close/1", MUST, _LOST, known=_AGAIN)
def before_acknowledged(it: ClientKit) -> str | None:
    """If the server disconnects before JOB_CREATED, a client fails or submits the job again."""
    client, _ = it.submitted()
    client.close()
    return it.gives_up()


@client_case("life/close/2", MUST, _LOST, known=_AGAIN)
def acknowledged(it: ClientKit) -> str | None:
    """If the server disconnects before the job's end, a client fails or submits it again."""
    it.accepted().close()
    return it.gives_up()


@client_case("life/reset/1", MUST, _LOST, known=_AGAIN)
def reset_before(it: ClientKit) -> str | None:
    """If the connection is reset before JOB_CREATED, a client fails or submits the job again."""
    client, _ = it.submitted()
    client.reset()
    return it.gives_up()


@client_case("life/reset/2", MUST, _LOST, known=_AGAIN)
def reset_after(it: ClientKit) -> str | None:
    """If the connection is reset before the job's end, a client fails or submits it again."""
    it.accepted().reset()
    return it.gives_up()


@client_case("life/half/1", MUST, _LOST, known=_AGAIN)
def half(it: ClientKit) -> str | None:
    """An incomplete WORK_COMPLETE is not a result."""
    client = it.accepted()
    client.send_raw(client.packed(WorkComplete(HANDLE, b"0123456789"))[:-5])
    client.close()
    return it.gives_up()


@client_case("life/half/2", MUST, _LOST, known=_AGAIN)
def half_handle(it: ClientKit) -> str | None:
    """An incomplete JOB_CREATED does not acknowledge the job."""
    client, _ = it.submitted()
    client.send_raw(client.packed(JobCreated(HANDLE))[:-5])
    client.close()
    return it.gives_up()


@client_case("life/close/3", MUST, _LOST, known=_AGAIN)
def after_data(it: ClientKit) -> str | None:
    """If the server disconnects after WORK_DATA, the data is not the result."""
    client = it.accepted()
    client.send(WorkData(HANDLE, b"part "), WorkData(HANDLE, b"of it"))
    client.close()
    return it.gives_up(also=True)


@client_case("life/close/4", MUST, _LOST, known=_AGAIN)
def after_status(it: ClientKit) -> str | None:
    """If the server disconnects after WORK_STATUS of 2/2, the job has not succeeded."""
    client = it.accepted()
    client.send(WorkStatus(HANDLE, b"1", b"2"), WorkStatus(HANDLE, b"2", b"2"))
    client.close()
    return it.gives_up(also=True)


@client_case("life/close/5", MUST, _LOST, known=_AGAIN)
def after_updates(it: ClientKit) -> str | None:
    """If the server disconnects after WORK_DATA and a full status, the job has not succeeded."""
    client = it.accepted()
    client.send(WorkWarning(HANDLE, b"warning"), WorkData(HANDLE, b"part"))
    client.send(WorkStatus(HANDLE, b"100", b"100"))
    client.close()
    return it.gives_up(also=True)


@client_case("life/close/6", MUST, _LOST, known=_AGAIN, requires=("several",))
def after_some(it: ClientKit) -> str | None:
    """If the server disconnects after two of three results, a client fails or submits again."""
    client, came = it.several(b"1", b"2", b"3")
    ends = {each: WorkComplete(b"H:conformance:" + each, b"result " + each) for each in came}
    client.send(ends[came[0]], ends[came[2]])
    client.close()
    if (found := it.submitted_again()) is None:
        it.fails(it.timeout)
        return None
    again, submit = found
    again.send(JobCreated(b"H:conformance:" + submit.data), ends[submit.data])
    it.prints(b"result 1", b"result 2", b"result 3")
    return "tries again"


@client_case("life/reset/3", MUST, _LOST, known=_AGAIN)
def reset_after_data(it: ClientKit) -> str | None:
    """If the connection is reset after WORK_DATA and a full status, the job has not succeeded."""
    client = it.accepted()
    client.send(WorkData(HANDLE, b"part"), WorkStatus(HANDLE, b"2", b"2"))
    client.reset()
    return it.gives_up(also=True)


@client_case("life/half/3", MUST, _LOST, known=_AGAIN)
def half_large(it: ClientKit) -> str | None:
    """A large WORK_COMPLETE that lacks its last byte is not a result."""
    client = it.accepted()
    client.send_raw(client.packed(WorkComplete(HANDLE, content(100_000)))[:-1])
    client.close()
    return it.gives_up()


@client_case("life/half/4", MUST, _LOST, known=_AGAIN)
def half_empty(it: ClientKit) -> str | None:
    """A WORK_COMPLETE that ends after the handle is not an empty result."""
    client = it.accepted()
    client.send_raw(client.packed(WorkComplete(HANDLE, b"0123456789"))[:-10])
    client.close()
    return it.gives_up()


@client_case("life/last/1", MUST, _LOST)
def last(it: ClientKit) -> None:
    """A result counts even if the server disconnects immediately after it."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    client.close()
    it.prints(b"result")


@client_case("life/garbage/1", SHOULD, '4 byte magic code: "\\0RES" for responses', known=_AGAIN)
def garbage(it: ClientKit) -> str | None:
    """A client that receives garbage in reply to its submit fails without waiting."""
    client, _ = it.submitted()
    client.send_raw(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    return it.gives_up()


@client_case("life/garbage/2", SHOULD, '4 byte magic code: "\\0RES" for responses', known=_AGAIN)
def garbage_later(it: ClientKit) -> str | None:
    """A client that receives garbage before its job's end fails without waiting."""
    it.accepted().send_raw(b"ERR conformance no+packet\r\n" * 3)
    return it.gives_up()


@client_case("life/stray/1", INFO, _ODD, known=_DOES)
def noop(it: ClientKit) -> str:
    """Reaction to a NOOP, which only workers should receive."""
    return _stray(it, 6)


@client_case("life/stray/2", INFO, _ODD, known=_DOES)
def echo(it: ClientKit) -> str:
    """Reaction to an unrequested ECHO_RES."""
    return _stray(it, 17, b"conformance")


@client_case("life/stray/3", INFO, _ODD, known=_DOES)
def created(it: ClientKit) -> str:
    """Reaction to an unrequested JOB_CREATED."""
    return _stray(it, 8, b"H:conformance:2")


@client_case("life/stray/4", INFO, _ODD, known=_DOES)
def unknown(it: ClientKit) -> str:
    """Reaction to an unknown packet type."""
    return _stray(it, 4242)


def _stray(it: ClientKit, number: int, body: bytes = b"") -> str:
    """Send a stray packet before the job's end, and return the client's behaviour."""
    client = it.accepted()
    # Send both packets in one write, because the client can close after the first.
    stray = HEADER.pack(MAGIC_RESPONSE, number, len(body)) + body
    client.send_raw(stray + client.packed(WorkComplete(HANDLE, b"result")))
    return it.does()


@client_case("life/silent/1", INFO, _LOST, known=_PATIENCE, slow=True)
def silent(it: ClientKit) -> str:
    """Reaction to a submit that is not answered for five seconds."""
    it.submitted()
    return it.does(_LONG)


@client_case("life/silent/2", INFO, _LOST, known=_PATIENCE, slow=True)
def silent_later(it: ClientKit) -> str:
    """Reaction to an acknowledged job without any packet for five seconds."""
    it.accepted()
    return it.does(_LONG)
