"""Packets that a worker's application sends about a job: progress, results, exceptions.

Like `submitting.prepare` on the client's side, these functions run the application's encoders, so
adapters call them and engines do not.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from gearman_proto import constants
from gearman_proto.names import to_text
from gearman_proto.wire.packets import (
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .encoder import CARRIED, encode_data
from .updates import MAX_REASON

if TYPE_CHECKING:
    from types import TracebackType

    from gearman_proto.wire.packets import PacketEvent

_Work = TypeVar("_Work", bound="WorkData | WorkWarning | WorkComplete | WorkException")

#: An exception in the form that hooks get, as `sys.exc_info` returns it.
ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


def status_event(
    handle: bytes, numerator: int | str | bytes, denominator: int | str | bytes
) -> WorkStatus:
    """Return the packet that reports a job's progress."""
    return WorkStatus(handle, _digits(numerator), _digits(denominator))


def _digits(value: int | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def data_event(
    kind: type[_Work],
    handle: bytes,
    encoder: Any,
    data: Any,
    task: bytes = b"",
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> _Work:
    """Return a packet about a job.

    Args:
        kind: The class of the packet.
        handle: The job's handle.
        encoder: The encoder for `data`.
        data: The application's data.
        task: The job's task, for error messages; empty if unknown.
        max_packet_size: Size limit of the packet, in bytes.

    Raises:
        ValueError: The packet would exceed the limit.
        TypeError: The encoder does not return bytes for `data`.
        Exception: Any exception that the encoder raises.
    """
    payload = encode_data(encoder, data, kind, task)
    if len(handle) + 1 + len(payload) > max_packet_size:
        of = repr(to_text(task, "task")) if task else "a job"
        raise ValueError(
            f"{CARRIED[kind]} of {of} has {len(payload)} bytes: with a max_packet_size of "
            f"{max_packet_size}, it can have {max_packet_size - len(handle) - 1}; send parts with "
            "send_job_data, or raise that of workers, clients and servers"
        )
    return kind(handle, payload)


def result_event(
    handle: bytes,
    encoder: Any,
    result: Any,
    task: bytes = b"",
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> WorkComplete:
    """Return the packet that ends a job with `result`, or without a result if that is None.

    See `data_event` for the other arguments and the exceptions.
    """
    try:
        return data_event(WorkComplete, handle, encoder, result, task, max_packet_size)
    except Exception:
        if result is not None:
            raise
        return WorkComplete(handle, b"")  # Few encoders accept None.


def failure_events(
    handle: bytes,
    encoder: Any,
    error: BaseException,
    *,
    exceptions: bool,
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> list[PacketEvent]:
    """Return the packets that end a job whose callback raised `error`, in sending order.

    Args:
        handle: The job's handle.
        encoder: The encoder for the text of the error.
        error: The exception.
        exceptions: If true, send WORK_EXCEPTION, otherwise WORK_WARNING and WORK_FAIL.
        max_packet_size: Size limit of a packet, in bytes. A longer text is truncated.
    """
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    limit = max_packet_size - len(handle) - 1
    payload = _encode_text(encoder, text)
    if len(payload) > limit:
        payload = _encode_text(encoder, text[: min(MAX_REASON, limit)])
    if len(payload) > limit:
        payload = text[:limit].encode("utf-8", "replace")[:limit]
    if exceptions:
        return [WorkException(handle, payload)]
    return [WorkWarning(handle, payload), WorkFail(handle)]


def _encode_text(encoder: Any, text: str) -> bytes:
    try:
        return encode_data(encoder, text)
    except Exception:  # noqa: BLE001 - an encoder can raise anything, and the first error matters
        return text.encode("utf-8", "replace")
