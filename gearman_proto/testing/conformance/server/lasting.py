"""Cases about client ids, invalid packets, many connections, and restarts."""

from __future__ import annotations

from typing import Final

from gearman_proto.testing.conformance.case import EVERY, INFO, MUST, SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    EchoReq,
    GetStatus,
    SetClientId,
    StatusRes,
    SubmitJobBg,
    WorkComplete,
)

_ID: Final = 'SET_CLIENT_ID: "monitoring and reporting commands can uniquely identify the various'
_NAMES: Final = f'{_ID} workers"'
_LIVES: Final = "not in the document: all known servers do this"
#: Invalid and incomplete packets.
_GARBAGE: Final = (
    b"\0XXX" + bytes(60),
    b"\0REQ\0\0\0\xff\0\0\0\0",
    b"\0REQ\0\0\0\x07\0\0\0\x20half",
    b"\0R",
    b"\xff\xfe\xfd" * 100,
    b"\0RES\0\0\0\x06\0\0\0\0",
)
#: Maximum number of bytes to send without reading the answers.
_UNREAD: Final = 1 << 22


def _works(it: ServerKit) -> None:
    """Check that a client can submit a job and a worker can complete it."""
    client, worker, handle = it.queued()
    worker.run()
    client.expect(WorkComplete, handle=handle, data=b"result")


@case("id/set/1", SHOULD, _NAMES, requires=("workers",))
def shown(it: ServerKit) -> None:
    """The command `workers` lists the id that a worker has sent in SET_CLIENT_ID."""
    worker, name = it.worker(), it.another("id")
    worker.tell(SetClientId(name))
    lines = it.admin().list(b"workers")
    demand(any(name in line.split(b" ") for line in lines), f"a line with {name!r}", lines)


@case(
    "id/set/2", SHOULD, "not in the document: gearmand 1.1 and 2.0 do this", requires=("workers",)
)
def last_one(it: ServerKit) -> None:
    """If a connection sends SET_CLIENT_ID several times, the last id counts."""
    worker, names = it.worker(), [it.another("id"), it.another("name")]
    worker.tell(*map(SetClientId, names))
    words = b" ".join(it.admin().list(b"workers")).split()
    demand(names[1] in words and names[0] not in words, f"only the id {names[1]!r}", words)


@case("id/answer/1", MUST, 'Worker Requests: SET_CLIENT_ID, "Unique string"')
def not_answered(it: ServerKit) -> None:
    """A worker that sends SET_CLIENT_ID receives no answer to it, and still receives jobs."""
    client, worker = it.client(), it.worker()
    worker.tell(SetClientId(it.another("id")))
    client.submit(kind=SubmitJobBg)
    worker.run()


@case("life/garbage/1", MUST, _LIVES)
def garbage(it: ServerKit) -> None:
    """Invalid bytes on one connection do not affect other connections."""
    client, worker = it.client(), it.worker()
    lines = [it.client() for _ in _GARBAGE]
    for line, data in zip(lines, _GARBAGE, strict=True):
        line.send_raw(data)
    handle = client.submit()
    worker.run()
    client.expect(WorkComplete, handle=handle, data=b"result")
    for line in lines:
        line.close()
    _works(it)


@case("life/many/1", MUST, _LIVES)
def many(it: ServerKit) -> None:
    """A hundred connections that disconnect, even in mid-packet, do not affect the others."""
    client, worker, handle = it.queued()
    job = worker.grab()
    for number in range(100):
        line = it.client()
        line.send_raw(_GARBAGE[2][: number % 16])
        (line.reset if number % 2 else line.close)()
    worker.complete(job.handle)
    client.expect(WorkComplete, handle=handle, data=b"result")
    _works(it)


@case("life/many/2", MUST, _LIVES)
def many_at_once(it: ServerKit) -> None:
    """A server serves a hundred connections at the same time."""
    worker, clients = it.worker(), [it.client() for _ in range(100)]
    handles = [client.submit() for client in clients]
    for _ in clients:
        worker.send(WorkComplete(worker.grab().handle, b"result"))
    for client, handle in zip(clients, handles, strict=True):
        client.expect(WorkComplete, handle=handle, data=b"result")


@case("life/unread/1", MUST, _LIVES, requires=("echo",))
def does_not_read(it: ServerKit) -> None:
    """A client that does not read its answers does not block other clients."""
    line, request = it.client(), pack_event(EchoReq(bytes(1 << 16)), MAGIC_REQUEST)
    # `flood` also returns if the server stops reading or closes the connection.
    line.flood(request, _UNREAD)
    _works(it)


@case("life/restart/1", MUST, _LIVES, requires=("restart",))
def restart(it: ServerKit) -> None:
    """A restart closes all connections, and the server accepts new ones afterwards."""
    client, worker = it.client(), it.worker()
    client.submit()
    it.restart()
    for line in (client, worker):
        line.ends()
    _works(it)


@case(
    "life/restart/2",
    INFO,
    known={"it is unknown": (), "it is the new job's": EVERY},
    requires=("restart",),
)
def old_handle(it: ServerKit) -> str:
    """Meaning of an old handle after a restart and a new submit.

    Source: not in the document: gearmand 1.1 and 2.0 restart the numbers of handles
    """
    it.restart()
    old = it.client().submit(kind=SubmitJobBg)
    it.restart()
    client, worker, _ = it.queued(SubmitJobBg)
    client.send(GetStatus(old))
    known = client.expect(StatusRes, handle=old).known != b"0"
    worker.run()
    return "it is the new job's" if known else "it is unknown"
