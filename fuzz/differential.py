"""Two ways of doing the same give equal results: batched or single, whole or in pieces.

The first byte of the input chooses the pair, the rest is a program (see `program`):

* submits: `Connection.send_submits` and `send` of each request.
* answers: `Connection.send_args` and `send` of each event, for a server.
* replies: `next_created` followed by `next_event`, and `next_event` alone. Both receive the same
  pieces, and more requests are sent in between.
* client, worker, server, admin: the results and the output of an engine that receives a stream
  whole, byte by byte, and in pieces.
* recording: a recorded exchange with gearmand and the same exchange with our server. With ours,
  parts of later packets arrive early on their own connections. The output on each connection is the
  recorded one, or the expected deviation.
* shuffled: the same with whole packets in any order across connections. No recording has gearmand's
  answers to these, so the target checks the invariants of `server_engine` instead.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import text
from gearman_proto.errors import GearmanError, LocalProtocolError, RemoteProtocolError
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    PACKETS,
    SUBMITS,
    CanDo,
    JobCreated,
    OptionReq,
    Role,
    SubmitJob,
)
from tests.engines import admin_harness, server_harness
from tests.engines.server_replay import LEFT_OUT, Replay
from tests.recordings import VECTORS

from . import Failure
from .program import FROM_SERVER, TO_SERVER, Program
from .worlds import ClientWorld, ServerWorld, WorkerWorld, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import Element

_KINDS: Final = sorted(SUBMITS.values(), key=lambda kind: kind.packet.number)
_NAMES: Final = (b"", b"f", b"u", b"n\0l", b"w" * 63, b"w" * 64, b"f" * 8000)
_PAYLOADS: Final = (b"", b"x", b"a\0b", b"y" * 1000, b"z" * 70_000)
_HANDLES: Final = (b"H:1", b"H:2", b"H:3", b"")
_ABOUT_JOBS: Final = [p for p in FROM_SERVER if p.name.startswith(("WORK_", "JOB_C"))]
_FOR_WORKERS: Final = [p for p in FROM_SERVER if p.name.startswith(("JOB_A", "NO"))]
_LARGEST: Final = 5000
#: The recordings to replay completely. The largest takes too long.
_RECORDINGS: Final = sorted(VECTORS.keys() - LEFT_OUT.keys() - {"50_large_payload"})


def _compare(what: object, one: object, other: object) -> None:
    if one != other:
        raise Failure(f"{what!r}: {one!r} and {other!r}")


def _outcome(call: Callable[..., Any], *args: Any) -> Any:
    """Return the result or the exception of a call."""
    try:
        return call(*args)
    except LocalProtocolError as error:
        return str(error)


# A connection.


def check_submits(program: Program) -> None:
    """Check `send_submits`."""
    kind, function = program.pick(_KINDS), program.value(_NAMES)
    count = 1 + program.below(6)
    jobs = [(program.value(_NAMES), program.value(_PAYLOADS)) for _ in range(count)]
    one, many = Connection(Role.CLIENT), Connection(Role.CLIENT)

    def by_one() -> bytes:
        return b"".join([one.send(kind(function, *job), job) for job in jobs])

    each = _outcome(by_one)
    at_once = _outcome(many.send_submits, kind, function, *zip(*jobs), jobs)
    _compare((kind, function, jobs), each, at_once)
    if isinstance(each, bytes):
        _compare("tokens", list(one.unanswered_tokens()), list(many.unanswered_tokens()))
    else:
        _compare("nothing was sent", many.unanswered, 0)


def check_answers(program: Program) -> None:
    """Check `send_args`."""
    one, other = Connection(Role.SERVER), Connection(Role.SERVER)
    while program:
        if program.flag():
            event = program.event(TO_SERVER, _HANDLES)
            data = packed(event, MAGIC_REQUEST)
            for connection in (one, other):
                connection.receive_data(data)
            _compare("received", one.next_event(), other.next_event())
        else:
            event = program.event(FROM_SERVER if program.flag() else PACKETS, _HANDLES)
            args = list(type(event).arguments(event))
            if program.below(8) == 0 and args:
                args[program.below(len(args))] = program.value(_NAMES)
            event = type(event)(*args)
            args = list(type(event).arguments(event))
            sent = _outcome(one.send, event)
            _compare(event, sent, _outcome(other.send_args, type(event), args))
        _compare("unanswered", one.unanswered, other.unanswered)


def check_replies(program: Program) -> None:
    """Check `next_created`."""
    one, other = Connection(Role.CLIENT), Connection(Role.CLIENT)
    number = 0
    while program:
        match program.below(3):
            case 0:
                for _ in range(program.below(8)):
                    number += 1
                    submit = SubmitJob(b"f", b"%d" % number, b"")
                    request = submit if program.below(8) else OptionReq(b"exceptions")
                    for connection in (one, other):
                        # If one connection has failed, both have.
                        _outcome(connection.send, request, number)
            case 1:
                data = b""
                for _ in range(program.below(8)):
                    handle = program.value(_HANDLES)
                    data += packed(JobCreated(handle))
                _take_both(one, other, data)
            case _:
                event = program.event(FROM_SERVER, _HANDLES)
                data = packed(event)
                _take_both(one, other, data[: len(data) - program.pick([0, 0, 0, 1, 5])])
        _compare("unanswered", one.unanswered, other.unanswered)


def _take_both(one: Connection, other: Connection, data: bytes) -> None:
    events: list[list[Any]] = []
    for connection, many in ((one, False), (other, True)):
        connection.receive_data(data)
        events.append([])
        try:
            while True:
                if many:
                    handles, tokens = connection.next_created()
                    events[-1] += [(JobCreated(h), t) for h, t in zip(handles, tokens)]
                if (event := connection.next_event()) is NEED_DATA:
                    break
                events[-1].append((event, getattr(event, "answers", None)))
        except RemoteProtocolError as error:
            events[-1].append(type(error))
    _compare(data, *events)


# Engines.


def _stream(program: Program, kinds: Any, magic: bytes = MAGIC_RESPONSE) -> list[bytes]:
    """Return packets and, perhaps, other bytes."""
    parts: list[bytes] = []
    while program and sum(map(len, parts)) < _LARGEST:
        if program.below(16) == 0:
            parts.append(program.raw(program.below(24)))
        else:
            parts.append(packed(program.event(kinds, _HANDLES), magic))
    return parts


def _in_pieces(converse: Callable[[list[bytes]], Any], parts: list[bytes], size: int) -> None:
    """Compare the results of `converse` for the parts of a stream and for smaller pieces."""
    whole = converse(parts)
    for step in (1, size):
        pieces = [part[at : at + step] for part in parts for at in range(0, len(part), step)]
        _compare((converse.__name__, parts), whole, converse(pieces))


def _client(parts: list[bytes]) -> Any:
    """Return the outcome of a client's requests. The first two share a unique."""
    world = ClientWorld(exceptions=False, max_packet_size=4096)
    requests = [world.request(unique=unique) for unique in ("a", "a", "b", "c")]
    requests += [world.request(), world.request(background=True)]
    wait = world.submit(*requests)
    asked = world.statuses(world.request(unique="b"), by_unique=True)
    server = world.serve()
    server.pull()
    for part in parts:
        server.send_raw(part)
    errors = [type(request.error) for request in requests]
    states = [(r.state, r.job.handle, r.result, r.exception, r.status) for r in requests]
    updates = [_updates(request) for request in requests]
    return wait.done, asked.done, server.closed, errors, states, updates


def _updates(request: Any) -> list[Any]:
    """Return all updates of a request."""
    return [list(request.data_updates), list(request.warning_updates)]


def _worker(parts: list[bytes]) -> Any:
    """Return the jobs and the output of a worker with two slots."""
    world = WorkerWorld(max_jobs=2, max_packet_size=4096)
    stream = world.work()
    server = world.serve()
    server.strict = False
    jobs = []

    for part in parts:
        server.send_raw(part)
        # The caller takes each job at once, and finishes it without delay.
        while stream.ready and not stream.done and (job := world.next_job()) is not None:
            jobs.append((job.wire_handle, job.wire_task, job.unique, job.data))
            if job._gm_link.alive:
                world.finish(job)
            else:
                world.job_done(job)

    return jobs, server.inbox, server.closed, type(stream.error)


def _server(parts: list[bytes]) -> Any:
    """Return a server's output."""
    world = ServerWorld(max_packet_size=4096)
    peer = world.connect()
    peer.send(CanDo(b"f"))
    for part in parts:
        peer.send_raw(part)
    jobs = [(job.handle, job.state) for job in world.engine.queue.jobs.values()]
    return peer.take_raw(), peer.closed, jobs


def _admin(parts: list[bytes]) -> Any:
    """Return the outcome of an admin client's query."""
    world = admin_harness.World(max_reply_size=1000)
    question = world.ask(text.status())
    server = world.serve()
    server.take()
    for part in parts:
        if not server.closed:
            server.send(part)
    if not question.done:
        return None
    try:
        return question.value
    except GearmanError as error:
        return type(error)


def check_client(program: Program) -> None:
    """Check a client's engine."""
    size = 1 + program.below(40)
    data = packed(JobCreated(b"H:1")) * program.below(6)
    _in_pieces(_client, [data + b"".join(_stream(program, _ABOUT_JOBS))], size)


def check_worker(program: Program) -> None:
    """Check a worker's engine."""
    size = 1 + program.below(40)
    _in_pieces(_worker, _stream(program, _FOR_WORKERS), size)


def check_server(program: Program) -> None:
    """Check a server's engine."""
    size = 1 + program.below(40)
    _in_pieces(_server, [b"".join(_stream(program, TO_SERVER, MAGIC_REQUEST))], size)


def check_admin(program: Program) -> None:
    """Check an admin client's engine."""
    size = 1 + program.below(40)
    lines = [b"f\t1\t2\t3\n", b".\n", b"ERR X\r\n", b"OK\n"]
    data = b"".join(program.value(lines) for _ in range(program.below(8)))
    _in_pieces(_admin, [data], size)


# Recordings.


@functools.cache
def _ends(name: str) -> dict[str, list[int]]:
    """Return each connection's offsets in its peer's stream at which a server has an event."""
    streams: dict[str, bytes] = {}
    for element in VECTORS[name].exchange:
        if not element.of_server:
            streams[element.conn] = streams.get(element.conn, b"") + element.data
    ends: dict[str, list[int]] = {}
    for conn, stream in streams.items():
        server = Connection(Role.SERVER)
        ends[conn] = []
        for at in range(len(stream)):
            try:
                server.receive_data(stream[at : at + 1])
                while server.next_event() is not NEED_DATA:
                    ends[conn].append(at + 1)
            except RemoteProtocolError:
                ends[conn] += [at + 1]
                break
    return ends


class _Interleaved(Replay):
    """A replay that feeds parts of packets early."""

    def __init__(self, name: str, program: Program) -> None:
        super().__init__(name, world=ServerWorld)
        self.program = program
        #: The number of bytes each peer has sent, and the number of bytes sent early.
        self.sent: dict[str, int] = {}
        self.early: dict[str, int] = {}

    def step(self, at: int, element: Element, data: bytes) -> None:
        for conn in list(self.conns):
            if conn not in self.closed and self.program.flag():
                self._send_early(at, conn, self.program.byte())
        conn = element.conn
        if not (element.of_server or element.closes):
            early = min(self.early.get(conn, 0), len(data))
            self.early[conn] = self.early.get(conn, 0) - early
            data = data[early:]
            self.sent[conn] = self.sent.get(conn, 0) + len(data)
        super().step(at, element, data)

    def _send_early(self, at: int, conn: str, size: int) -> None:
        """Send up to `size` bytes of the next packet on `conn`, but not all of it."""
        for element in self.exchange[at:]:
            if element.conn == conn and not element.of_server:
                break
        else:
            return
        data = element.data[self.early.get(conn, 0) :]
        sent = self.sent.get(conn, 0)
        end = next((end for end in _ends(self.name).get(conn, []) if end > sent), sent + 1)
        data = data[: min(size, end - sent - 1)]
        if data:
            self.early[conn] = self.early.get(conn, 0) + len(data)
            self.sent[conn] = sent + len(data)
            self.conns[conn].send_raw(data)


def check_recording(program: Program) -> None:
    """Check a recorded exchange."""
    replay = _Interleaved(program.pick(_RECORDINGS), program)
    replay.play()
    replay.check()
    server_harness.World.check(replay.world)


def check_shuffled(program: Program) -> None:
    """Check that a server stays consistent if the packets arrive in another order."""
    name = program.pick(_RECORDINGS)
    left: dict[str, list[bytes]] = {}
    for element in VECTORS[name].exchange:
        if not element.of_server:
            left.setdefault(element.conn, []).append(element.data)
    world = ServerWorld(chunk=program.pick([0, 3]))
    peers = {conn: world.connect() for conn in left}
    while left:
        conn = program.pick(sorted(left))
        data = left[conn].pop(0)
        if not left[conn]:
            del left[conn]
        peer = peers[conn]
        if not peer.closed:
            if data:
                peer.send_raw(data)
            else:
                peer.close()
        if program.flag():
            world.sleep(program.pick([0.1, 1.0, 3.0]))
        world.look()


_CHECKS: Final = (
    check_submits,
    check_answers,
    check_replies,
    check_client,
    check_worker,
    check_server,
    check_admin,
    check_recording,
    check_recording,
    check_shuffled,
)


def check(data: bytes) -> None:
    """Raise if the two ways differ for the program `data`."""
    program = Program(data)
    program.pick(_CHECKS)(program)
