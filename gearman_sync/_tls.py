"""TLS on a Transport. `ssl` is slow to import, so this module is imported only if TLS is used."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, ClassVar

from gearman_proto.handlers import reraise_from_handler
from gearman_proto.tls import handshake_failure

from ._transport import Stage, Transport

if TYPE_CHECKING:
    import socket
    from typing import Self

    from gearman_proto import ServerAddress
    from gearman_proto.engines.racing import LastGood


class SecureTransport(Transport):
    """A connection with TLS.

    Args:
        address: The server's address.
        timeout: Maximum time for connecting, in seconds.
        last_good: The last working address of each server.
        context: The TLS context.
    """

    __slots__ = ("_context", "_is_accepted")

    _would_block: ClassVar = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def __init__(
        self,
        address: ServerAddress,
        timeout: float,
        last_good: LastGood,
        context: ssl.SSLContext,
    ) -> None:
        super().__init__(address, timeout, last_good)
        self._context = context
        # True if the peer made the connection.
        self._is_accepted = False

    def accept(self, sock: socket.socket) -> Self:
        super().accept(sock)
        self.stage = Stage.CONNECTING
        self._is_accepted = True
        return self

    def _secure(self) -> None:
        assert self.sock is not None
        self.sock = self._context.wrap_socket(
            self.sock,
            server_side=self._is_accepted,
            do_handshake_on_connect=False,
            server_hostname=None if self._is_accepted else self._address.host,
        )

    def _shake_hands(self) -> bool:
        assert isinstance(self.sock, ssl.SSLSocket)
        self.is_blocked = False
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.is_blocked = True
            return False
        except OSError as error:
            reraise_from_handler(error)
            raise handshake_failure(error) from error
        return True

    @property
    def has_pending(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
