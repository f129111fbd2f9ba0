"""The core's work for a job, stage by stage, without I/O, for `core` and `instructions`.

A stage is a function that prepares `count` jobs and returns a function, which does the stage's work
for all of them. That function returns the objects it has created, so that their deletion is not
part of the stage.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from gearman_proto import (
    NEED_DATA,
    ClientEngine,
    ClientLink,
    Connect,
    Connection,
    NoopEncoder,
    Role,
    ServerEngine,
    ServerLink,
    WorkerEngine,
    WorkerLink,
    events,
    make_requests,
    parse_host_list,
    prepare,
)
from gearman_proto.jobs.submitting import make_batch

from .raw import DATA, RESPONSE, TASK, Packet, packet

Stage: TypeAlias = Callable[[int], Callable[[], object]]

# Bytes that an engine receives at a time.
_READ = 65536
_NAME = TASK.encode()


def _nothing() -> None: ...


def _created(number: int) -> bytes:
    return packet(Packet.JOB_CREATED, _handle(number), magic=RESPONSE)


def _complete(number: int) -> bytes:
    return packet(Packet.WORK_COMPLETE, _handle(number), DATA, magic=RESPONSE)


def _assigned(number: int) -> bytes:
    unique = b"%032x" % number
    return packet(Packet.JOB_ASSIGN_UNIQ, _handle(number), _NAME, unique, DATA, magic=RESPONSE)


def _handle(number: int) -> bytes:
    return b"H:bench:%06d" % number


def _chunks(packets: bytes) -> list[bytes]:
    return [packets[at : at + _READ] for at in range(0, len(packets), _READ)]


def _jobs(count: int) -> list[dict[str, Any]]:
    return [{"task": TASK, "data": DATA} for _ in range(count)]


class ConnectedClient:
    """A client's engine with a connection. The stage plays the server."""

    def __init__(self) -> None:
        self.engine = ClientEngine(
            parse_host_list(["bench"]), rng=random.Random(1), wall_clock=lambda: 0.0
        )
        wait = self.engine.connect(0.0, _nothing, self.engine.pool.servers[0])
        action = self.engine.next_action()
        assert isinstance(action, Connect)
        self.link: ClientLink = action.link
        self.engine.connected(self.link, 0.0)
        self.engine.release(wait, 0.0)
        assert b"exceptions" in self.send()
        self.receive(packet(Packet.OPTION_RES, b"exceptions", magic=RESPONSE))

    def send(self) -> bytes:
        return b"".join(iter(lambda: self.engine.data_to_send(self.link, 0.0), b""))

    def receive(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.engine.receive_data(self.link, chunk, 0.0)


def make(count: int) -> Callable[[], object]:
    jobs = _jobs(count)
    return lambda: make_requests(jobs, background=True)


def prepare_requests(count: int) -> Callable[[], object]:
    requests = make_requests(_jobs(count), background=True)
    return lambda: prepare(requests, NoopEncoder)


def _bulk(count: int, *, background: bool) -> tuple[ConnectedClient, Callable[[], object]]:
    client = ConnectedClient()
    requests = make_requests(_jobs(count), background=background)
    prepare(requests, NoopEncoder)
    return client, lambda: client.engine.submit(0.0, _nothing, requests)


def submit(count: int) -> Callable[[], object]:
    client, run = _bulk(count, background=True)
    return lambda: (client, run())


def send(count: int) -> Callable[[], object]:
    client, run = _bulk(count, background=True)
    run()
    return lambda: (client, client.send())


def created(count: int, *, background: bool = True) -> Callable[[], object]:
    client, run = _bulk(count, background=background)
    wait: Any = run()
    client.send()
    chunks = _chunks(b"".join(map(_created, range(count))))

    def receive() -> object:
        client.receive(*chunks)
        assert wait.done == background
        return client, wait

    return receive


def created_foreground(count: int) -> Callable[[], object]:
    return created(count, background=False)


def complete(count: int) -> Callable[[], object]:
    made: Any = created(count, background=False)()
    client, wait = made
    chunks = _chunks(b"".join(map(_complete, range(count))))

    def receive() -> object:
        client.receive(*chunks)
        assert wait.done
        return client, wait

    return receive


def in_columns(count: int) -> Callable[[], object]:
    client, jobs = ConnectedClient(), _jobs(count)
    replies = b"".join(map(_created, range(count)))

    def submit_all() -> object:
        requests = make_batch(jobs, background=True)
        prepare(requests, NoopEncoder)
        wait = client.engine.submit(0.0, _nothing, requests)
        client.send()
        client.receive(replies)
        assert wait.done
        client.engine.release(wait, 0.0)
        return client, requests

    return submit_all


def single(count: int, *, background: bool = True) -> Callable[[], object]:
    client = ConnectedClient()
    engine, jobs = client.engine, _jobs(count)
    replies = [
        _created(number) if background else _created(number) + _complete(number)
        for number in range(count)
    ]

    def submit_each() -> object:
        requests = []
        for job, reply in zip(jobs, replies):
            each = make_requests([job], background=background)
            prepare(each, NoopEncoder)
            wait = engine.submit(0.0, _nothing, each)
            for link in engine.links_to_write():
                while engine.data_to_send(link, 0.0):
                    pass
            engine.receive_data(client.link, reply, 0.0)
            assert wait.ready
            engine.release(wait, 0.0)
            requests += each
        assert requests[-1].complete
        return client, requests

    return submit_each


def single_foreground(count: int) -> Callable[[], object]:
    return single(count, background=False)


def work(count: int) -> Callable[[], object]:
    engine = WorkerEngine(parse_host_list(["bench"]), rng=random.Random(1))
    engine.register(0.0, _NAME, None)
    stream = engine.work(0.0, _nothing)
    action = engine.next_action()
    assert isinstance(action, Connect)
    link: WorkerLink = action.link
    engine.connected(link, 0.0)
    while engine.data_to_send(link, 0.0):
        pass
    assigned = [_assigned(number) for number in range(count)]

    def do_each() -> object:
        for data in assigned:
            engine.receive_data(link, data, 0.0)
            job = engine.next_job(0.0)
            assert job is not None
            result = events.WorkComplete(job.wire_handle, DATA)
            engine.release(engine.send(0.0, _nothing, job, result, done=True), 0.0)
            assert engine.next_job(0.0) is None
            for each in engine.links_to_write():
                while engine.data_to_send(each, 0.0):
                    pass
        return engine, stream

    return do_each


def serve(count: int) -> Callable[[], object]:
    engine = ServerEngine(rng=random.Random(1), wall_clock=lambda: 0.0)
    client, worker = (engine.accept("bench", number, 0.0) for number in range(2))

    def exchange(link: ServerLink, data: bytes) -> dict[ServerLink, bytes]:
        """Return the data sent to each link after `link` has sent `data`."""
        replies = {client: b"", worker: b""}
        engine.receive_data(link, data, 0.0)
        while True:
            for each in list(engine.links_to_write()):
                while data := engine.data_to_send(each, 0.0):
                    replies[each] += data
            if not link.has_backlog:
                return replies
            engine.handle_timeout(0.0)

    exchange(worker, packet(Packet.CAN_DO, _NAME))
    submits = _chunks(
        b"".join(
            packet(Packet.SUBMIT_JOB, _NAME, b"%032x" % number, DATA) for number in range(count)
        )
    )
    # The same number of grabs as a worker of `raw` has in flight.
    grabs = [packet(Packet.GRAB_JOB_UNIQ) * some for some in _parts(count, 64)]

    def run() -> object:
        done = 0
        for chunk in submits:
            exchange(client, chunk)
        for chunk in grabs:
            jobs = exchange(worker, chunk)[worker].split(b"\0RES")[1:]
            results = [
                packet(Packet.WORK_COMPLETE, job[8:].split(b"\0", 1)[0], DATA) for job in jobs
            ]
            done += exchange(worker, b"".join(results))[client].count(b"\0RES")
        assert done == count
        return engine

    return run


def _parts(count: int, size: int) -> list[int]:
    return [min(size, count - at) for at in range(0, count, size)]


# One Connection.


def _asking(count: int) -> Connection:
    connection = Connection(Role.CLIENT)
    connection.send_submits(events.SubmitJob, _NAME, [b""] * count, [DATA] * count, range(count))
    return connection


def parse_each(count: int) -> Callable[[], object]:
    connection = _asking(count)
    connection.receive_data(b"".join(map(_created, range(count))))
    return lambda: [connection.next_event() for _ in range(count)]


def parse_run(count: int) -> Callable[[], object]:
    connection = _asking(count)
    connection.receive_data(b"".join(map(_created, range(count))))

    def run() -> object:
        handles, tokens = connection.next_created()
        assert len(handles) == count
        return handles, tokens

    return run


def make_each(count: int) -> Callable[[], object]:
    connection = Connection(Role.CLIENT)
    uniques = [b"%032x" % number for number in range(count)]
    submit = events.SubmitJobBg
    return lambda: [
        connection.send(submit(_NAME, unique, DATA), token) for token, unique in enumerate(uniques)
    ]


def make_run(count: int) -> Callable[[], object]:
    connection = Connection(Role.CLIENT)
    uniques, payloads = [b"%032x" % number for number in range(count)], [DATA] * count
    return lambda: connection.send_submits(
        events.SubmitJobBg, _NAME, uniques, payloads, range(count)
    )


def parse_assigned(count: int) -> Callable[[], object]:
    connection = Connection(Role.WORKER)
    connection.send(events.CanDo(_NAME))
    for _ in range(count):
        connection.send(events.GrabJobUniq())
    connection.receive_data(b"".join(map(_assigned, range(count))))
    return lambda: list(iter(connection.next_event, NEED_DATA))


def make_complete(count: int) -> Callable[[], object]:
    connection = Connection(Role.WORKER)
    handles = [_handle(number) for number in range(count)]
    return lambda: [connection.send(events.WorkComplete(handle, DATA)) for handle in handles]


#: The stages, by their names in tables and in the file of `instructions`.
STAGES: dict[str, Stage] = {
    "make_requests": make,
    "prepare": prepare_requests,
    "background jobs: submit": submit,
    "background jobs: data_to_send": send,
    "background jobs: JOB_CREATED": created,
    "foreground jobs: JOB_CREATED": created_foreground,
    "foreground jobs: WORK_COMPLETE": complete,
    "background jobs in one call": in_columns,
    "one background job, all of it": single,
    "one foreground job, all of it": single_foreground,
    "a worker's job": work,
    "a job server's foreground job": serve,
    "Connection: JOB_CREATED in a run": parse_run,
    "Connection: JOB_CREATED": parse_each,
    "Connection: JOB_ASSIGN_UNIQ": parse_assigned,
    "Connection: submits in a run": make_run,
    "Connection: a submit": make_each,
    "Connection: WORK_COMPLETE": make_complete,
}

# The core's most frequent operations in plain Python: calls, attributes, dicts, deques, bytes,
# numbers.


class _Item:
    __slots__ = ("kind", "name", "state")

    def __init__(self, kind: int, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.state = "new"

    def turn(self, state: str) -> bool:
        self.state = state
        return self.kind > 0


def calibrate(count: int) -> Callable[[], object]:
    """Do work of a fixed size that does not depend on the library."""
    header = struct.Struct(">4sII")
    names = [b"%032x" % number for number in range(count)]

    def run() -> object:
        items: dict[bytes, _Item] = {}
        queue: list[_Item] = []
        packets = []
        for number, name in enumerate(names):
            item = _Item(number + 1, name)
            items[name] = item
            queue.append(item)
            body = b"\0".join((_NAME, name, DATA))
            packets.append(header.pack(b"\0REQ", 7, len(body)) + body)
        data = b"".join(packets)
        at = done = 0
        for item in itertools.islice(queue, count):
            magic, kind, size = header.unpack_from(data, at)
            start, at = at + 12, at + 12 + size
            _, name, _ = data[start:at].split(b"\0", 2)
            found = items.pop(name, None)
            if found is item and kind == 7 and magic.startswith(b"\0") and found.turn("done"):
                done += 1
        assert done == count
        return queue

    return run
