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
# The Linux ioctl for the unsent and unacknowledged bytes in a socket's send queue.
_SIOCOUTQ = 0x5411


class EchoServer:
    """A server that echoes all data. `ends` lists how connections ended, `socks` their sockets."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.taken = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        for sock in [self._listener, *self.socks]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.socks.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    self.taken += data
                    sock.sendall(data)
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
            sock = stack.enter_context(socket.create_connection(proxy.address, PATIENCE))
            return proxy, sock

        yield connect


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"it ended after {data!r}"
        data += piece
    return data


def rest(sock: socket.socket) -> None:
    """Receive until the end."""
    while sock.recv(100):
        pass


def unacknowledged(sock: socket.socket) -> int:
    """Return the number of sent bytes that the receiver's system has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, _SIOCOUTQ, bytes(4)), sys.byteorder)


def is_silent(sock: socket.socket, seconds: float = 0.1) -> bool:
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


def test_proxy_without_faults_passes_data(through: Any) -> None:
    proxy, sock = through()
    data = bytes(range(256)) * 4096
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    assert receive(sock, len(data)) == data
    sender.join()
    assert proxy.connections == proxy.accepted == 1


def test_half_closed_connection_passes_data(through: Any) -> None:
    _, sock = through()
    sock.sendall(b"hello")
    sock.shutdown(socket.SHUT_WR)
    assert receive(sock, 5) == b"hello"
    assert sock.recv(1) == b""


@pytest.mark.parametrize("direction", Direction)
def test_limit_data(through: Any, echo_server: EchoServer, direction: Direction) -> None:
    _, sock = through(LimitData(3, direction=direction))
    sock.sendall(b"hello")
    if direction is DOWN:
        assert receive(sock, 3) == b"hel"
    else:
        eventually(lambda: bytes(echo_server.taken) == b"hel")
    with contextlib.suppress(ConnectionError):
        rest(sock)
    eventually(lambda: len(echo_server.ends) == 1)


def test_limit_data_before_the_first_byte(through: Any) -> None:
    _, sock = through(LimitData())
    assert sock.recv(1) == b""


def test_reset(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(ResetPeer(after=3))
    sock.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        rest(sock)
    eventually(lambda: echo_server.ends == ["reset"])


def test_stall(through: Any) -> None:
    _, sock = through(Stall(2.0, after=2))
    begin = time.monotonic()
    sock.sendall(b"hello")
    assert receive(sock, 2) == b"he"
    assert time.monotonic() - begin < 2.0
    assert receive(sock, 3) == b"llo"
    assert time.monotonic() - begin >= 2.0


def test_latency(through: Any) -> None:
    _, sock = through(Latency(0.1, direction=UP), Latency(0.1))
    for _ in range(2):
        begin = time.monotonic()
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        assert time.monotonic() - begin >= 0.2


def test_slicer(through: Any) -> None:
    _, sock = through(Slicer(1, delay=0.5, length=3, direction=UP, after=1))
    begin = time.monotonic()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    assert time.monotonic() - begin >= 1.5
    begin = time.monotonic()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    # Single-byte chunks would take at least two seconds.
    assert time.monotonic() - begin < 2.0


@pytest.mark.parametrize("direction", Direction)
def test_timeout(through: Any, echo_server: EchoServer, direction: Direction) -> None:
    _, sock = through(Timeout(direction=direction, after=2))
    sock.sendall(b"hello")
    assert receive(sock, 2) == b"he"
    assert is_silent(sock)
    assert bytes(echo_server.taken) == (b"he" if direction is UP else b"hello")
    assert not echo_server.ends


def test_server_close_during_a_timeout(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(Timeout(after=2))
    sock.sendall(b"hello")
    assert receive(sock, 2) == b"he"
    eventually(lambda: bytes(echo_server.taken) == b"hello")
    echo_server.stop()
    for _ in range(3):
        sock.sendall(b"are you there?")
        assert is_silent(sock)


def test_half_open_client_connection(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(HalfOpen(direction=UP, after=2))
    sock.sendall(b"hello")
    eventually(lambda: echo_server.ends == ["end"])
    sock.sendall(b"are you there?")
    receive(sock, 0)
    time.sleep(0.05)
    sock.setblocking(False)
    # The server may have received the earlier bytes, but no end.
    with pytest.raises(BlockingIOError):
        rest(sock)
    assert bytes(echo_server.taken) == b"he"


def test_half_open_server_connection(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(HalfOpen(after=2))
    sock.sendall(b"hello")
    assert receive(sock, 2) == b"he"
    assert sock.recv(1) == b""
    time.sleep(0.05)
    assert not echo_server.ends


@pytest.mark.parametrize("direction", Direction)
def test_corrupt(through: Any, direction: Direction) -> None:
    _, sock = through(
        Corrupt(direction=direction, after=1), Corrupt(0x01, direction=direction, after=6)
    )
    for expected in (b"h\xe5llo", b"hdllo"):
        sock.sendall(b"hello")
        assert receive(sock, 5) == expected


def test_journal_has_the_place_of_a_corrupt_byte(through: Any) -> None:
    proxy, sock = through(Corrupt(direction=UP, after=5))
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    # The proxy corrupts the next byte that arrives.
    assert [happened.what for happened in proxy.journal] == ["accept"]
    sock.sendall(b"again")
    assert receive(sock, 5) == b"\xe1gain"
    assert (proxy.journal[1].what, proxy.journal[1].before) == (
        Corrupt(direction=UP, after=5),
        b"hello",
    )


def test_proxy_that_refused_accepts_again(echo_server: EchoServer) -> None:
    with FaultyProxy(echo_server.address) as proxy:
        for _ in range(3):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(proxy.address, PATIENCE)
            proxy.up()
            with socket.create_connection(proxy.address, PATIENCE) as sock:
                sock.sendall(b"hello")
                assert receive(sock, 5) == b"hello"


def test_ignore(echo_server: EchoServer) -> None:
    with FaultyProxy(echo_server.address) as proxy:
        proxy.ignore()
        with socket.create_connection(proxy.address, PATIENCE) as sock:
            sock.sendall(b"hello")
            assert is_silent(sock)
            proxy.up()
            assert receive(sock, 5) == b"hello"


def test_proxy_without_an_upstream_server_ends_the_connection(echo_server: EchoServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        target = nobody.getsockname()
    with (
        FaultyProxy(target) as proxy,
        contextlib.suppress(ConnectionError),
        socket.create_connection(proxy.address, PATIENCE) as sock,
    ):
        assert sock.recv(1) == b""
    assert [happened.what for happened in proxy.journal][:2] == ["accept", "unreachable"]


@pytest.mark.parametrize("fault", [LimitData(), ResetPeer(), HalfOpen()])
def test_fault_injected_into_a_silent_connection(through: Any, fault: Toxic) -> None:
    proxy, sock = through()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    proxy.inject(fault)
    try:
        assert sock.recv(1) == b""
    except ConnectionResetError:
        assert isinstance(fault, ResetPeer)


def test_fault_injected_into_a_connection_hits_later_data(through: Any) -> None:
    proxy, sock = through()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    proxy.inject(LimitData(2))
    sock.sendall(b"hello")
    assert receive(sock, 2) == b"he"
    assert sock.recv(1) == b""
    assert [happened.what for happened in proxy.journal] == ["accept", LimitData(2)]


def test_plan_selects_faults_by_connection_number(echo_server: EchoServer) -> None:
    plans = {0: [LimitData(1)], 1: [], 2: [LimitData(2)]}
    with FaultyProxy(echo_server.address, plans.__getitem__) as proxy:
        for number, expected in enumerate((b"h", b"hello", b"he")):
            with socket.create_connection(proxy.address, PATIENCE) as sock:
                sock.sendall(b"hello")
                assert receive(sock, len(expected)) == expected
                assert proxy.accepted == number + 1


def test_stopped_proxy_cannot_be_reused(echo_server: EchoServer, no_leak: None) -> None:
    proxy = FaultyProxy(echo_server.address)
    with proxy:
        assert proxy.connections == 0
    with pytest.raises(RuntimeError):
        proxy.stop()


def test_latency_is_not_cumulative(through: Any) -> None:
    """Delay each chunk by the same time, without adding to the delay of earlier chunks."""
    _, sock = through(Latency(1.0, jitter=0.01))
    begin = time.monotonic()
    for _ in range(5):
        sock.sendall(b"hello")
        time.sleep(0.01)
    assert receive(sock, 25) == 5 * b"hello"
    assert 1.03 <= time.monotonic() - begin < 5.0


def test_removed_latency_has_no_effect(through: Any) -> None:
    proxy, sock = through()
    slow = proxy.add(Latency(2.0))
    begin = time.monotonic()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    assert time.monotonic() - begin >= 2.0
    proxy.remove(slow)
    begin = time.monotonic()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    assert time.monotonic() - begin < 2.0
    with pytest.raises(ValueError, match="was not added"):
        proxy.remove(slow)


def test_bandwidth_passes_bytes_at_its_rate(through: Any) -> None:
    _, sock = through(Bandwidth(1000.0))
    begin = time.monotonic()
    sock.sendall(bytes(1000))
    assert receive(sock, 1000) == bytes(1000)
    assert time.monotonic() - begin >= 0.9  # The rate limiter may credit one tick of unused time.


@pytest.mark.parametrize("direction", Direction)
def test_buffer_when_small_leaves_bytes_with_their_sender(
    echo_server: EchoServer, direction: Direction
) -> None:
    """Leave bytes with the sender, whose system reports how many the slow link has not carried."""
    held = Bandwidth(1.0, direction=direction)
    with (
        FaultyProxy(echo_server.address, lambda _: [held], buffer=4096) as proxy,
        socket.create_connection(proxy.address, PATIENCE) as sock,
    ):
        if direction is UP:
            sender = sock
        else:
            sock.sendall(b"hello")
            eventually(lambda: echo_server.socks)
            (sender,) = echo_server.socks
        # Only these sends must not block: the echo server's thread reads from its socket meanwhile.
        sender.settimeout(None)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sender.send(bytes(65536), socket.MSG_DONTWAIT)
        eventually(lambda: sent - unacknowledged(sender) > 0)
        assert sent - unacknowledged(sender) < 5 * 4096


def test_slow_close(through: Any, echo_server: EchoServer) -> None:
    _, sock = through(SlowClose(0.1))
    sock.sendall(b"hello")
    begin = time.monotonic()
    sock.shutdown(socket.SHUT_WR)
    eventually(lambda: echo_server.ends == ["end"])
    assert receive(sock, 5) == b"hello"
    rest(sock)
    assert time.monotonic() - begin >= 0.1


def test_timeout_that_elapses_closes_the_connection(through: Any) -> None:
    _, sock = through(Timeout(0.05, direction=UP))
    sock.sendall(b"hello")
    assert sock.recv(1) == b""


def test_removed_timeout_ends_the_connection(through: Any) -> None:
    """End the connection, as the discarded bytes are missing from the stream."""
    proxy, sock = through()
    timeout = proxy.add(Timeout(10.0))
    sock.sendall(b"hello")
    assert is_silent(sock, 1.0)
    proxy.remove(timeout)
    assert sock.recv(1) == b""


def test_reset_peer_with_a_delay(through: Any) -> None:
    _, sock = through(ResetPeer(2.0))
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    with pytest.raises(ConnectionResetError):
        rest(sock)


def test_removed_reset_peer_has_no_effect(through: Any) -> None:
    proxy, sock = through()
    proxy.remove(proxy.add(ResetPeer(0.05)))
    assert is_silent(sock)


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
            socket.create_connection(proxy.address, PATIENCE) as sock,
        ):
            sock.sendall(bytes(300))
            assert receive(sock, 300) == bytes(300)
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
                with socket.create_connection(proxy.address, PATIENCE) as sock:
                    sock.sendall(b"x")
                    with contextlib.suppress(ConnectionError):
                        ends.append(sock.recv(1) == b"")
        return ends

    first = plan(1)
    assert set(first) == {True, False}
    assert plan(1) == first


def test_proxy_that_was_down_accepts_again(through: Any) -> None:
    proxy, sock = through()
    sock.sendall(b"hello")
    assert receive(sock, 5) == b"hello"
    proxy.down()
    assert sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address, PATIENCE)
    proxy.add(LimitData())
    proxy.reset()
    with socket.create_connection(proxy.address, PATIENCE) as other:
        other.sendall(b"hello")
        assert receive(other, 5) == b"hello"
