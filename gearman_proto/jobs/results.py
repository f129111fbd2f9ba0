"""What a worker's application says about a job, as packets: progress, results, exceptions.

Like `submitting.prepare` on the client's side, this runs encoders, which are the application's
code, so adapters call it and engines do not.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.wire.events import WorkComplete, WorkException, WorkFail, WorkStatus, WorkWarning

from .encoder import encode_data

if TYPE_CHECKING:
    from types import TracebackType

    from gearman_proto.wire.events import PacketEvent

#: An exception as hooks get it; what `sys.exc_info` returns.
ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


def status_event(
    handle: bytes, numerator: int | str | bytes, denominator: int | str | bytes
) -> WorkStatus:
    """The report of a job's progress."""
    return WorkStatus(handle, _digits(numerator), _digits(denominator))


def _digits(value: int | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def result_event(handle: bytes, encoder: Any, result: Any, task: bytes = b"") -> WorkComplete:
    """The good end of a job, with `result`, which is None for none.

    `task` is for the error, if it is known.

    Raises:
        Exception: Whatever the encoder raises; TypeError if it does not make bytes of `result`.
    """
    try:
        payload = encode_data(encoder, result, WorkComplete, task)
    except Exception:
        if result is not None:
            raise
        payload = b""  # Few encoders have a form for it.
    return WorkComplete(handle, payload)


def failure_events(
    handle: bytes, encoder: Any, error: BaseException, *, exceptions: bool
) -> list[PacketEvent]:
    """The bad end of a job for which `error` was raised, in the order to send it in.

    Args:
        handle: The job's.
        encoder: What encodes the error's text.
        error: What was raised.
        exceptions: Whether to send WORK_EXCEPTION, and not WORK_WARNING and WORK_FAIL.
    """
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    try:
        payload = encode_data(encoder, text)
    except Exception:  # noqa: BLE001 - it is the application's, and there is an error already
        payload = text.encode("utf-8", "replace")
    if exceptions:
        return [WorkException(handle, payload)]
    return [WorkWarning(handle, payload), WorkFail(handle)]
