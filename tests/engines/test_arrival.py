"""A call that waits for a server to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import InvalidClientState, ServerUnavailable
from gearman_proto.wire.packets import Error, GetStatus, StatusRes

from .harness import World

if TYPE_CHECKING:
    from .harness import Peer

QUESTION = GetStatus(b"H:trial:0")
ANSWER = StatusRes(b"H:trial:0", b"0", b"0", b"0", b"0")


def asked(server: Peer) -> Peer:
    """Return `server` after it has received the question."""
    assert server.take() == [QUESTION]
    return server


def test_first_answer_of_any_server_ends_the_call() -> None:
    world = World(2)
    wait = world.wait_for_servers()
    first, second = [asked(world.serve(host)) for host in ("s0", "s1")]
    assert not wait.done
    second.send(ANSWER)
    assert wait.done
    assert (wait.timed_out, wait.error) == (False, None)
    # The other server's answer or end changes nothing.
    world.release(wait)
    first.lose()
    assert world.alive() == [second]


def test_failed_attempts_are_repeated_at_most_a_second_later() -> None:
    world = World(connect_timeout=3.0)
    wait = world.wait_for_servers()
    for _ in range(8):
        world.serve().lose()  # A proxy without a server accepts connections and closes them.
        assert not wait.done
        world.sleep(1.0)
        world.peer().refuse()
        world.sleep(1.0)
    server = asked(world.serve())
    server.send(ANSWER)
    assert wait.done
    # Failures from before the server was there don't delay later retries.
    assert world.engine.pool.servers[0].failures == 0


def test_refusal_is_an_answer() -> None:
    world = World()
    wait = world.wait_for_servers()
    asked(world.serve()).send(Error(b"X", b"no"))
    assert wait.done
    wait.raise_error()


@pytest.mark.parametrize("when", ["timed out", "released"])
def test_client_stops_to_connect_after_the_call(when: str) -> None:
    world = World()
    wait = world.wait_for_servers(timeout=5.0)
    world.peer().refuse()
    if when == "timed out":
        world.sleep(5.0)
        assert wait.timed_out
    world.release(wait)
    world.sleep(1.0)  # Let an attempt begin that was scheduled before.
    for peer in world.alive():
        peer.refuse()
    assert world.engine.next_deadline() is None


def test_silent_server_is_no_server() -> None:
    world = World(heartbeat=4.0)
    wait = world.wait_for_servers()
    silent = asked(world.serve())
    for _ in range(3):
        world.sleep(4.0)
    assert not silent.link.alive
    assert not wait.done
    world.sleep(1.0)
    asked(world.serve()).send(ANSWER)
    assert wait.done


def test_calls_share_the_question() -> None:
    """A program that calls in a loop must not fill the memory while the server is silent."""
    world = World(heartbeat=None)
    for _ in range(3):
        wait = world.wait_for_servers(timeout=5.0)
        silent = world.serve()
        world.sleep(5.0)
        world.release(wait)
        assert wait.timed_out
    assert silent.take() == [QUESTION]
    waits = [world.wait_for_servers() for _ in range(2)]
    assert silent.take() == []
    # A call that gives up does not end the others'.
    world.release(waits.pop())
    silent.lose()
    world.sleep(1.0)
    server = asked(world.serve())
    last = world.wait_for_servers()
    server.send(ANSWER)
    assert [wait.done for wait in (*waits, last)] == [True, True]
    # The next call asks again.
    world.wait_for_servers()
    asked(server)


def test_close_ends_the_call() -> None:
    world = World()
    wait = world.wait_for_servers()
    world.close()
    with pytest.raises(ServerUnavailable, match="shut down"):
        wait.raise_error()
    with pytest.raises(InvalidClientState):
        world.wait_for_servers()


def test_a_client_without_servers_does_not_wait() -> None:
    wait = World(0).wait_for_servers()
    with pytest.raises(ServerUnavailable, match="no servers"):
        wait.raise_error()
