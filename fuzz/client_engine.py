"""For any input, a client's engine does not raise, stays consistent and ends every call.

The input is a program (see `program`). The caller submits, waits, queries, gives up and closes.
Servers answer correctly or wrongly, and send any bytes. Links fail and time passes. After each
step:

* Only calls of the caller's side have raised, and only exceptions in ALLOWED.
* Each request is in exactly one place, and each call counts its requests correctly
  (`tests.engines.harness`).
* A pending call has a deadline, or an item on a living link that will end it.
* After `handle_timeout`, `next_deadline` is later than the time passed to it.
* A server's Connection accepts the engine's whole output.
* The numbers of timers and of buffered bytes are bounded.

At the end, servers fail until no link is left. Then all calls are done, except those that only
`close` ends.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.engines.base import LinkState
from gearman_proto.engines.client.cancelling import Cancel, CancelWait
from gearman_proto.engines.client.link import requests_of
from gearman_proto.engines.client.queries import Arrival, Probe, StatusWait
from gearman_proto.engines.waits import RequestsWait, Subscription, Wait
from gearman_proto.errors import GearmanError, InvalidClientState, LocalProtocolError
from gearman_proto.jobs import batch as batches
from gearman_proto.jobs.batch import Batch, Columns
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GetStatusUnique,
    InvalidRequest,
    JobCreated,
    OptionReq,
    OptionRes,
    PacketEvent,
    StatusRes,
    StatusResUnique,
    TextLine,
)
from tests.engines.harness import Bell, Peer, to_be_made

from .game import TIMEOUTS, ConnectingGame, with_peer
from .program import FROM_SERVER, Program
from .worlds import ClientWorld, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.client.engine import ClientEngine
    from gearman_proto.engines.client.link import ClientLink
    from gearman_proto.jobs.request import GearmanJobRequest

#: The exceptions that a call of the caller's side can raise.
ALLOWED: Final[dict[type[Exception], str]] = {
    InvalidClientState: "the engine is closed; or a request has neither handle nor unique",
    LocalProtocolError: "a request was changed to what servers do not take",
}
_MAX_PACKET_SIZE: Final = 4096
#: Changes that an application can make to a request.
_CHANGES: Final[tuple[tuple[str, Any], ...]] = (
    ("task", "g"),
    ("task", 7),
    ("task", "n\0l"),
    ("task", "f" * 9000),
    ("unique", "v"),
    ("unique", "\ud800"),
    ("unique", None),
    ("unique", "w" * 64),
    ("priority", []),
    ("priority", PRIORITY_HIGH),
    ("background", True),
    ("background", False),
    ("run_at", "soon"),
    ("reducer", "r"),
    ("_gm_payload", None),
    ("_gm_payload", b"other"),
)
_ABOUT_JOBS: Final = [p for p in FROM_SERVER if p.name.startswith("WORK_")]
# Large enough to be written in pieces.
_LARGE: Final = b"z" * 600_000
_IS_LARGE: Final = 255
# Maximum number of finished calls to keep. More would not find more.
_MAX_DONE: Final = 4


class _Game(ConnectingGame[Peer]):
    """A client and its adversaries."""

    world: ClientWorld
    engine: ClientEngine

    def __init__(self, program: Program) -> None:
        world = ClientWorld(
            1 + program.below(3),
            seed=program.below(4),
            routing=program.pick(["random", "unique"]),
            connect_timeout=3.0,
            heartbeat=program.pick([None, 4.0, 30.0]),
            exceptions=program.flag(),
            max_abandoned=program.pick([2**30, 3000, 0]),
            max_packet_size=_MAX_PACKET_SIZE,
        )
        super().__init__(program, world)
        self.requests: list[GearmanJobRequest] = []
        self.questions: defaultdict[Peer, deque[Event]] = defaultdict(deque)
        self.handles = [b"H:0"]
        self.steps = [
            self.submit,
            self.submit,
            self.submit_many,
            self.wait,
            self.stream,
            self.updates,
            self.statuses,
            self.watch,
            self.connect,
            self.release,
            self.release,
            self.drop,
            self.read_updates,
            self.change,
            self.disconnect,
            self.up,
            self.up,
            self.fail,
            self.read,
            self.read,
            self.answer,
            self.answer,
            self.answer,
            self.say,
            self.say,
            self.send_raw,
            self.too_late,
            self.sleep,
            self.sleep_to_deadline,
            self.close,
            self.abandon,
            self.wait_for_servers,
            self.many_updates,
            self.cancel,
        ]

    # The caller.

    def _call(self, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        try:
            call(*args, timeout=self.program.pick(TIMEOUTS), **options)
        except tuple(ALLOWED):
            pass

    def submit(self) -> None:
        program = self.program
        jobs: list[dict[str, Any]] = []
        background = program.flag()
        for _ in range(1 + program.below(4)):
            task, size = program.pick(["f", "g"]), program.byte()
            data = _LARGE if size == _IS_LARGE else b"d" * size
            job: dict[str, Any] = {"task": task, "data": data}
            match program.below(8):
                case 0:
                    job["unique"] = program.pick(["u", "v", "-", ""])
                case 1:
                    job["unique"] = "u"
                case 2:
                    job["priority"] = program.pick([PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE])
                case 3 if background:
                    job["run_at"] = 1_700_000_000 + program.byte()
                case 4:
                    job["reducer"] = "r"
            jobs.append(job)
        requests = make_requests(jobs, background=background, max_retries=program.below(3))
        requests += program.some(self.requests, 2)
        try:
            prepare(requests, NoopEncoder)
        except (TypeError, ValueError):
            return  # The application has changed the request to an invalid one.
        self.requests += requests
        self._call(self.world.submit, *requests, accepted_only=program.flag())

    def submit_many(self) -> None:
        program = self.program
        count = 4 + program.below(20)
        background, uniques = program.flag(), None
        if background and program.flag():
            uniques = [program.pick([None, "u", "v"]) for _ in range(count)]
        kinds: list[Any] = [("f", None), ("g", PRIORITY_HIGH)] * count
        data = [b"x"] * count
        batch = Batch(Columns(kinds[:count], data, uniques, background, 1 + program.below(2)))
        prepare(batch, NoopEncoder)
        looks = program.flag()

        def submit(**options: Any) -> None:
            wait = self.engine.submit(self.now, Bell(), batch, **options)
            self.world.waits.append(wait)

        self._call(submit, accepted_only=program.flag())
        if looks:
            self.requests += batch[count // 2 :]

    def _about(self, call: Callable[..., Any], **options: Any) -> None:
        self._call(call, *self.program.some(self.requests, 3), **options)

    def wait(self) -> None:
        self._about(self.world.wait_completed)

    def stream(self) -> None:
        self._about(self.world.as_completed)

    def updates(self) -> None:
        requests = [each for each in self.requests if each.background is not True]
        if requests:
            self._call(self.world.updates, self.program.pick(requests))

    def many_updates(self) -> None:
        requests = [each for each in self.requests if each.background is not True]
        self._call(self.world.updates, self.program.some(requests, 3))

    def statuses(self) -> None:
        self._about(self.world.statuses, by_unique=self.program.flag())

    def _waiting(self, call: Callable[..., Wait], *args: Any) -> None:
        def begin(**options: Any) -> None:
            self.world.waits.append(call(self.now, Bell(), *args, **options))

        self._call(begin)

    def watch(self) -> None:
        self._waiting(self.engine.watch)

    def connect(self) -> None:
        self._waiting(self.engine.connect, self.program.pick(self.engine.pool.servers))

    def wait_for_servers(self) -> None:
        self._waiting(self.engine.wait_for_servers)

    def cancel(self) -> None:
        with contextlib.suppress(ValueError):  # The server chose a handle that is no word.
            self._about(self.world.cancel)

    def release(self) -> None:
        """Let a call return or give up."""
        if not self.world.waits:
            return
        self._release(self.program.pick(self.world.waits))

    def _release(self, wait: Wait) -> None:
        if isinstance(wait, Subscription):
            while wait.take() is not None:
                pass
        self.world.release(wait)
        if wait.done:
            try:
                wait.raise_error()
            except GearmanError as error:
                assert "internal error" not in str(error), error

    def drop(self) -> None:
        """Let the application drop a request."""
        if self.requests:
            del self.requests[self.program.byte() % len(self.requests)]

    def change(self) -> None:
        """Let the application change a request, even one in flight."""
        if self.requests:
            name, value = self.program.pick(_CHANGES)
            setattr(self.program.pick(self.requests), name, value)

    def read_updates(self) -> None:
        for request in self.program.some(self.requests, 2):
            while next_update(request) is not None:
                pass

    # The servers.

    def up(self) -> None:
        for peer in self.world.peers:
            peer.grants_options = False
        super().up()

    @with_peer
    def read(self, peer: Peer) -> None:
        """Let a server read one chunk, or everything."""
        all_of_it = self.program.flag()
        while data := peer.pull():
            for event in peer.read(data):
                assert not isinstance(event, InvalidRequest), event
                self.questions[peer].append(event)
            if not all_of_it:
                break

    @with_peer
    def answer(self, peer: Peer) -> None:
        """Let a server answer its oldest queries, if the link has any."""
        questions = self.questions[peer]
        data = b""
        for _ in range(1 + self.program.below(5)):
            if questions and isinstance(questions[0], TextLine):
                questions.popleft()
                data += self.program.pick([b"OK\r\n", b"ERR UNKNOWN_JOB\r\n", b"ERR no\r\n"])
            elif questions:
                data += packed(self._answer_to(questions.popleft()))
        self.give(peer, data)

    def _answer_to(self, question: Event) -> PacketEvent:
        refuses = self.program.byte()
        if refuses > 247:
            return Error(self.program.pick([b"QUEUE_ERROR", b"JOB_NOT_FOUND", b"X"]), b"no")
        if isinstance(question, OptionReq):
            return OptionRes(question.option)
        if isinstance(question, EchoReq):
            return EchoRes(question.data)
        if isinstance(question, GetStatus):
            return StatusRes(question.handle, b"%d" % (refuses % 2), b"1", b"", b"x")
        if isinstance(question, GetStatusUnique):
            return StatusResUnique(question.unique, b"1", b"0", b"0", b"0", b"0")
        if refuses % 4:
            self.handles.append(b"H:%d" % len(self.handles))
            return JobCreated(self.handles[-1])
        return JobCreated(self.program.value(self.handles))

    @with_peer
    def say(self, peer: Peer) -> None:
        """Let a server send a packet that might be out of order, usually about a job."""
        kinds = _ABOUT_JOBS if self.program.byte() < 200 else FROM_SERVER
        self.give(peer, packed(self.program.event(kinds, self.handles)))

    # Invariants.

    def check(self) -> None:
        super().check()
        world, engine = self.world, self.engine
        done = [wait for wait in world.waits if wait.done]
        for wait in done[:-_MAX_DONE]:
            self._release(wait)
        links: list[ClientLink] = engine.pool.links()
        assert not (engine.closed and links)
        for link in links:
            self._check_link(link)
        for wait in world.waits:
            assert wait.done or self._will_end(wait, links), wait
        assert len(engine._waits) <= len(world.waits)

    def _check_link(self, link: ClientLink) -> None:
        assert link.connection.buffered <= _MAX_PACKET_SIZE + 12
        if link.state in (LinkState.WAITING, LinkState.CONNECTING):
            assert link in self.engine._timers
        asked = [
            t
            for t in link.connection.unanswered_tokens()
            if not isinstance(t, Probe) or t.is_awaited
        ]
        if self.engine._heartbeat != float("inf") and (asked or link.jobs):
            assert link.heartbeat.due is not None
            assert link in self.engine._timers

    def _will_end(self, wait: Wait, links: list[ClientLink]) -> bool:
        if wait.deadline is not None:
            return wait in self.engine._timers
        if isinstance(wait, CancelWait):
            return wait in self._cancelling(links)
        if isinstance(wait, StatusWait):
            items = {id(item) for link in links for item in link.items()}
            return any(id(query) in items for query in wait.queries if not query.answered)
        if isinstance(wait, RequestsWait):
            if not wait.members and not to_be_made(wait, links):
                return wait in self.engine._watchers
            mine = [request for request in wait.members if wait in request._gm_waits]
            return bool(to_be_made(wait, links)) or any(r._gm_link in links for r in mine)
        return any(wait in link.waits for link in links) or wait in self._arrivals(links)

    def _cancelling(self, links: list[ClientLink]) -> list[CancelWait]:
        """Return the calls of `cancel` that wait for an acknowledgment or for an admin connection.

        A question to an admin connection has a deadline.
        """
        requests = [each for link in links for item in link.items() for each in requests_of(item)]
        waits = [wait for request in requests for wait in request._gm_waits]
        waiting = [wait.wait for wait in waits if isinstance(wait, Cancel)]
        for admin in self.engine._admins.values():
            for question in admin._waits:
                assert question in self.engine._timers
                waiting.append(question.wake.__self__.wait)
        return waiting

    def _arrivals(self, links: list[ClientLink]) -> list[Wait]:
        """Return the calls of `wait_for_servers`."""
        items = [item for link in links for item in link.items()]
        return [wait for item in items if isinstance(item, Arrival) for wait in item.waits]

    def end(self) -> None:
        world = self.world
        # These calls retry until a server answers.
        arrivals = self._arrivals(self.engine.pool.links())
        for wait in [wait for wait in world.waits if wait in arrivals]:
            world.release(wait)
        for turn in range(200):
            peers = world.alive()
            if not peers and not self.engine.pool.links():
                break
            for peer in peers:
                if turn % 2 and not peer.link.is_up:
                    peer.up()
                else:
                    peer.lose()
            world.sleep(40.0)
            self.check()
        assert not self.engine.pool.links()
        for wait in world.waits:
            assert wait.done or wait.deadline is not None or wait in self.engine._watchers
        world.close()
        for wait in list(world.waits):
            assert wait.done
            world.release(wait)
        assert self.engine.next_deadline() is None
        assert not self.engine._waits


def check(data: bytes) -> None:
    """Raise if the invariant does not hold for the program `data`."""
    with mock.patch.object(batches, "SLICE", 3):
        _Game(Program(data)).play()
