"""``gearmanctl work``: runs a worker that starts a command for each job."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from gearman_proto.signals import SIGNALLED, draining
from gearman_sync import GearmanWorker

from . import exits
from .options import Servers, TaskName, with_options
from .output import complain
from .process import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_sync import WorkerJob

# Environment variables of a command.
_HANDLE, _TASK, _UNIQUE = "GEARMAN_HANDLE", "GEARMAN_TASK", "GEARMAN_UNIQUE"


@with_options
def work(
    servers: Servers,
    task: TaskName,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND...", help="What to run for each job.", show_default=False
        ),
    ],
    *,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Jobs to do at once.")
    ] = 1,
    client_id: Annotated[
        str | None, typer.Option(metavar="NAME", help="What servers' lists call it.")
    ] = None,
    exceptions: Annotated[
        bool,
        typer.Option(
            help="Send the standard error of a command that fails as WORK_EXCEPTION; or as a "
            "warning, and then WORK_FAIL, for clients that do not ask for exceptions "
            "(gearmand lets libgearman's hang otherwise)."
        ),
    ] = True,
) -> int:
    """Run a worker, which starts a command for each job.

    The command gets the job's data on standard input. Its standard output is the result. If it
    exits with another status than 0, the job fails, with its standard error as the exception.
    GEARMAN_HANDLE, GEARMAN_TASK and GEARMAN_UNIQUE are in its environment.

    SIGTERM and Ctrl-C let it finish its jobs first; a second one ends it, and servers give its jobs
    to others.

    Examples:
      gearmanctl work reverse -- rev
      gearmanctl work resize --jobs 4 -- convert - -resize 50% jpg:-
    """
    program = shutil.which(command[0])
    if program is None:
        raise exits.Exit(exits.USAGE, f"{command[0]}: there is no such command")
    processes = Processes([program, *command[1:]])

    def run(worker: GearmanWorker, job: WorkerJob) -> bytes | None:
        environment = {_HANDLE: job.handle or "", _TASK: job.task, _UNIQUE: job.unique or ""}
        outcome = processes.run(job.data, environment)
        if outcome.is_cut:
            complain(
                f"{job.handle}: {program} has ended, but left a process running that still has its "
                "output; later output is lost (redirect it in the command)"
            )
        if outcome.failure is None:
            return outcome.output
        complain(f"{job.handle}: {outcome.failure}")
        text = outcome.errors or outcome.failure.encode("utf-8", "surrogateescape")
        if exceptions:
            worker.send_job_exception(job, text)
        else:
            worker.send_job_warning(job, text)
            worker.send_job_failure(job)
        return None

    with GearmanWorker(servers.addresses, max_jobs=jobs) as worker:
        worker.register_task(task, run)
        if client_id is not None:
            worker.set_client_id(client_id)
        with _stopped_by_signals(worker, processes) as status:
            worker.work()
        return status[0]


@contextlib.contextmanager
def _stopped_by_signals(worker: GearmanWorker, processes: Processes) -> Iterator[list[int]]:
    """Let signals stop the worker. Yield a list whose only item is the exit status."""
    status = [exits.DONE]

    def stop() -> None:
        worker.stop()
        if worker.has_job_lock():
            complain("stops when its jobs are done; a second signal stops it at once")

    def end(number: int) -> None:
        status[0] = SIGNALLED + number
        # The order matters: after the shutdown, the output of a killed command can't be sent as a
        # result.
        worker.shutdown()
        processes.kill()

    with draining(stop, end):
        yield status
