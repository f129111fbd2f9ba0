"""The proxy injects the configured faults into connections, and changes nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import Peer, ScriptedServer
from gearman_sync.testing.proxy import FaultyProxy
from gearman_sync.testing.toxics import (
    Bandwidth,
    Corrupt,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
    Toxic,
)
from tests.support import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UP, DOWN = Direction.UP, Direction.DOWN
# The system decides whether the peer receives the end of the stream or a reset.
ANY_END = ("end", "reset")
# The Linux ioctl for the unsent and unacknowledged bytes in a socket's send queue.
_SIOCOUTQ = 0x5411


class EchoServer(ScriptedServer):
    """A server that echoes all data. `ends` lists how connections ended."""

    def __init__(self) -> None:
        super().__init__(self._echo, timeout=PATIENCE)
        self.ends: list[str] = []
        self.taken = bytearray()
        self.start()

    def _echo(self, peer: Peer) -> None:
        try:
            while data := peer.sock.recv(65536):
                self.taken += data
                peer.send_raw(data)
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")


@pytest.fixture
def echo_server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.stop()


@pytest.fixture
def through(
    echo_server: EchoServer, no_hang: None, no_leak: None
) -> Iterator[Callable[..., tuple[FaultyProxy, Any]]]:
    """A function that connects through a proxy with faults."""
    with contextlib.ExitStack() as stack:

        def connect(*faults: Toxic) -> tuple[FaultyProxy, socket.socket]:
            proxy = stack.enter_context(FaultyProxy(echo_server.address, lambda number: faults))
            return proxy, stack.enter_context(connected(proxy))

        yield connect


def connected(proxy: FaultyProxy) -> socket.socket:
    return socket.create_connection(proxy.address, PATIENCE)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"it ended after {data!r}"
        data += piece
    return data


def echo(sock: socket.socket, expected: bytes = b"hello", data: bytes = b"hello") -> float:
    """Send data, receive the reply, and return the seconds that it took."""
    begin = time.monotonic()
    sock.sendall(data)
    assert receive(sock, len(expected)) == expected
    return time.monotonic() - begin


def rest(sock: socket.socket, seconds: float = PATIENCE) -> tuple[bytes, str]:
    """Return the received bytes, and how the connection ended, or "silence" if it does not."""
    data = b""
    sock.settimeout(seconds)
    try:
        while piece := sock.recv(100):
            data += piece
    except TimeoutError:
        return data, "silence"
    except ConnectionResetError:
        return data, "reset"
    finally:
        sock.settimeout(PATIENCE)
    return data, "end"


def unacknowledged(sock: socket.socket) -> int:
    """Return the number of sent bytes that the receiver's system has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, _SIOCOUTQ, bytes(4)), sys.byteorder)


def test_proxy_without_faults_passes_data(through: Any) -> None:
    proxy, sock = through()
    data = bytes(range(256)) * 4096
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    assert receive(sock, len(data)) == data
    sender.join()
    assert proxy.connections == proxy.accepted == 1
    sock.sendall(b"hello")
    sock.shutdown(socket.SHUT_WR)
    assert rest(sock) == (b"hello", "end")


@pytest.mark.parametrize(
    ("fault", "received", "end", "taken", "server_end"),
    [
        (LimitData(3), b"hel", ANY_END, b"hello", None),
        (LimitData(3, direction=UP), None, ANY_END, b"hel", None),
        (LimitData(), b"", ANY_END, b"", None),
        (ResetPeer(after=3), None, ("reset",), b"hello", "reset"),
        (ResetPeer(2.0), b"hello", ("reset",), b"hello", "reset"),
        (Timeout(after=2), b"he", ("silence",), b"hello", ""),
        (Timeout(direction=UP, after=2), b"he", ("silence",), b"he", ""),
        (Timeout(0.05, direction=UP), b"", ANY_END, b"", None),
        (HalfOpen(after=2), b"he", ("end",), b"hello", ""),
        (HalfOpen(direction=UP, after=2), None, ("silence",), b"he", "end"),
    ],
    ids=str,
)
def test_fault_ends_the_connection(
    through: Any,
    echo_server: EchoServer,
    fault: Toxic,
    received: bytes | None,
    end: tuple[str, ...],
    taken: bytes,
    server_end: str | None,
) -> None:
    """None means that the system decides, an empty `server_end` that the server's end is open."""
    _, sock = through(fault)
    with contextlib.suppress(ConnectionError):
        sock.sendall(b"hello")
    first = receive(sock, len(received or b"")) if end == ("silence",) else b""
    more, how = rest(sock, 0.1 if end == ("silence",) else PATIENCE)
    assert received in (None, first + more)
    assert how in end
    if taken:
        eventually(lambda: bytes(echo_server.taken) == taken)
    if server_end == "":
        assert not echo_server.ends
    else:
        eventually(lambda: echo_server.ends)
        assert server_end in (None, *echo_server.ends)


def test_server_close_during_a_timeout(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(Timeout(after=2))
    echo(sock, b"he")
    eventually(lambda: bytes(echo_server.taken) == b"hello")
    echo_server.stop()
    for _ in range(3):
        sock.sendall(b"are you there?")
        assert rest(sock, 0.1) == (b"", "silence")


@pytest.mark.parametrize("direction", Direction)
def test_corrupt(through: Any, direction: Direction) -> None:
    _, sock = through(
        Corrupt(direction=direction, after=1), Corrupt(0x01, direction=direction, after=6)
    )
    for expected in (b"h\xe5llo", b"hdllo"):
        echo(sock, expected)


def test_journal_has_the_place_of_a_corrupt_byte(through: Any) -> None:
    corrupt = Corrupt(direction=UP, after=5)
    proxy, sock = through(corrupt)
    echo(sock)
    # The proxy corrupts the next byte that arrives.
    assert [happened.what for happened in proxy.journal] == ["accept"]
    echo(sock, b"\xe1gain", b"again")
    assert (proxy.journal[1].what, proxy.journal[1].before) == (corrupt, b"hello")


# Delays.


def test_stalled_connection_goes_on_later(through: Any) -> None:
    _, sock = through(Stall(2.0, after=2))
    assert echo(sock, b"he") < 2.0
    assert receive(sock, 3) == b"llo"


def test_latency_delays_each_piece_by_the_same_time(through: Any) -> None:
    """Delay each chunk by the same time, without adding to the delay of earlier chunks."""
    _, sock = through(Latency(1.0, jitter=0.01), Latency(0.05, direction=UP))
    begin = time.monotonic()
    for _ in range(5):
        sock.sendall(b"hello")
        time.sleep(0.01)
    assert receive(sock, 25) == 5 * b"hello"
    assert 1.08 <= time.monotonic() - begin < 5.0


def test_removed_latency_has_no_effect(through: Any) -> None:
    proxy, sock = through()
    slow = proxy.add(Latency(2.0))
    assert echo(sock) >= 2.0
    proxy.remove(slow)
    assert echo(sock) < 2.0
    with pytest.raises(ValueError, match="was not added"):
        proxy.remove(slow)


def test_slicer_sends_pieces_up_to_its_length(through: Any) -> None:
    _, sock = through(Slicer(1, delay=0.5, length=3, direction=UP, after=1))
    assert echo(sock) >= 1.5
    # Single-byte chunks would take at least two seconds.
    assert echo(sock) < 2.0


def test_bandwidth_passes_bytes_at_its_rate(through: Any) -> None:
    _, sock = through(Bandwidth(1000.0))
    # The rate limiter may credit one tick of unused time.
    assert echo(sock, bytes(1000), bytes(1000)) >= 0.9


def test_slow_close_delays_the_end(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(SlowClose(0.1))
    sock.sendall(b"hello")
    begin = time.monotonic()
    sock.shutdown(socket.SHUT_WR)
    eventually(lambda: echo_server.ends == ["end"])
    assert rest(sock) == (b"hello", "end")
    assert time.monotonic() - begin >= 0.1


@pytest.mark.parametrize("direction", Direction)
def test_buffer_when_small_leaves_bytes_with_their_sender(
    echo_server: EchoServer, direction: Direction
) -> None:
    """Leave bytes with the sender, whose system reports how many the slow link has not carried."""
    held = Bandwidth(1.0, direction=direction)
    with (
        FaultyProxy(echo_server.address, lambda _: [held], buffer=4096) as proxy,
        connected(proxy) as sender,
    ):
        if direction is DOWN:
            sender.sendall(b"hello")
            eventually(lambda: echo_server.peers)
            sender = echo_server.peers[0].sock
        # Only these sends must not block: the echo server's thread reads from its socket meanwhile.
        sender.settimeout(None)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sender.send(bytes(65536), socket.MSG_DONTWAIT)
        eventually(lambda: sent - unacknowledged(sender) > 0)
        assert sent - unacknowledged(sender) < 5 * 4096


# Faults that are injected, planned, drawn and removed.


@pytest.mark.parametrize(
    ("fault", "end"), [(LimitData(), "end"), (ResetPeer(), "reset"), (HalfOpen(), "end")]
)
def test_fault_injected_into_a_silent_connection(through: Any, fault: Toxic, end: str) -> None:
    proxy, sock = through()
    echo(sock)
    proxy.inject(fault)
    assert rest(sock) == (b"", end)


def test_fault_injected_into_a_connection_hits_later_data(through: Any) -> None:
    proxy, sock = through()
    echo(sock)
    proxy.inject(LimitData(2))
    sock.sendall(b"hello")
    assert rest(sock) == (b"he", "end")
    assert [happened.what for happened in proxy.journal] == ["accept", LimitData(2)]


def test_removed_timeout_ends_the_connection(through: Any) -> None:
    """End the connection, as the discarded bytes are missing from the stream."""
    proxy, sock = through()
    timeout = proxy.add(Timeout(10.0))
    sock.sendall(b"hello")
    assert rest(sock, 1.0) == (b"", "silence")
    proxy.remove(timeout)
    assert rest(sock) == (b"", "end")


def test_removed_reset_peer_has_no_effect(through: Any) -> None:
    proxy, sock = through()
    proxy.remove(proxy.add(ResetPeer(0.05)))
    assert rest(sock, 0.1) == (b"", "silence")


def test_plan_selects_faults_by_connection_number(echo_server: EchoServer) -> None:
    plans = {0: [LimitData(1)], 1: [], 2: [LimitData(2)]}
    with FaultyProxy(echo_server.address, plans.__getitem__) as proxy:
        for number, expected in enumerate((b"h", b"hello", b"he")):
            with connected(proxy) as sock:
                echo(sock, expected)
                assert proxy.accepted == number + 1


def test_slicer_with_a_seed_repeats_its_sizes(echo_server: EchoServer) -> None:
    def sizes(seed: int) -> list[int]:
        passed: list[int] = []

        def tap(number: int, direction: Direction, data: bytes) -> None:
            # `data` is empty at the end of the stream, which the proxy may miss.
            if direction is UP and data:
                passed.append(len(data))

        slicer = Slicer(10, 5, direction=UP)
        with (
            FaultyProxy(echo_server.address, lambda _: [slicer], seed=seed, tap=tap) as proxy,
            connected(proxy) as sock,
        ):
            echo(sock, bytes(300), bytes(300))
        return passed

    first = sizes(1)
    assert sum(first) == 300
    assert all(5 <= size <= 15 for size in first[:-1])
    assert len(set(first)) > 3
    assert sizes(1) == first != sizes(2)


def test_toxicity_selects_connections_by_the_seed(echo_server: EchoServer) -> None:
    def plan(seed: int) -> list[bool]:
        ends = []
        with FaultyProxy(echo_server.address, seed=seed) as proxy:
            proxy.add(LimitData(toxicity=0.5))
            for _ in range(12):
                with connected(proxy) as sock:
                    sock.sendall(b"x")
                    try:
                        ends.append(sock.recv(1) == b"")
                    except ConnectionResetError:
                        ends.append(True)
        return ends

    first = plan(1)
    assert set(first) == {True, False}
    assert plan(1) == first


# States of the proxy.


def test_proxy_that_was_down_refused_or_ignored_accepts_again(through: Any) -> None:
    proxy, sock = through()
    echo(sock)
    proxy.down()
    assert sock.recv(1) == b""
    for call in (lambda: None, proxy.refuse):
        call()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
    proxy.up()
    with connected(proxy) as other:
        echo(other)
    proxy.ignore()
    with connected(proxy) as other:
        other.sendall(b"hello")
        assert rest(other, 0.1) == (b"", "silence")
        proxy.up()
        assert receive(other, 5) == b"hello"
    proxy.add(LimitData())
    proxy.down()
    proxy.reset()
    with connected(proxy) as other:
        echo(other)


def test_proxy_without_an_upstream_server_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        target = nobody.getsockname()
    # Even `connect` can meet the end of the connection.
    with (
        FaultyProxy(target) as proxy,
        contextlib.suppress(ConnectionError),
        connected(proxy) as sock,
    ):
        assert rest(sock)[0] == b""
    assert [happened.what for happened in proxy.journal][:2] == ["accept", "unreachable"]
