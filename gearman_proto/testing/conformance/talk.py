"""One end of a connection in a case. An unexpected event is a failure of the case."""

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


class Talk(Peer):
    """One end of a connection whose other end is judged."""

    def receive(self) -> Event:
        """Return the next packet or line. Skip `Unanswered`, which is neither."""
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
            wanted: The expected event, for the failure's text.

        Raises:
            Failed: The other side has closed the connection, has sent nothing in time, or has sent
                bytes that are not Gearman.
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
        """Check that the other side closes the connection without sending anything before."""
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

    def within(self, seconds: float, take: Callable[[], E]) -> E:
        """Call `take` with another timeout, in seconds, for its calls of `receive`."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            return take()
        finally:
            self.sock.settimeout(before)

    def is_silent(self, seconds: float) -> bool:
        """Return whether the connection stays open and silent for so many seconds."""
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
        """Send `data` again and again, up to `size` bytes or until the buffers are full."""
        self.sock.settimeout(0)
        with contextlib.suppress(OSError):
            for _ in range(size // len(data)):
                self.sock.send(data)
