"""A small world for an engine: scripted servers, and a clock that stands until it is moved.

There is no socket and no time here. A test takes the part of the driver and of the servers, so it
reads like a conversation::

    world = World()
    request = world.request(data=b"in")
    wait = world.submit(request)
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", wire(request), b"in")]
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert wait.done

After each step the World checks what has to be true of an engine at any time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto.address import parse_host_list
from gearman_proto.constants import JOB_CREATED
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.engines.waits import RequestsWait, Stream, Wait
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.testing import audit, pack
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    MAGIC_RESPONSE,
    Event,
    JobCreated,
    OptionReq,
    OptionRes,
    PacketEvent,
)

from . import links

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.engines.client.link import ClientLink
    from gearman_proto.engines.client.queries import StatusWait
    from gearman_proto.jobs.request import GearmanJobRequest

#: What the wall clock of a World shows when its other clock shows 0.
EPOCH = 1_700_000_000.0


def raw(*events: PacketEvent) -> bytes:
    """The packets as a server sends them, whether or not they are in order."""
    return b"".join(pack(e.packet, type(e).arguments(e), MAGIC_RESPONSE) for e in events)


def wire(request: GearmanJobRequest) -> bytes:
    """The unique of `request`, as it goes on the wire."""
    assert request.job.unique is not None
    return request.job.unique.encode()


W = TypeVar("W", bound=Wait)


class Bell:
    """A `wake` that counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def wakes(wait: Wait) -> int:
    """How often `wait` has called its `wake`."""
    assert isinstance(wait.wake, Bell)
    return wait.wake.count


class Peer(links.Server):
    """The other end of one link."""

    world: World
    link: ClientLink

    def __init__(self, world: World, link: ClientLink, timeout: float) -> None:
        super().__init__(world, link, timeout)
        #: Whether to answer OPTION_REQ, and not to show it.
        self.grants_options = True

    def pull(self) -> bytes:
        """One chunk of what the engine has to send. That there is some has to be known before."""
        engine = self.world.engine
        is_named = self.link in [*engine.links_to_write()]
        data: bytes = self.world.call(engine.data_to_send, self.link, self.world.now)
        assert is_named or not data
        return data

    def take(self) -> list[Event]:
        """All that the engine has to send, until now."""
        events = []
        while data := self.pull():
            events += self.read(data)
        return events

    def read(self, data: bytes) -> list[Event]:
        """What `data` from the engine means."""
        events: list[Event] = []
        self.connection.receive_data(data)
        while (event := self.connection.next_event()) is not NEED_DATA:
            assert isinstance(event, Event)
            if self.grants_options and isinstance(event, OptionReq):
                self.send(OptionRes(event.option))
            else:
                events.append(event)
        return events

    def send(self, *events: Event) -> None:
        """Answer. The server's Connection refuses what is out of order."""
        self.send_raw(b"".join([self.connection.send(event) for event in events]))


class World(links.World[Peer]):
    """An engine, and all that is around it."""

    def __init__(
        self,
        servers: int | Iterable[Any] = 1,
        *,
        seed: int = 1,
        chunk: int = 0,
        **options: Any,
    ) -> None:
        if isinstance(servers, int):
            servers = [f"s{number}" for number in range(servers)]
        super().__init__(Peer, chunk)
        self.engine: ClientEngine = ClientEngine(
            parse_host_list(list(servers)),
            rng=random.Random(seed),
            wall_clock=lambda: EPOCH + self.now,
            **options,
        )
        self.waits: list[Wait] = []

    def serve_again(self) -> Peer:
        """Bring up the link of a retry, when its server has cooled down, and return it."""
        if not any(peer.link.alive for peer in self.peers):
            cool = min(server.cool_until for server in self.engine.pool.servers)
            self.sleep(max(cool - self.now, 0.0))
        return self.serve()

    # The caller's part.

    def request(
        self,
        task: str = "task",
        data: Any = b"data",
        *,
        background: bool = False,
        retries: int = 0,
        encoder: Any = NoopEncoder,
        **job: Any,
    ) -> GearmanJobRequest:
        """A request that is ready to be submitted."""
        requests = make_requests(
            [{"task": task, "data": data, **job}], background=background, max_retries=retries
        )
        prepare(requests, encoder)
        return requests[0]

    def submit(self, *requests: GearmanJobRequest, **options: Any) -> RequestsWait:
        wait = self.engine.submit(self.now, Bell(), list(requests), **options)
        return self._made(wait)

    def wait_completed(self, *requests: GearmanJobRequest, **options: Any) -> RequestsWait:
        return self._made(self.engine.wait_completed(self.now, Bell(), requests, **options))

    def as_completed(self, *requests: GearmanJobRequest, **options: Any) -> Stream:
        stream = self.engine.as_completed(self.now, Bell(), requests, **options)
        self._made(stream)
        return stream

    def updates(self, request: GearmanJobRequest, **options: Any) -> Stream:
        stream = self.engine.updates(self.now, Bell(), request, **options)
        self._made(stream)
        return stream

    def statuses(
        self, *requests: GearmanJobRequest, by_unique: bool = False, **options: Any
    ) -> StatusWait:
        queries = status_queries(self.engine.pool, requests, by_unique=by_unique)
        wait = self.engine.statuses(self.now, Bell(), requests, queries, **options)
        self._made(wait)
        return wait

    def release(self, wait: Wait) -> None:
        self.engine.release(wait, self.now)
        self.waits = [other for other in self.waits if other is not wait]
        self.check()

    def close(self) -> None:
        self.call(self.engine.close, self.now)

    def _made(self, wait: W) -> W:
        links.raise_refusal(wait)
        self.waits.append(wait)
        self.act()
        self.check()
        return wait

    def job(self, server: Peer, handle: bytes = b"H:1", **job: Any) -> GearmanJobRequest:
        """A request that was submitted to `server` and acknowledged; nobody waits for it."""
        request = self.request(**job)
        self.release(self.submit(request))
        server.take()
        server.send(JobCreated(handle))
        assert request.state == JOB_CREATED
        return request

    # What has to be true at any time.

    def check(self) -> None:
        """Look at the whole engine."""
        links = [server.link for server in self.engine.pool.servers if server.link is not None]
        for link in links:
            assert link.alive
            audit.check_places(link)
        for peer in self.peers:
            if not peer.link.alive:
                assert not peer.link.is_up
                assert peer.link not in links
                assert not peer.link.outbox
                assert not peer.link.supplies
                assert not peer.link.jobs
        for wait in self.waits:
            check_wait(wait, to_be_made(wait, links))


def to_be_made(wait: Wait, links: Iterable[ClientLink]) -> int:
    """How many requests of `wait` are still to be made."""
    return sum(
        len(supply) - len(supply.requests)
        for link in links
        for supply, waits in link.supplies
        if wait in waits
    )


def check_wait(wait: Wait, to_be_made: int = 0) -> None:
    """A Wait that has not been released agrees with its requests, and has woken who waits."""
    if not isinstance(wait, Stream):
        assert wakes(wait) == wait.done
    audit.check_wait(wait, to_be_made)
