"""A scripted server: threads with a plain socket and a `Connection` each; and a black hole."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.wire.events import (
    ConnectionClosed,
    Event,
    OptionReq,
    OptionRes,
    PacketEvent,
)
from gearman_proto.wire.packets import HEADER, MAGIC_RESPONSE

from .waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

E = TypeVar("E", bound=Event)


class Disconnected(Exception):
    """The client has closed the connection."""


@dataclass
class Peer:
    """A scripted server's end of one connection."""

    sock: socket.socket
    #: All that the client has sent and was taken.
    events: list[Event] = field(default_factory=list)
    connection: Connection = field(default_factory=lambda: Connection(Role.SERVER))
    #: Whether OPTION_REQ is granted; else it is ignored, as Python gear's server does.
    grants_options: bool = True

    def receive(self) -> Event:
        """The next packet. OPTION_REQ is dealt with here."""
        while True:
            event = self.connection.next_event()
            if event is NEED_DATA:
                data = self.sock.recv(1 << 16)
                if data:
                    self.connection.receive_data(data)
                else:
                    self.connection.receive_eof()
                continue
            if isinstance(event, ConnectionClosed):
                raise Disconnected
            assert isinstance(event, Event)
            self.events.append(event)
            if not isinstance(event, OptionReq):
                return event
            if self.grants_options:
                self.send(OptionRes(event.option))

    def expect(self, kind: type[E]) -> E:
        """The next packet, which is a `kind`."""
        event = self.receive()
        assert isinstance(event, kind), event
        return event

    def send(self, *events: Event) -> None:
        """Answer. Out of order is an error."""
        self.sock.sendall(b"".join([self.connection.send(event) for event in events]))

    def send_anyway(self, *events: PacketEvent) -> None:
        """Send packets whether or not they are in order."""
        for event in events:
            body = b"\0".join(type(event).arguments(event))
            self.send_raw(HEADER.pack(MAGIC_RESPONSE, event.packet.number, len(body)) + body)

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hold(self) -> None:
        """Take what comes and say nothing, until the client closes."""
        while True:
            self.receive()


class FakeServer:
    """A server in threads: `script` is called for each connection, which ends when it returns."""

    def __init__(self, script: Callable[[Peer], object], *, receive_buffer: int = 0) -> None:
        self.peers: list[Peer] = []
        self._script = script
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._listener = socket.socket()
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._run(self._accept)

    @property
    def events(self) -> list[Event]:
        """All that came over any connection, but for OPTION_REQ."""
        return [e for peer in self.peers for e in peer.events if not isinstance(e, OptionReq)]

    def stop(self) -> None:
        self._stopped = True
        # A blocked accept is not ended by closing its socket.
        with contextlib.suppress(OSError), socket.create_connection(self.address, PATIENCE):
            pass
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a server's script does not end"
        self._listener.close()
        if self._errors:
            raise self._errors[0]

    def _run(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="fake server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stopped:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.peers.append(peer)
            self._run(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        with peer.sock:
            try:
                self._script(peer)
            except (OSError, Disconnected):
                pass
            except Exception as error:  # noqa: BLE001 - raised by stop
                self._errors.append(error)


@contextlib.contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address where connecting is neither refused nor ends: a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(64):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.1)
            try:
                sock.connect(address)
            except TimeoutError:
                break
        else:
            pytest.skip("this system's backlogs can't be filled")
        yield address
