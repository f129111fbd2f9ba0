"""``gearmanctl submit``: submits one job, or a job for each line."""

from __future__ import annotations

import datetime as dt
import enum
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.names import to_wire
from gearman_proto.printable import printable
from gearman_sync import GearmanClient

from . import exits
from .bars import Bars
from .lines import LineSubmitter
from .options import Servers, TaskName, seconds, with_options
from .output import complain, flush

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes to read at a time.
_CHUNK_SIZE: Final = 65536
_STANDARD_INPUT: Final = "-"
# Seconds after which the client asks whether a worker has registered the function.
_WARN_AFTER: Final = 1.0


class Priority(enum.StrEnum):
    """The priority of a job."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@with_options
def submit(
    servers: Servers,
    task: TaskName,
    data: Annotated[
        str | None,
        typer.Argument(
            help="The job's data. Standard input is read without it, and for -.",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the data from a file.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", "-l", help="Submit a job for each line of the data.")
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="With --lines: write results as jobs end.")
    ] = False,
    in_flight: Annotated[
        int, typer.Option(metavar="JOBS", min=1, help="With --lines: jobs under way at once.")
    ] = 256,
    background: Annotated[
        bool, typer.Option("--background", "-b", help="Do not wait for the job; write its handle.")
    ] = False,
    priority: Annotated[
        Priority, typer.Option("--priority", "-p", help="The priority of the job in the queue.")
    ] = Priority.NORMAL,
    unique: Annotated[
        str | None,
        typer.Option(
            "--unique",
            "-u",
            metavar="NAME",
            help="The unique of the job. Jobs with the same unique that wait or run are one job. "
            "With -, the data is the unique.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Run it in background, and not before this time: 2030-01-31T18:00 (local), "
            "seconds since 1970, or +SECONDS from now.",
        ),
    ] = None,
    timeout: Annotated[
        float | None, seconds("How long to wait for each job.", "--timeout", "-t")
    ] = None,
) -> int:
    """Submit a job, and write its result.

    Partial results are written as they arrive, and the job's warnings to standard error. On a
    terminal, a bar shows its progress. If no worker has registered the function, a warning is
    written after a second.

    Exit status: 0 done, 1 failed, 2 usage, 3 no server or the connection was lost, 4 timed out.

    Examples:
      gearmanctl submit reverse hello
      gearmanctl submit resize --file photo.jpg > small.jpg
      gearmanctl submit mail --background --priority low --at +3600 < letter
      gearmanctl submit fetch --lines --unordered < urls
    """
    if data is not None and file is not None:
        raise exits.Exit(exits.USAGE, "the data is an argument or in a file, not both")
    if unordered and not lines:
        raise exits.Exit(exits.USAGE, "--unordered is for --lines")
    if lines and unique not in (None, "-"):
        raise exits.Exit(exits.USAGE, "with --lines, all jobs of one --unique would be one")
    job: dict[str, Any] = {"task": task}
    # The library has a faster path for jobs without options.
    if unique is not None:
        job["unique"] = unique
    if priority is not Priority.NORMAL:
        job["priority"] = priority.name
    if at is not None:
        if priority is not Priority.NORMAL:
            raise exits.Exit(exits.USAGE, "servers take no --priority for a job with --at")
        background = True
        job["run_at"] = parse_time(at, time.time())
    chunks = _chunks(data, file)
    if not lines:
        job["data"] = b"".join(chunks)
    client = GearmanClient(servers.addresses, warn_after=_WARN_AFTER)
    with client, Bars(total=lines) as bars:
        if lines:
            return LineSubmitter(
                client, bars, job, chunks, background, not unordered, in_flight, timeout
            ).run()
        return _submit_one(client, bars, job, background=background, timeout=timeout)


def _submit_one(
    client: GearmanClient,
    bars: Bars,
    job: dict[str, Any],
    *,
    background: bool,
    timeout: float | None,
) -> int:
    deadline = None if timeout is None else time.monotonic() + timeout
    [request] = client.submit_multiple_jobs(
        [job], background=background, wait_until_complete=False, poll_timeout=timeout
    )
    if not background:
        left = None if deadline is None else deadline - time.monotonic()
        for update in client.updates(request, poll_timeout=left):
            if isinstance(update, JobProgress):
                bars.report(request, request.task, update.numerator, update.denominator)
            elif isinstance(update, JobData):
                bars.write(update.data)
            elif isinstance(update, JobWarning):
                bars.warn(update.data)
            flush()
    status, reason = exits.outcome(request, timed_out=request.timed_out)
    if status != exits.DONE:
        bars.complain(f"gearmanctl: {reason}")
    elif background:
        bars.write(f"{printable(request.handle or '')}\n".encode())
    else:
        bars.write(request.result or b"")
    return status


def parse_time(text: str, now: float) -> float:
    """Return the time that ``--at`` names, in seconds since 1970.

    Raises:
        ValueError: `text` is not a time.
    """
    try:
        if text.startswith("+"):
            return now + float(text[1:])
        if text.replace(".", "", 1).isdigit():
            return float(text)
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f"--at: {text!r} is none of 2030-01-31T18:00, seconds since 1970, +SECONDS"
        ) from None


def _chunks(data: str | None, file: Path | None) -> Iterator[bytes]:
    """Yield the data in pieces as it is read."""
    if file is not None:
        return _read_file(file)
    if data is not None and data != _STANDARD_INPUT:
        return iter([to_wire(data)])
    if data is None and sys.stdin.isatty():
        complain("reading from the terminal; Ctrl-D ends it")
    return _read(sys.stdin.fileno())


def _read_file(file: Path) -> Iterator[bytes]:
    with file.open("rb", buffering=0) as opened:
        yield from _read(opened.fileno())


def _read(descriptor: int) -> Iterator[bytes]:
    # Don't use sys.stdin's buffer: the program can't exit while a thread is blocked in it.
    while chunk := os.read(descriptor, _CHUNK_SIZE):
        yield chunk
