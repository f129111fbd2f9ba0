"""What becomes of what a worker's application gives and does: names, results, exceptions.

Like `job.prepare` on the client's side, this runs encoders, which are the application's code, so
adapters call it and engines do not.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from gearman_proto import constants
from gearman_proto.jobs.encoder import encode_data
from gearman_proto.names import check_name
from gearman_proto.wire.events import WorkComplete, WorkException, WorkFail, WorkStatus, WorkWarning

if TYPE_CHECKING:
    from gearman_proto.jobs.assigned import WorkerJob
    from gearman_proto.wire.events import PacketEvent


def check_task(task: str) -> bytes:
    """Return a function's name as the wire has it. Raises ValueError if servers do not take it."""
    return check_name("task", task, constants.MAX_FUNCTION_SIZE)


def check_client_id(client_id: str) -> bytes:
    """Return a client id as the wire has it. Raises ValueError if servers do not take it."""
    return check_name("client id", client_id, constants.MAX_CLIENT_ID_SIZE)


def check_timeout(timeout: float | None) -> float | None:
    """Return the seconds that a job may take. Raises TypeError if they are no number."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    return timeout


def status_event(
    job: WorkerJob, numerator: int | str | bytes, denominator: int | str | bytes
) -> WorkStatus:
    """The report of a job's progress."""
    return WorkStatus(job.wire_handle, _digits(numerator), _digits(denominator))


def _digits(value: int | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def result_event(job: WorkerJob, encoder: Any, result: Any) -> WorkComplete:
    """The good end of a job, with `result`, which is None for none.

    Raises:
        Exception: Whatever the encoder raises; TypeError if it does not make bytes of `result`.
    """
    try:
        payload = encode_data(encoder, result)
    except Exception:
        if result is not None:
            raise
        payload = b""  # Few encoders have a form for it.
    return WorkComplete(job.wire_handle, payload)


def failure_events(
    job: WorkerJob, encoder: Any, error: BaseException, *, exceptions: bool
) -> list[PacketEvent]:
    """The bad end of a job for which `error` was raised, in the order to send it in.

    Args:
        job: The job.
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
        return [WorkException(job.wire_handle, payload)]
    return [WorkWarning(job.wire_handle, payload), WorkFail(job.wire_handle)]
