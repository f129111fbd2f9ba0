"""Tests of batches, whose jobs are in columns.

Each scenario runs twice, with a list of requests and with a Batch. Both runs must send the same
packets, and end with the same states of the requests and calls.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.constants import JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN, PRIORITY_HIGH
from gearman_proto.engines.client import engine as client
from gearman_proto.errors import GearmanError, ServerUnavailable
from gearman_proto.jobs import batch, submitting
from gearman_proto.jobs.batch import untouched
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_batch, make_requests, prepare
from gearman_proto.jobs.tracking import is_orphaned
from gearman_proto.wire.packets import Error, JobCreated, SubmitJobBg, WorkComplete
from tests.profiles import examples

from .harness import Bell, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.waits import Wait

    from .harness import Peer

MANY = 20


def numbered(call: int, number: int) -> dict[str, Any]:
    return {"task": "task", "data": b"%d-%02d" % (call, number)}


def plain(number: int) -> dict[str, Any]:
    return {"task": "task", "data": b"%d" % number}


#: Forms of jobs, by name.
FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "plain": plain,
    "text": lambda number: {"task": "task", "data": str(number)},
    "uniques": lambda number: {**plain(number), "unique": f"\xe9{number}"},
    "few uniques": lambda number: {
        **plain(number),
        "unique": ["u", "v", None, "", "-"][number % 5],
    },
    "priorities": lambda number: {
        **plain(number),
        "priority": [PRIORITY_HIGH, None][number // 8 % 2],
    },
    "two tasks": lambda number: {"task": ["a", "b"][number // 2 % 2], "data": b"%d" % number},
    "large": lambda number: {"task": "task", "data": b"x" * [10, 70_000, 600_000][number % 5 % 3]},
}


class Play:
    """A World and a record of its events."""

    def __init__(self, *, at_once: bool, background: bool = True, servers: int = 1) -> None:
        self.world = World(servers, max_abandoned=10_000)
        self.at_once = at_once
        self.background = background
        self.form: Callable[[int], dict[str, Any]] = plain
        self.seen: list[Any] = []
        self.batches: list[Any] = []
        self._count = 0

    def submit(self, retries: int = 0, **options: Any) -> Wait:
        jobs = [self.form(number) for number in range(MANY)]
        make = make_requests if self.at_once else make_batch
        made: Any = make(jobs, background=self.background, max_retries=retries)
        prepare(made, NoopEncoder)
        if not self.at_once and (self.background or "unique" not in jobs[0]):
            assert untouched(made) is not None
        self.batches.append(made)
        wait = self.world.engine.submit(self.world.now, Bell(), made, **options)
        return self.world._made(wait)

    def answer(self, server: Peer, *, chunks: int = 1) -> None:
        """Answer the submits of the next chunks. The window limits the size of each chunk."""
        for _ in range(chunks):
            submits: list[Any] = server.read(server.pull())
            self.seen += [(type(submit), submit.unique, submit.data) for submit in submits]
            for _ in submits:
                self._count += 1
                handle = b"H:%d" % self._count
                server.send(JobCreated(handle))
                if not self.background:
                    server.send(WorkComplete(handle, b"done"))

    def finish(self) -> None:
        while any(peer.link.alive for peer in self.world.peers):
            before = len(self.seen)
            self.answer(self.world.serve())
            if len(self.seen) == before:
                break

    def end(self) -> list[Any]:
        for made in self.batches:
            for request in made:
                self.seen.append(
                    (request.data, request.state, request.timed_out, str(request.error))
                )
        return self.seen


def served(play: Play) -> None:
    wait = play.submit()
    play.finish()
    assert wait.done


def one_beside_it(play: Play) -> None:
    play.submit()
    server = play.world.serve()
    play.answer(server)
    other = play.world.submit(play.world.request(data=b"other", background=play.background))
    play.finish()
    assert other.done
    # The other request can overtake requests that do not exist yet, so ignore the order.
    play.seen = sorted(data for _, _, data in play.seen)


def lost(play: Play, retries: int = 0) -> None:
    wait = play.submit(retries)
    server = play.world.serve()
    play.answer(server, chunks=2)
    server.pull()
    server.lose()
    for _ in range(3):
        if not wait.done:
            play.world.serve_again()
            play.finish()
    play.seen.append(str(wait.error))


def looked_at(play: Play) -> None:
    """Another thread looks at requests, and waits for some, while the jobs are submitted."""
    wait = play.submit()
    play.answer(play.world.serve())
    seen = [play.batches[0][number] for number in (0, 6, MANY - 1)]
    other = play.world.wait_completed(*seen)
    assert not other.done
    play.finish()
    assert wait.done
    assert other.done
    play.seen.append([(request.state, request.handle) for request in seen])


def cancelled(play: Play) -> None:
    """The engine removes requests that are not sent."""
    wait = play.submit()
    play.answer(play.world.serve())
    beside = play.world.request(background=play.background, unique="beside")
    play.world.submit(beside)
    play.world.cancel(beside)
    assert beside.state == JOB_FAILED
    play.world.cancel(play.batches[0][MANY - 1])
    play.finish()
    assert wait.done


def with_an_error(play: Play) -> None:
    wait = play.submit()
    server = play.world.serve()
    play.answer(server)
    _, *others = server.read(server.pull())
    handles = [b"H:e%d" % number for number in range(len(others))]
    server.send(Error(b"QUEUE_ERROR", b"full"), *map(JobCreated, handles))
    if not play.background:
        server.send(*(WorkComplete(handle, b"") for handle in handles))
    play.finish()
    assert wait.done


def refused(play: Play) -> None:
    wait = play.submit()
    play.world.peer().refuse()
    assert wait.done
    with pytest.raises(ServerUnavailable) as caught:
        wait.raise_error()
    assert caught.value.job_requests is play.batches[0]


def timed_out(play: Play) -> None:
    """Later calls send the requests that the timed-out call has not sent."""
    wait = play.submit(timeout=5.0)
    play.answer(play.world.serve())
    play.world.sleep(5.0)
    assert wait.done
    assert wait.timed_out
    play.world.release(wait)
    play.seen.append([request.timed_out for request in play.batches[0]])
    play.finish()


def given_up(play: Play) -> None:
    wait, other = play.submit(), play.submit()
    play.answer(play.world.serve())
    play.world.release(wait)
    play.finish()
    assert other.done


def closed(play: Play) -> None:
    wait = play.submit()
    play.answer(play.world.serve())
    play.world.close()
    assert wait.done
    play.seen.append(str(wait.error))


def full(play: Play) -> None:
    """The engine submits nothing to a silent server beyond the limit of abandoned data."""
    play.world.serve() if play.world.act() else None
    for _ in range(2):
        play.world.release(play.submit())
    wait = play.submit()
    assert wait.done
    play.seen.append(str(wait.error))


def several_servers(play: Play, fault: str = "") -> None:
    play.world = World(2)
    wait = play.submit(retries=1)
    play.world.act()
    first, second = play.world.peers
    second.up()
    if fault == "refused":
        first.refuse()
    elif fault == "late":
        play.world.sleep(1.0)
    else:
        play.answer(first.up())
        if fault == "lost":
            first.pull()
            first.lose()
    for call in wait, play.submit():
        while not call.done:
            for peer in play.world.peers:
                if peer.link.is_up:
                    play.answer(peer)
    # Uniques are generated in another order, and moved requests overtake those in columns.
    play.seen = sorted(data for _, _, data in play.seen)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MANY", 3)
    monkeypatch.setattr(batch, "SLICE", 3)
    monkeypatch.setattr(client, "_WINDOW", 5)


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
@pytest.mark.parametrize(
    "scenario",
    [
        *(served, one_beside_it, lost, partial(lost, retries=1), refused, timed_out, given_up),
        *(closed, full, looked_at, cancelled, with_an_error, several_servers),
        *(partial(several_servers, fault=fault) for fault in ("refused", "late", "lost")),
    ],
)
def test_batch_behaves_like_a_list_of_requests(
    scenario: Callable[[Play], None], background: bool
) -> None:
    plays = [Play(at_once=at_once, background=background) for at_once in (True, False)]
    for play in plays:
        scenario(play)
    assert plays[0].end() == plays[1].end()


class Story(Play):
    """A Play in which any step can follow any other. Its application can look at any time."""

    def __init__(
        self, *, at_once: bool, background: bool, form: str, servers: int, options: Any
    ) -> None:
        super().__init__(at_once=at_once, background=background, servers=servers)
        self.form = FORMS[form]
        self.waits = [self.submit(**options)]
        # The server that the next steps are about, and the unanswered submits of each.
        self.server: Peer | None = None
        self._unanswered: dict[Peer, list[Any]] = {}

    @property
    def unanswered(self) -> list[Any]:
        assert self.server is not None
        return self._unanswered.setdefault(self.server, [])

    @property
    def requests(self) -> Any:
        return self.batches[0]

    def serve(self, _: int) -> None:
        """Open the connection of the newest link."""
        if not any(peer.link.alive for peer in self.world.peers):
            self.world.sleep(60.0)
        self.world.act()
        connecting = [peer for peer in self.world.alive() if not peer.link.is_up]
        if connecting:
            self.server = connecting[-1].up()

    def switch(self, number: int) -> None:
        """Let the next steps be about another server."""
        up = [peer for peer in self.world.alive() if peer.link.is_up]
        if up:
            self.server = up[number % len(up)]

    def _is_served(self) -> bool:
        return self.server is not None and self.server.link.is_up

    def send(self, _: int) -> None:
        """Read one chunk of submits."""
        if self._is_served():
            assert self.server is not None
            submits: list[Any] = self.server.read(self.server.pull())
            self.unanswered.extend(submits)
            self.seen += [
                (type(submit), submit.function, self._named(submit.unique), submit.data)
                for submit in submits
            ]

    def _named(self, unique: bytes | None) -> bytes | None:
        """Return a given unique, or None for a random one."""
        return None if unique is None or len(unique) == 32 else unique

    def answer(self, count: int) -> None:  # type: ignore[override]
        """Acknowledge some of the submits, or all."""
        if self._is_served():
            assert self.server is not None
            answered = self.unanswered[:count]
            del self.unanswered[:count]
            self.server.send(*[self._created() for _ in answered])

    def _created(self) -> JobCreated:
        self._count += 1
        return JobCreated(b"H:%d" % self._count)

    def error(self, _: int) -> None:
        """Answer the first submit with an ERROR."""
        if self._is_served() and self.unanswered:
            assert self.server is not None
            del self.unanswered[0]
            self.server.send(Error(b"QUEUE_ERROR", b"full"))

    def lose(self, _: int) -> None:
        if self._is_served():
            assert self.server is not None
            self.server.lose()

    def refuse(self, _: int) -> None:
        alive = [peer for peer in self.world.peers if peer.link.alive and not peer.link.is_up]
        if alive:
            alive[-1].refuse()

    def sleep(self, seconds: int) -> None:
        self.world.sleep(float(seconds))

    def release(self, number: int) -> None:
        if number < len(self.waits):
            self.world.release(self.waits.pop(number))

    def join(self, number: int) -> None:
        """Let another call wait for some of the requests."""
        if not self.world.engine.closed:
            some = self.requests[number : number + 2]
            self.waits.append(self.world.wait_completed(*some, timeout=7.0))

    def look(self, number: int) -> None:
        """Look at one request."""
        request = self.requests[number % MANY]
        assert self.requests[number % MANY] is request
        # A request that is not sent yet can get its unique later.
        sent = request.state != JOB_PENDING
        self.seen.append(
            (request.data, request.task, request.state, request.handle, request.timed_out)
            + (request.priority, request.background, str(request.error), str(request.connection))
            + (request.complete, request._gm_link is None, bool(request._gm_payload))
            + ((request.connection_attempts, bool(request.unique)) if sent else ())
        )

    def close(self, _: int) -> None:
        self.world.close()

    def end(self) -> list[Any]:
        for wait in self.waits:
            self.seen.append((wait.done, wait.timed_out, str(wait.error)))
        for number in range(MANY):
            self.look(number)
        return self.seen


#: These move requests from one server to another, where they overtake those in columns.
MOVING = {"lose", "refuse", "sleep"}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["serve", "send", "answer"]), st.just(MANY)),
        st.tuples(st.sampled_from(["answer", "look", "join"]), st.integers(0, MANY - 3)),
        st.tuples(
            st.sampled_from(["error", "lose", "refuse", "sleep", "release", "close", "switch"]),
            st.integers(0, 8),
        ),
    ),
    max_size=30,
)


@examples(20)
@given(
    STEPS,
    st.sampled_from(list(FORMS)),
    st.booleans(),
    st.integers(1, 2),
    st.fixed_dictionaries(
        {
            "retries": st.integers(0, 1),
            "accepted_only": st.booleans(),
            "timeout": st.sampled_from([None, 5.0]),
        }
    ),
)
def test_no_program_can_tell_a_batch_from_a_list(
    steps: list[tuple[str, int]],
    form: str,
    background: bool,
    servers: int,
    options: dict[str, Any],
) -> None:
    stories = [
        Story(
            at_once=at_once,
            background=background,
            form=form,
            servers=servers,
            options=options,
        )
        for at_once in (True, False)
    ]
    for name, number in steps:
        if servers > 1 and name in MOVING:
            continue
        for story in stories:
            getattr(story, name)(number)
    assert stories[0].end() == stories[1].end()


@pytest.mark.parametrize("at_once", [True, False])
def test_requests_of_a_call_are_freed_without_the_cycle_collector(at_once: bool) -> None:
    play = Play(at_once=at_once)
    wait = play.submit()
    play.finish()
    play.world.release(wait)
    gone = [weakref.ref(request) for request in play.batches.pop()]
    gc.disable()
    try:
        del wait
        assert not any(reference() for reference in gone)
    finally:
        gc.enable()


def test_background_jobs_are_submitted_without_requests() -> None:
    play = Play(at_once=False)
    wait = play.submit()
    play.finish()
    assert wait.done
    made = play.batches[0]
    play.world.release(wait)
    play.world.release(play.world.engine.cancel_abandoned(play.world.now, Bell(), made))
    assert not any(made._gm_columns.slices.values())
    assert {kind for kind, _, _ in play.seen} == {SubmitJobBg}
    assert [request.unique.encode() for request in made] == [unique for _, unique, _ in play.seen]
    assert [request.handle for request in made] == [f"H:{n + 1}" for n in range(MANY)]


def submit_several_calls(steps: list[tuple[str, int]]) -> None:
    """Submit several calls while the application looks at requests. Check all handles."""
    play = Play(at_once=False)
    server = play.world.idle_server()
    server.take()
    unanswered: list[Any] = []
    waits: list[Wait] = []
    singles: list[Any] = []

    def answer(count: int) -> None:
        some, unanswered[:] = unanswered[:count], unanswered[count:]
        created = [JobCreated(b"H:" + submit.data) for submit in some]
        server.send_raw(b"".join(map(server.connection.send, created)))

    for name, number in [("few", 0), ("call", 0), *steps]:
        if name == "call" and len(play.batches) < 5:
            play.form = partial(numbered, len(play.batches))
            waits.append(play.submit())
        elif name == "few":
            few = [play.world.request(background=True, data=b"f-%02d" % n) for n in range(2)]
            singles += few
            waits.append(play.world.submit(*few))
        elif name == "look":
            play.batches[number % len(play.batches)][number % MANY].handle  # noqa: B018
        elif name == "send":
            unanswered += server.read(server.pull())
        elif name == "answer":
            answer(number)
    while more := server.read(server.pull()) or unanswered:
        if more is not unanswered:
            unanswered += more
        answer(len(unanswered))
    assert all(wait.done for wait in waits)
    for request in itertools.chain(singles, *play.batches):
        assert request.handle == "H:" + request.data.decode()


def test_answers_to_other_calls_between_those_of_a_batch() -> None:
    submit_several_calls([("send", 0), ("answer", 5)])


@examples(10)
@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "few", "look", "send", "answer"]), st.integers(0, 5)),
        min_size=10,
        max_size=40,
    )
)
def test_answers_to_several_calls_arrive_together(steps: list[tuple[str, int]]) -> None:
    submit_several_calls(steps)


def test_request_read_while_answers_to_several_calls_are_processed() -> None:
    play = Play(at_once=False)
    server = play.world.idle_server()
    server.take()
    few = [play.world.request(background=True) for _ in range(2)]
    waits: list[Wait] = [play.world.submit(*few), play.submit()]
    columns = play.batches[0]._gm_columns
    numbers = itertools.count()

    class Slices(dict[int, Any]):
        def __len__(self) -> int:
            count = super().__len__()
            if not count:  # Another thread reads a request right after this.
                columns.slice(0)
            return count

    columns.slices = Slices()
    while submits := server.read(server.pull()):
        created = [JobCreated(b"H:%02d" % next(numbers)) for _ in submits]
        server.send_raw(b"".join(map(server.connection.send, created)))
    assert all(wait.done for wait in waits)
    handles = [request.handle for request in (*few, *play.batches[0])]
    assert handles == [f"H:{number:02}" for number in range(2 + MANY)]


def test_request_of_an_abandoned_engine_counts_as_lost() -> None:
    play = Play(at_once=False)
    wait = play.submit()
    play.answer(play.world.serve())
    made = play.batches[0]
    seen = made[0], made[5]
    play.world.engine.abandon(GearmanError("given up"))
    assert wait.done
    assert [request.state for request in seen] == [JOB_CREATED, JOB_UNKNOWN]
    assert is_orphaned(made[MANY - 1])


def test_batch_keeps_no_closed_engine() -> None:
    play = Play(at_once=False)
    wait = play.submit(timeout=5.0)
    play.answer(play.world.serve())
    play.world.sleep(5.0)
    play.world.release(wait)
    made = play.batches[0]
    made[0].handle  # noqa: B018
    play.world.close()
    assert made._gm_columns.payloads is None
    engine = weakref.ref(play.world.engine)
    del play, wait
    gc.collect()
    assert engine() is None


def test_request_outlives_its_batch_without_the_columns() -> None:
    play = Play(at_once=False)
    play.world.release(play.submit())
    play.finish()
    made = play.batches.pop()
    request, columns = made[4], weakref.ref(made._gm_columns)
    gc.disable()
    try:
        del made
        assert columns() is None
    finally:
        gc.enable()
    assert (request.data, request.handle) == (b"4", "H:5")
