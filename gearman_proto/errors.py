"""The exceptions that this library raises on purpose. Timeouts raise no exception."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, Final

from .printable import printable

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


# Size limit of a server's text in an error message, in characters. A packet can have 256 MiB.
_MAX_TEXT: Final = 4096


class GearmanError(Exception):
    """The base of this library's exceptions. ``str()`` returns a line of printable characters."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ProtocolError(GearmanError):
    """A violation of the protocol. The subclass shows which side is responsible."""


class LocalProtocolError(ProtocolError):
    """An invalid request of the caller. The library sent nothing."""


class RemoteProtocolError(ProtocolError):
    """An invalid packet from the peer. This error closes the connection."""


class UnknownCommandError(RemoteProtocolError):
    """A packet of unknown type from the peer."""


class ArgumentTypeError(LocalProtocolError, TypeError):
    """An argument of the wrong type."""


class ArgumentValueError(LocalProtocolError, ValueError):
    """An argument with an invalid value."""


class InvalidClientState(LocalProtocolError):
    """A call that the state of the client, or of the request, does not allow."""


class InvalidWorkerState(LocalProtocolError):
    """A call that the state of the worker, or of the job, does not allow."""


class InvalidAdminClientState(LocalProtocolError):
    """A call that the state of the admin client does not allow."""


class ConnectionError(GearmanError, builtins.ConnectionError):
    """A connection that could not be opened, or was lost."""


class SubmitError(GearmanError):
    """Raised when some of a call's requests could not be submitted."""

    def __init__(self, message: str = "", job_requests: Iterable[Any] = ()) -> None:
        super().__init__(message)
        #: The requests of the failed call, as the caller passed them. Their `state` and `error`
        #: show the progress of each request.
        self.job_requests: Iterable[Any] = job_requests


class ServerUnavailable(SubmitError):
    """Raised when no server could be reached."""


class ExceededConnectionAttempts(SubmitError):
    """Raised when a submit is lost before its JOB_CREATED more often than `max_retries` allows."""


class ServerError(GearmanError):
    """An ERROR packet or an ERR line from a server.

    `code` is the server's error code, such as gearmand's ``QUEUE_ERROR``. Other servers have their
    own codes. `text` is the server's explanation. Both attributes have the text that the server
    sent. In the error's message, `printable` escapes them.
    """

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(code, text)
        self.code: str = code
        self.text: str = text

    def __str__(self) -> str:
        return printable(f"{self.code}: {self.text}" if self.text else self.code, _MAX_TEXT)
