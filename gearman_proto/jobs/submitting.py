"""Conversion of dicts to requests and of requests to packets, with all checks and the encoding."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Generator, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Required, TypeAlias, TypedDict, TypeVar

from gearman_proto import constants
from gearman_proto.checks import check_count
from gearman_proto.constants import JOB_UNKNOWN, PRIORITY_NONE
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.names import check_name, check_task, to_text, to_wire
from gearman_proto.wire import packets as events
from gearman_proto.wire.packets import SUBMITS

from . import tracking
from .batch import SLICE, Batch, Columns, untouched
from .encoder import NoopEncoder, encode_data
from .request import GearmanJobRequest

# Maximum size of a JOB_ASSIGN_UNIQ without function and data: handle and unique, whose lengths are
# not known yet, and a NUL after each name.
_ASSIGN_OVERHEAD: Final = constants.MAX_HANDLE_SIZE + constants.MAX_UNIQUE_SIZE + 3

#: A call with more jobs keeps them in columns.
MANY: Final = 32

# The types of optional names in columns.
_TEXT: Final = frozenset({str, type(None)})


class JobDict(TypedDict, total=False):
    """A job for `submit_multiple_jobs`, which accepts any mapping with these keys."""

    #: The function to run.
    task: Required[str | bytes]
    #: The payload, for the `data_encoder`.
    data: Required[Any]
    #: A name for the job; None means a random one.
    unique: str | bytes | None
    #: PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH.
    priority: constants.Priority
    #: Earliest time to run a background job.
    run_at: datetime | float | None
    #: The function that reduces the results.
    reducer: str | bytes | None


JOB_KEYS: Final = frozenset(JobDict.__annotations__)

#: Work in steps that are short enough for an event loop. Other tasks can run between them, and the
#: caller can give up there: nothing was sent.
Steps: TypeAlias = "Generator[None, None, T_]"
T_ = TypeVar("T_")


def finish(steps: Steps[T_]) -> T_:
    """Do all `steps` at once, and return their value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T_ = end.value
            return value


def make_requests(
    jobs: Iterable[Mapping[str, Any]],
    *,
    background: bool = False,
    max_retries: int = 0,
    kind: type[GearmanJobRequest] = GearmanJobRequest,
) -> list[GearmanJobRequest]:
    """Return requests for the dicts that `submit_multiple_jobs` takes.

    Args:
        jobs: Dicts with `task` and `data`, and optionally `unique`, `priority`, `run_at` and
            `reducer`.
        background: As in GearmanJobRequest.
        max_retries: Maximum number of attempts to resend a lost submit.
        kind: The class of the requests.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A key is missing or unknown, or `max_retries` is negative.
    """
    check_collection("jobs_to_submit", jobs)
    attempts = check_count("max_retries", max_retries, 0) + 1
    background = bool(background)
    requests, new, set_up = [], kind.__new__, tracking.set_up
    for job in jobs:
        try:
            task, data = job["task"], job["data"]
            keys = len(job)
        except (TypeError, KeyError, IndexError):
            raise _bad_job(job) from None
        request = new(kind)
        text = task if type(task) is str else to_text(task)
        set_up(request, text, data, PRIORITY_NONE, background, attempts)
        if keys > 2:
            _add_options(request, job)
        requests.append(request)
    return requests


def making_batch(
    jobs: Collection[Mapping[str, Any]], *, background: bool = False, max_retries: int = 0
) -> Steps[list[GearmanJobRequest] | Batch]:
    """Return requests like `make_requests`, but make those of many jobs later.

    Args:
        jobs: As in `make_requests`.
        background: As in `make_requests`.
        max_retries: As in `make_requests`.

    Returns:
        Steps, whose value is a list of requests, or a Batch, which makes them later.

    Raises:
        TypeError, ValueError: As in `make_requests`.
    """
    if type(jobs) in (list, tuple) and len(jobs) > MANY:
        attempts = check_count("max_retries", max_retries, 0) + 1
        columns = yield from _columns([*jobs], bool(background), attempts)
        if columns is not None:
            return Batch(columns)
    return make_requests(jobs, background=background, max_retries=max_retries)


def make_batch(
    jobs: Collection[Mapping[str, Any]], *, background: bool = False, max_retries: int = 0
) -> list[GearmanJobRequest] | Batch:
    """Do all steps of `making_batch`, and return the requests."""
    return finish(making_batch(jobs, background=background, max_retries=max_retries))


def _columns(jobs: list[Any], background: bool, attempts: int) -> Steps[Columns | None]:
    """Return the columns of `jobs`, or None if any job is invalid or of a rare kind."""
    kinds: list[Any] = []
    data: list[Any] = []
    uniques: list[str | None] | None = None
    known: dict[Any, Any] = {}
    for at in range(0, len(jobs), SLICE):
        if at:
            yield
        some = jobs[at : at + SLICE]
        size = len(some)
        if set(map(type, some)) != {dict}:
            return None
        tasks: list[Any]
        given: list[Any] = []
        priorities: list[Any] = []
        try:
            tasks = [job["task"] for job in some]
            data += [job["data"] for job in some]
            if set(map(len, some)) != {2}:
                keys = set().union(*some)
                # Foreground jobs of one unique share a submit from the start, see `foreground`.
                allowed = {"task", "data", "priority"} | ({"unique"} if background else set())
                if not keys <= allowed:
                    return None
                if "unique" in keys:
                    given = [job.get("unique") for job in some]
                    if not set(map(type, given)) <= _TEXT:
                        given = [None if unique is None else to_text(unique) for unique in given]
                    if uniques is None:
                        uniques = [None] * at
                if "priority" in keys:
                    priorities = [job.get("priority") for job in some]
                    if not set(map(type, priorities)) <= _TEXT:
                        return None
            if set(map(type, tasks)) != {str}:
                tasks = [*map(to_text, tasks)]
        except (TypeError, ValueError, KeyError):
            return None  # `make_requests` raises the error.
        if uniques is not None:
            uniques += given or [None] * size
        priorities = priorities or [None] * size
        if tasks.count(tasks[0]) == priorities.count(priorities[0]) == size:
            kind = (tasks[0], priorities[0])
            kinds += [known.setdefault(kind, kind)] * size
        else:
            kinds += [known.setdefault(kind, kind) for kind in zip(tasks, priorities)]
    return Columns(kinds, data, uniques, background, attempts)


def data_limit(task: bytes, max_packet_size: int) -> int:
    """Return the size limit of a job's data in bytes, so that a worker can receive the job."""
    return max_packet_size - _ASSIGN_OVERHEAD - len(task)


def _add_options(request: GearmanJobRequest, job: Mapping[str, Any]) -> None:
    if not JOB_KEYS.issuperset(job):
        raise _bad_job(job)
    unique = job.get("unique")
    request.unique = None if unique is None else to_text(unique)
    request.priority = job.get("priority")
    tracking.set_options(request, job.get("run_at"), job.get("reducer"))


def _bad_job(job: Any) -> Exception:
    if not isinstance(job, Mapping):
        return TypeError(f"a job to submit is a dict with task and data, not {job!r}")
    for key in ("task", "data"):
        if key not in job:
            return ValueError(f"a job to submit has no {key!r}: its keys are {[*job]}")
    unknown = sorted(set(job) - JOB_KEYS, key=repr)
    return ValueError(f"a job to submit has no key {unknown[0]!r}; it may have {sorted(JOB_KEYS)}")


def check_collection(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a list, a tuple or a set."""
    if not isinstance(value, (list, tuple, set, frozenset, Batch)):
        raise ArgumentTypeError(f"{name} is a list, a tuple or a set, not {type(value).__name__}")


def check_requests(requests: Iterable[GearmanJobRequest]) -> None:
    """Raise TypeError unless `requests` is a list, a tuple or a set of requests."""
    check_collection("job_requests", requests)
    for request in requests:
        if not isinstance(request, GearmanJobRequest):
            raise ArgumentTypeError(f"a request is a GearmanJobRequest, not {request!r}")


def check_followed(requests: Iterable[GearmanJobRequest]) -> None:
    """Raise an error unless `requests` is a collection of foreground requests, as for `updates`.

    Raises:
        TypeError: As in `check_requests`.
        ValueError: A request is a background request.
    """
    check_requests(requests)
    for request in requests:
        if request.background:
            raise ArgumentValueError(
                f"{request!r} is a background request, and servers send the updates and the end of "
                "a background job to no client; get_job_status asks for its progress"
            )


def prepare(
    requests: Iterable[GearmanJobRequest],
    encoder: Any,
    max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
) -> None:
    """Check all of `requests`, and encode the data of the unsent ones.

    The application's encoder runs here, so call this only where it can't delay other calls. If this
    function raises, the requests before the faulty one are already prepared. The others are
    unchanged.

    Args:
        requests: The requests of one call.
        encoder: The `data_encoder` to use.
        max_packet_size: Size limit, in bytes, of the JOB_ASSIGN_UNIQ or JOB_ASSIGN_ALL packet that
            a worker receives for the job.

    Raises:
        TypeError: An item is not a request, or one of its attributes has the wrong type.
        ValueError: An attribute has a value that servers do not accept.
        Exception: Any exception that the encoder raises.
    """
    if type(requests) is Batch:
        finish(preparing(requests, encoder, max_packet_size))
    else:
        _prepare(requests, encoder, max_packet_size)


def preparing(
    requests: Iterable[GearmanJobRequest], encoder: Any, max_packet_size: int
) -> Steps[None]:
    """Do the same as `prepare`, in steps if the jobs are in columns."""
    columns = untouched(requests) if type(requests) is Batch else None
    if columns is not None and (yield from _check_columns(columns)):
        payloads = yield from _encode_columns(columns, encoder, max_packet_size)
        if untouched(requests) is columns:  # type: ignore[arg-type]  # it is a Batch
            columns.encoder, columns.payloads = encoder, payloads
            return
        # Another task has read or submitted requests between the steps.
    _prepare(requests, encoder, max_packet_size)


def _prepare(requests: Iterable[GearmanJobRequest], encoder: Any, max_packet_size: int) -> None:
    check_requests(requests)
    task, limit = None, 0
    for request in requests:
        if request.state != JOB_UNKNOWN and not tracking.is_orphaned(request):
            continue
        if request.task is not task:
            if type(request.task) is not str:
                request.task = to_text(request.task, "task")
            task = request.task
            wire_task = check_task(task)
            limit = data_limit(wire_task, max_packet_size)
        if request.unique and request.unique != request._gm_generated_unique:
            request.unique = to_text(request.unique, "unique")
            check_name("unique", request.unique, constants.MAX_UNIQUE_SIZE)
        if (
            type(request.connection_attempts) is not int
            or type(request.max_connection_attempts) is not int
        ):
            raise ArgumentTypeError(f"the attempts of {request!r} are not whole numbers")
        room = limit
        if request.run_at is not None or request.reducer is not None:
            room -= _check_special(request)
        else:
            try:
                is_known = (request.priority, request.background) in SUBMITS
            except TypeError:  # The priority is not hashable.
                is_known = False
            if not is_known:
                raise _bad_priority(request)
        payload = request.data
        if encoder is not NoopEncoder or type(payload) is not bytes:
            payload = encode_data(encoder, payload, None, request.task)
            if request.state != JOB_UNKNOWN and not tracking.is_orphaned(request):
                continue  # Another thread's client submitted the request while the encoder ran.
        if len(payload) > room:
            raise _too_large(request.task, payload, room, max_packet_size)
        request._gm_encoder = encoder
        request._gm_payload = payload


def _check_columns(columns: Columns) -> Steps[bool]:
    """Check all names and priorities of `columns`. Return False if any is invalid."""
    submits: dict[Any, Any] = {}
    for at in range(0, columns.size, SLICE):
        if at:
            yield
        try:
            if columns.uniques is not None:
                given = [unique for unique in columns.uniques[at : at + SLICE] if unique]
                text = "".join(given)
                longest = max(map(len, given), default=0)
                if longest > constants.MAX_UNIQUE_SIZE or "\0" in text or not text.isascii():
                    for unique in given:
                        check_name("unique", unique, constants.MAX_UNIQUE_SIZE)
            for kind in {*columns.kinds[at : at + SLICE]} - submits.keys():
                task, priority = kind
                submits[kind] = (SUBMITS[priority, columns.background], check_task(task))
        except (KeyError, ValueError):
            return False  # `prepare` raises the error, at the request.
    columns.submits = submits
    return True


def _encode_columns(columns: Columns, encoder: Any, max_packet_size: int) -> Steps[list[bytes]]:
    """Return the encoded data of `columns`. See `prepare` for the exceptions."""
    limits = {
        kind: data_limit(function, max_packet_size)
        for kind, (_, function) in columns.submits.items()
    }
    lowest = min(limits.values())
    data = columns.data
    payloads: list[bytes] | None = None
    for at in range(0, columns.size, SLICE):
        if at:
            yield
        some = data[at : at + SLICE]
        coded = _plain(some) if encoder is NoopEncoder else None
        if coded is None or max(map(len, coded)) > lowest:
            coded = []
            for kind, each in zip(columns.kinds[at : at + SLICE], some):
                payload = encode_data(encoder, each, None, kind[0])
                if len(payload) > limits[kind]:
                    raise _too_large(kind[0], payload, limits[kind], max_packet_size)
                coded.append(payload)
        # Data that is bytes already needs no second list.
        if payloads is None and coded is not some:
            payloads = data[:at]
        if payloads is not None:
            payloads += coded
    return data if payloads is None else payloads


def _plain(data: list[Any]) -> list[bytes] | None:
    """Return the bytes of `data` if it is all bytes or all text, else None."""
    kinds = set(map(type, data))
    if kinds == {bytes}:
        return data
    if kinds == {str}:
        with contextlib.suppress(UnicodeEncodeError):  # The loop over the jobs raises it.
            return [each.encode("utf-8", "surrogateescape") for each in data]
    return None


def _too_large(task: str, payload: bytes, room: int, max_packet_size: int) -> ValueError:
    return ValueError(
        f"the data of {task!r} has {len(payload)} bytes: with a max_packet_size of "
        f"{max_packet_size}, it can have {max(room, 0)}; raise that of the client, and of workers "
        "and servers"
    )


def _bad_priority(request: GearmanJobRequest) -> Exception:
    if not isinstance(request.background, bool):
        return ArgumentTypeError(f"background is True or False, not {request.background!r}")
    return ArgumentValueError(
        f"a priority is PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH, not {request.priority!r}"
    )


def _check_special(request: GearmanJobRequest) -> int:
    """Check `run_at` and `reducer`. Return the bytes they add to the packet for a worker."""
    if request.run_at is not None and request.reducer is not None:
        raise ValueError("a job has a run_at or a reducer, not both")
    if request.priority is not None:
        raise ValueError("a job with a run_at or a reducer has no priority")
    if request.run_at is not None:
        if not request.background:
            raise ValueError("a job with a run_at is a background job")
        to_epoch(request.run_at)
        return 0
    assert request.reducer is not None
    return len(check_name("reducer", request.reducer, constants.MAX_REDUCER_SIZE)) + 1


def to_epoch(run_at: datetime | float | None) -> int:
    """Return a time as whole seconds since 1970, never earlier than `run_at`."""
    if isinstance(run_at, datetime):
        try:
            run_at = run_at.timestamp()
        except (OverflowError, OSError, ValueError):  # Close to `datetime.min` or `datetime.max`.
            raise ArgumentValueError(f"run_at is {run_at}, before 1970 or too late") from None
    if not isinstance(run_at, (int, float)) or isinstance(run_at, bool):
        raise TypeError(f"run_at is a datetime or seconds since 1970, not {run_at!r}")
    if not 0 <= run_at <= constants.MAX_EPOCH:
        raise ValueError(f"run_at is {run_at}, before 1970 or too late")
    return math.ceil(run_at)


def submit_event(request: GearmanJobRequest) -> events.PacketEvent:
    """Return the packet that submits `request`, which has been prepared and has a unique."""
    payload = request._gm_payload or b""
    function = request.task.encode("utf-8", "surrogateescape")
    unique = (request.unique or "").encode("utf-8", "surrogateescape")
    if request.run_at is not None:
        epoch = b"%d" % to_epoch(request.run_at)
        return events.SubmitJobEpoch(function, unique, epoch, payload)
    if request.reducer is not None:
        reducer = to_wire(to_text(request.reducer))
        if request.background:
            return events.SubmitReduceJobBackground(function, unique, reducer, b"", payload)
        return events.SubmitReduceJob(function, unique, reducer, b"", payload)
    return SUBMITS[request.priority, request.background](function, unique, payload)
