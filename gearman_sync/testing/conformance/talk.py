"""One end of a connection in a case: what does not come as demanded is a failure of the case."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.wire.packets import Event, Unanswered
from gearman_sync.testing import Conversation, Disconnected
from gearman_sync.testing.matching import matcher, shortened

from .case import Closed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Event)


class Talk(Conversation):
    """A conversation whose other end is judged."""

    def receive(self) -> Event:
        """Return the next packet or line; that something was not answered is none."""
        while isinstance(event := super().receive(), Unanswered):
            pass
        return event

    def expect(self, kind: type[E], **fields: object) -> E:
        """Return the next packet or line, which has to be of a kind.

        Raises:
            Failed: It is something else, or nothing has come.
        """
        matches, wanted = matcher(kind, fields)
        event = self.next(wanted)
        if not matches(event):
            raise Failed(wanted, shortened(event))
        assert isinstance(event, kind)
        return event

    def next(self, wanted: str = "a packet") -> Event:
        """Return the next packet or line, whatever it is.

        Args:
            wanted: What is expected, for the failure's text.

        Raises:
            Failed: The other side has closed the connection, or nothing has come in time, or what
                has come is not Gearman.
        """
        try:
            return self.receive()
        except Disconnected:
            raise Closed(wanted, "the end of the connection") from None
        except TimeoutError:
            raise Failed(wanted, f"nothing in {self.sock.gettimeout():g} s") from None
        except RemoteProtocolError as error:
            raise Failed(wanted, f"what is out of place ({error})") from None
        except OSError as error:
            raise Closed(wanted, str(error)) from None

    def ends(self) -> None:
        """Demand that the other side closes the connection, and sends nothing before."""
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
        """Call something that receives, which has so many seconds in place of the usual ones."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            return take()
        finally:
            self.sock.settimeout(before)

    def is_silent(self, seconds: float) -> bool:
        """Return whether nothing comes for so long, though the connection stays."""
        try:
            self.within(seconds, self.receive)
        except TimeoutError:
            return True
        except (RemoteProtocolError, OSError):
            pass
        return False
