"""One end of a connection in a case. An unexpected event fails the case."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.testing.matching import matcher, shortened
from gearman_proto.testing.peer import Disconnected, Peer
from gearman_proto.wire.packets import Event, Unanswered

from .case import Closed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Event)
T = TypeVar("T")


class Talk(Peer):
    """One end of a connection to the judged side."""

    def receive(self) -> Event:
        """Return the next packet or line. `Unanswered` is neither, so skip it."""
        while isinstance(event := super().receive(), Unanswered):
            pass
        return event

    def expect(self, kind: type[E], **fields: object) -> E:
        """Return the next packet or line, and check that it is an event of `kind`.

        Raises:
            Failed: The other side has sent another event, or none in time.
        """
        matches, wanted = matcher(kind, fields)
        event = self.next(wanted)
        if not matches(event):
            raise Failed(wanted, shortened(event))
        assert isinstance(event, kind)
        return event

    def next(self, wanted: str = "a packet") -> Event:
        """Return the next packet or line, of any kind.

        Args:
            wanted: The expected event, for the failure message.

        Raises:
            Failed: The other side has closed the connection, has sent nothing in time, or has sent
                invalid bytes.
        """
        try:
            return self.receive()
        except Disconnected:
            raise Closed(wanted, "the end of the connection") from None
        except TimeoutError:
            raise Failed(wanted, f"nothing in {self.sock.gettimeout():g} s") from None
        except RemoteProtocolError as error:
            raise Failed(wanted, f"a protocol error ({error})") from None
        except OSError as error:
            raise Closed(wanted, str(error)) from None

    def ends(self) -> None:
        """Check that the other side closes the connection without sending anything first."""
        wanted = "the end of the connection"
        try:
            event: object = self.receive()
        except TimeoutError:
            raise Failed(wanted, f"nothing in {self.sock.gettimeout():g} s") from None
        except OSError:
            return
        except RemoteProtocolError as error:
            event = error
        raise Failed(wanted, shortened(event))

    def within(self, seconds: float, take: Callable[[], T]) -> T:
        """Call `take` with a receive timeout of `seconds`."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            return take()
        finally:
            self.sock.settimeout(before)

    def is_silent(self, seconds: float) -> bool:
        """Return True if the connection stays open and silent for `seconds`."""
        try:
            self.within(seconds, self.receive)
        except TimeoutError:
            return True
        except (RemoteProtocolError, OSError):
            pass
        return False

    def reset(self) -> None:
        """Close the connection with a reset, as if the process had crashed."""
        self.sock.reset()

    def flood(self, data: bytes, size: int) -> None:
        """Send `data` repeatedly until `size` bytes are sent or the buffers are full."""
        self.sock.settimeout(0)
        with contextlib.suppress(OSError):
            for _ in range(size // len(data)):
                self.sock.send(data)
