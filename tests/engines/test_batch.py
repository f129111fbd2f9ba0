"""Tests of batches, which create many plain requests during their submission.

Each scenario runs twice, with a list of requests and with a Batch. Both runs must send the same
packets, and end with the same states of the requests and calls.
"""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.engines.client import engine as client
from gearman_proto.errors import GearmanError, ServerUnavailable
from gearman_proto.jobs.batch import Batch
from gearman_proto.wire.packets import JobCreated, SubmitJobBg, WorkComplete

from .harness import Bell, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.waits import Wait

    from .harness import Peer

MANY = 20


class Play:
    """A World and a record of its events."""

    def __init__(self, *, at_once: bool, background: bool = True, servers: int = 1) -> None:
        self.world = World(servers, max_abandoned=10_000)
        self.at_once = at_once
        self.background = background
        self.seen: list[Any] = []
        self.batches: list[Batch] = []
        self._count = 0

    def submit(self, retries: int = 0, **options: Any) -> Wait:
        made = Batch(
            ["task"] * MANY, [b"%d" % n for n in range(MANY)], self.background, retries + 1
        )
        self.batches.append(made)
        requests = made.all() if self.at_once else made
        wait = self.world.engine.submit(self.world.now, Bell(), requests, **options)
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


def refused(play: Play) -> None:
    wait = play.submit()
    play.world.peer().refuse()
    assert wait.done
    with pytest.raises(ServerUnavailable) as caught:
        wait.raise_error()
    assert list(caught.value.job_requests) == list(play.batches[0])


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


def several_servers(play: Play) -> None:
    play.world = World(2)
    wait = play.submit()
    while not wait.done:
        for peer in play.world.peers:
            play.answer(peer if peer.link.is_up else peer.up())


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SLICE", 3)
    monkeypatch.setattr(client, "_WINDOW", 5)


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
@pytest.mark.parametrize(
    "scenario",
    [
        *(served, one_beside_it, lost, partial(lost, retries=1), refused, timed_out, given_up),
        *(closed, full, several_servers),
    ],
)
def test_supply_behaves_like_a_list_of_requests(
    scenario: Callable[[Play], None], background: bool
) -> None:
    plays = [Play(at_once=at_once, background=background) for at_once in (True, False)]
    for play in plays:
        scenario(play)
    assert plays[0].end() == plays[1].end()


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


def test_first_requests_are_sent_before_the_last_are_created() -> None:
    play = Play(at_once=False)
    wait = play.submit()
    made = play.batches[0]
    assert made.requests == []
    play.answer(play.world.serve())
    assert {kind for kind, _, _ in play.seen} == {SubmitJobBg}
    play.world.engine.abandon(GearmanError("given up"))
    assert wait.done
    # The caller cannot get the missing requests, because the call raises an error.
    assert 0 < len(made.requests) < MANY
