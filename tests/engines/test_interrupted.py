"""A signal's exception may hit an engine between any two steps; the driver calls `crash` then.

Whatever was half done, `crash` has to get everybody out, and the engine has to be usable after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import text
from gearman_proto.engines import states
from gearman_proto.engines.base import Link, LinkState
from gearman_proto.engines.phases import GRABBING
from gearman_proto.wire.events import EchoReq, GrabJobUniq, JobCreated, WorkComplete

from . import admin_harness, harness, server_harness, worker_harness

if TYPE_CHECKING:
    from collections.abc import Callable


class Signalled(BaseException):
    """What a signal handler has raised."""


@pytest.fixture
def hit_the_end_of_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first link that ends is hit just behind that: nothing else knows of it yet."""
    turn: Callable[[Link, LinkState], None] = Link.turn

    def hit(link: Link, state: LinkState) -> None:
        turn(link, state)
        if state is LinkState.GONE:
            monkeypatch.undo()
            raise Signalled

    monkeypatch.setattr(Link, "turn", hit)


@pytest.mark.usefixtures("hit_the_end_of_a_link")
def test_client() -> None:
    world = harness.World()
    wait = world.engine.submit(world.now, harness.Bell(), [world.request()])
    server = world.serve()
    with pytest.raises(Signalled):
        world.engine.connection_lost(server.link, OSError("reset"), world.now)
    world.engine.crash(ValueError("interrupted"))
    assert wait.done
    world.act()
    world.peers.clear()
    again = world.submit(world.request(background=True))
    server = world.serve()
    assert len(server.take()) == 1
    server.send(JobCreated(b"H:1"))
    assert again.done


@pytest.mark.usefixtures("hit_the_end_of_a_link")
def test_worker() -> None:
    world = worker_harness.World()
    world.register(b"f")
    stream = world.work()
    server = world.serve()
    with pytest.raises(Signalled):
        world.engine.connection_lost(server.link, OSError("reset"), world.now)
    world.engine.crash(ValueError("interrupted"))
    assert stream.done
    work_again(world)


def work_again(world: worker_harness.World) -> None:
    world.end_work()
    world.peers.clear()
    world.work()
    server = world.serve()
    assert server.take()[-1] == GrabJobUniq()
    job = server.assign()
    world.finish(job)
    assert WorkComplete(b"H:1", b"out") in server.take()


def test_worker_that_begins_to_grab(monkeypatch: pytest.MonkeyPatch) -> None:
    world = worker_harness.World()
    world.register(b"f")
    world.work()
    turn = states.turn

    def hit(table: Any, state: Any, following: Any) -> Any:
        if following is GRABBING:
            monkeypatch.undo()
            raise Signalled
        return turn(table, state, following)

    monkeypatch.setattr("gearman_proto.engines.worker.turn", hit)
    (peer,) = world.peers
    with pytest.raises(Signalled):
        world.engine.connected(peer.link, world.now)
    world.engine.crash(ValueError("interrupted"))
    work_again(world)


@pytest.mark.parametrize("stop", [False, True])
def test_worker_whose_work_ends(monkeypatch: pytest.MonkeyPatch, stop: bool) -> None:
    world = worker_harness.World()
    world.register(b"f")
    world.work()

    def hit(table: Any, state: Any, following: Any) -> Any:
        monkeypatch.undo()
        raise Signalled

    monkeypatch.setattr("gearman_proto.engines.worker.turn", hit)
    with pytest.raises(Signalled):
        world.engine.end_work(world.now)
    world.engine.crash(ValueError("interrupted"))
    world.pump()
    world.peers.clear()
    if stop:
        world.engine.stop(world.now)
        assert world.work().done
    else:
        world.work()
        assert world.serve().take()[-1] == GrabJobUniq()


def test_release_ends_the_work() -> None:
    """So nothing but that has to come through, whatever hits the caller of `work`."""
    world = worker_harness.World()
    stream = world.work()
    server = world.serve()
    server.assign()
    world.release(stream)
    assert server.closed
    assert not world.engine.has_jobs()
    again = world.work()
    world.release(stream)  # Again: it is another's by now.
    assert not again.done
    world.serve().assign(2)
    assert world.engine.has_jobs()


def test_work_that_is_hit_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has its stream, so nobody will release it."""
    world = worker_harness.World()

    def hit(*args: Any) -> None:
        monkeypatch.undo()
        raise Signalled

    monkeypatch.setattr(world.engine, "_connect_to", hit)
    with pytest.raises(Signalled):
        world.engine.work(world.now, harness.Bell())
    world.engine.crash(ValueError("interrupted"))
    work_again(world)


def test_a_job_of_a_work_that_is_over_stops_nothing() -> None:
    world = worker_harness.World()
    stream = world.work()
    job = world.serve().assign()
    world.release(stream)
    again = world.work()
    world.job_done(job, go_on=False)
    assert not again.done
    assert world.serve().take()[-1] == GrabJobUniq()


@pytest.mark.parametrize("name", ["answer", "fail"])
def test_question_that_is_hit_where_it_ends(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Somebody waits for it, and has to get to know."""
    world = admin_harness.World()
    question = world.ask(text.version())
    server = world.serve()
    server.take()

    def hit(*args: Any) -> None:
        monkeypatch.undo()
        raise Signalled

    monkeypatch.setattr(type(question), name, hit)
    happens = {"answer": lambda: server.send(b"OK 1\n"), "fail": server.lose}
    with pytest.raises(Signalled):
        happens[name]()
    world.engine.crash(ValueError("interrupted"))
    assert question.done


@pytest.mark.usefixtures("hit_the_end_of_a_link")
def test_server() -> None:
    world = server_harness.World()
    wait = world.engine.serve(world.now, harness.Bell())
    peer = world.connect(reads=False)
    peer.send(EchoReq(b"x"))
    with pytest.raises(Signalled):
        world.engine.connection_lost(peer.link, OSError("reset"), world.now)
    world.engine.crash(ValueError("interrupted"))
    assert wait.done
    assert world.engine.closed
    assert not world.engine.links


@pytest.mark.usefixtures("hit_the_end_of_a_link")
def test_admin_client() -> None:
    world = admin_harness.World()
    question = world.ask(text.version())
    server = world.serve()
    with pytest.raises(Signalled):
        world.engine.connection_lost(server.link, OSError("reset"), world.now)
    world.engine.crash(ValueError("interrupted"))
    assert question.done
