"""The exceptions that this library raises on purpose. There is none for a timeout."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, Final

from .printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = [
    "ArgumentTypeError",
    "ArgumentValueError",
    "ConnectionError",
    "ExceededConnectionAttempts",
    "GearmanError",
    "InvalidAdminClientState",
    "InvalidClientState",
    "InvalidWorkerState",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "ServerUnavailable",
    "SubmitError",
    "UnknownCommandError",
]


# Characters of what a server says that a message has: the packet may have a quarter of a gigabyte.
_MAX_TEXT: Final = 4096


class GearmanError(Exception):
    """The root of this library's exceptions. ``str()`` of one is a line of printable characters."""

    def __str__(self) -> str:
        return shown(super().__str__())


class ProtocolError(GearmanError):
    """Somebody broke the protocol; see the two subclasses for who."""


class LocalProtocolError(ProtocolError):
    """What the caller asked for can't be done; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what no peer should. It ends the connection."""


class UnknownCommandError(RemoteProtocolError):
    """The peer sent a packet of a type that the protocol does not have."""


class ArgumentTypeError(LocalProtocolError, TypeError):
    """An argument is not of the type it must be."""


class ArgumentValueError(LocalProtocolError, ValueError):
    """An argument has a value that can't be."""


class InvalidClientState(LocalProtocolError):
    """A client was asked for something that its state, or the request's, does not allow."""


class InvalidWorkerState(LocalProtocolError):
    """A worker was asked for something that its state, or the job's, does not allow."""


class InvalidAdminClientState(LocalProtocolError):
    """An admin client was asked for something that its state does not allow."""


class ConnectionError(GearmanError, builtins.ConnectionError):
    """A connection could not be made, or was lost."""


class SubmitError(GearmanError):
    """What a call raises whose requests could not all be brought to a server."""

    def __init__(self, message: str = "", job_requests: Iterable[Any] = ()) -> None:
        super().__init__(message)
        #: The requests of the call that raised, as they were passed in. Each one's `state` and
        #: `error` tell how far it came.
        self.job_requests: Iterable[Any] = job_requests


class ServerUnavailable(SubmitError):
    """No server could be reached."""


class ExceededConnectionAttempts(SubmitError):
    """A submit was lost before its JOB_CREATED more often than `max_retries` allows."""


class ServerError(GearmanError):
    """An ERROR packet, or an ERR line.

    `code` is the server's word for it (gearmand: ``QUEUE_ERROR`` and so on; other servers have
    their own), `text` its explanation. Both are as the server sent them; the error's message has
    them as `shown` does.
    """

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(code, text)
        self.code: str = code
        self.text: str = text

    def __str__(self) -> str:
        return shown(f"{self.code}: {self.text}" if self.text else self.code, _MAX_TEXT)
