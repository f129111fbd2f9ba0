"""The exit statuses of gearmanctl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.constants import JOB_FAILED, JOB_UNKNOWN
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerUnavailable,
)
from gearman_proto.names import to_text

if TYPE_CHECKING:
    from gearman_proto.jobs.request import GearmanJobRequest

DONE: Final = 0
#: A job has failed, or a server refused a command.
FAILED: Final = 1
#: The command line is wrong.
USAGE: Final = 2
#: No server could be reached, the connection was lost, or the peer is not a Gearman server.
NO_SERVER: Final = 3
TIMED_OUT: Final = 4

_NO_SERVER: Final = (
    ConnectionError,
    ExceededConnectionAttempts,
    RemoteProtocolError,
    ServerUnavailable,
)


class Exit(Exception):
    """Raised to end the program with `status`, after printing `message` unless it is empty."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status: int = status


def status_of(error: Exception) -> int:
    """Return the exit status of a program that ends with `error`."""
    if isinstance(error, Exit):
        return error.status
    if isinstance(error, _NO_SERVER):
        return NO_SERVER
    # An admin client becomes invalid when its server does not answer in time.
    if isinstance(error, InvalidAdminClientState):
        return TIMED_OUT
    # A value that the library rejects, or a file that can't be opened, is a mistake in the command
    # line.
    is_usage = isinstance(error, ValueError) or getattr(error, "filename", None)
    return USAGE if is_usage else FAILED


def outcome(request: GearmanJobRequest, *, timed_out: bool) -> tuple[int, str]:
    """Return the exit status for a request, and the reason if it is not DONE.

    The request has ended or timed out.
    """
    if timed_out:
        return TIMED_OUT, f"{request.handle or 'the job'} has not ended in time"
    if request.state == JOB_UNKNOWN:
        return NO_SERVER, str(request.error)
    if request.complete and request.state != JOB_FAILED:
        return DONE, ""
    if request.error is not None:
        return FAILED, f"{request.connection} refused the job: {request.error}"
    exception = " ".join(to_text(request.exception or b"").split())
    return FAILED, f"the job failed: {exception}" if exception else "the job failed"
