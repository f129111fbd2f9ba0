"""A test world for the client engine, with scripted servers and a manual clock.

The world uses no sockets and no real time. A test acts as the driver and the servers, so it
reads like a conversation::

    world = World()
    request = world.request(data=b"in")
    wait = world.submit(request)
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", wire(request), b"in")]
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert wait.done

After each step the World checks the engine's invariants.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto.address import parse_host_list
from gearman_proto.constants import JOB_CREATED
from gearman_proto.engines.admin import AdminLink
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.engines.waits import RequestsWait, Subscription, Wait
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
    from collections.abc import Collection, Iterable

    from gearman_proto.engines.client.cancelling import CancelWait
    from gearman_proto.engines.client.link import ClientLink
    from gearman_proto.engines.client.queries import StatusWait
    from gearman_proto.jobs.request import GearmanJobRequest

#: Wall-clock time of a World when its monotonic clock is 0.
EPOCH = 1_700_000_000.0


def raw(*events: PacketEvent) -> bytes:
    """Return the encoded response packets of `events`, without a check of their order."""
    return b"".join(pack(e.packet, type(e).arguments(e), MAGIC_RESPONSE) for e in events)


def wire(request: GearmanJobRequest) -> bytes:
    """Return the encoded unique of `request`."""
    assert request.job.unique is not None
    return request.job.unique.encode()


W = TypeVar("W", bound=Wait)


class Bell:
    """A `wake` callback that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def wakes(wait: Wait) -> int:
    """Return the number of times that `wait` has called its `wake`."""
    assert isinstance(wait.wake, Bell)
    return wait.wake.count


class Peer(links.Server):
    """The server's end of one link."""

    world: World
    link: ClientLink

    def __init__(self, world: World, link: ClientLink, timeout: float) -> None:
        super().__init__(world, link, timeout)
        #: If True, the Peer answers each OPTION_REQ and hides it from the test.
        self.grants_options = True

    def pull(self) -> bytes:
        """Return one chunk of the engine's data. Check that `links_to_write` named the link."""
        engine = self.world.engine
        is_named = self.link in [*engine.links_to_write()]
        data: bytes = self.world.call(engine.data_to_send, self.link, self.world.now)
        assert is_named or not data
        return data

    def take(self) -> list[Event]:
        """Return all events that the engine has to send."""
        events = []
        while data := self.pull():
            events += self.read(data)
        return events

    def read(self, data: bytes) -> list[Event]:
        """Return the events in `data` from the engine."""
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
        """Send `events`. The server's Connection rejects events that are out of order."""
        self.send_raw(b"".join([self.connection.send(event) for event in events]))


class World(links.World[Peer]):
    """A client engine with its callers, driver and servers."""

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
        """Open the link of a retry after its server has cooled down, and return the Peer."""
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
        """Return a request that is ready to submit."""
        requests = make_requests(
            [{"task": task, "data": data, **job}], background=background, max_retries=retries
        )
        prepare(requests, encoder)
        return requests[0]

    def submit(self, *requests: GearmanJobRequest, **options: Any) -> RequestsWait:
        return self._made(self.engine.submit(self.now, Bell(), list(requests), **options))

    def wait_completed(self, *requests: GearmanJobRequest, **options: Any) -> RequestsWait:
        return self._made(self.engine.wait_completed(self.now, Bell(), requests, **options))

    def as_completed(self, *requests: GearmanJobRequest, **options: Any) -> Subscription:
        return self._made(self.engine.as_completed(self.now, Bell(), requests, **options))

    def updates(
        self, requests: GearmanJobRequest | Collection[GearmanJobRequest], **options: Any
    ) -> Subscription:
        return self._made(self.engine.updates(self.now, Bell(), requests, **options))

    def statuses(
        self, *requests: GearmanJobRequest, by_unique: bool = False, **options: Any
    ) -> StatusWait:
        queries = status_queries(self.engine.pool, requests, by_unique=by_unique)
        return self._made(self.engine.statuses(self.now, Bell(), requests, queries, **options))

    def connect(self, **options: Any) -> Wait:
        """Wait for a connection to the first server."""
        server = self.engine.pool.servers[0]
        return self._made(self.engine.connect(self.now, Bell(), server, **options))

    def wait_for_servers(self, **options: Any) -> Wait:
        return self._made(self.engine.wait_for_servers(self.now, Bell(), **options))

    def idle_server(self) -> Peer:
        """Return the only server, with an unused connection."""
        self.connect()
        return self.serve()

    def cancel(self, *requests: GearmanJobRequest, **options: Any) -> CancelWait:
        return self._made(self.engine.cancel(self.now, Bell(), requests, **options))

    def cancel_abandoned(self, *requests: GearmanJobRequest, **options: Any) -> CancelWait:
        return self._made(self.engine.cancel_abandoned(self.now, Bell(), requests, **options))

    def admin(self) -> Peer:
        """Return the server of the only admin connection, which is open or opens now."""
        self.act()
        (peer,) = (peer for peer in self.alive() if isinstance(peer.link, AdminLink))
        return peer if peer.link.is_up else peer.up()

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
        """Return a request that `server` has acknowledged and no call waits for."""
        request = self.request(**job)
        self.release(self.submit(request))
        server.take()
        server.send(JobCreated(handle))
        assert request.state == JOB_CREATED
        return request

    # Invariants.

    def check(self) -> None:
        """Check the engine's invariants."""
        links = [server.link for server in self.engine.pool.servers if server.link is not None]
        for link in links:
            assert link.alive
            audit.check_places(link)
        for peer in self.peers:
            if not peer.link.alive and not isinstance(peer.link, AdminLink):
                assert not peer.link.is_up
                assert peer.link not in links
                assert not peer.link.outbox
                assert not peer.link.batches
                assert not peer.link.jobs
        for wait in self.waits:
            check_wait(wait, to_be_made(wait, links))


def to_be_made(wait: Wait, links: Iterable[ClientLink]) -> int:
    """Return the number of jobs of `wait` that are in columns and have not ended."""
    return sum(
        columns.size - columns.accepted
        for link in links
        for columns, other in link.batches.items()
        if other is wait
    )


def check_wait(wait: Wait, to_be_made: int = 0) -> None:
    """Check that an unreleased Wait agrees with its requests and has woken its caller."""
    if not isinstance(wait, Subscription):
        assert wakes(wait) == wait.done
    audit.check_wait(wait, to_be_made)
