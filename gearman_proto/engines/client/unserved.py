"""Find functions that no worker has registered.

Servers accept jobs of any function. If its name is misspelled, or its workers are not running, a
job waits without an error. So while calls wait, the engine looks for jobs that nothing was heard
of, and asks their server once for each function:

============================  ====================================================================
event                         the engine
============================  ====================================================================
a server acknowledges a job   sets the timer of all jobs to `warn_after` seconds, unless it is set
the timer, while a call       takes the jobs that were acknowledged `warn_after` seconds ago or
waits                         earlier and have no update; sends ``status`` to the server of each
                              function that it has not asked about, on the admin connection (see
                              `cancelling`)
the timer, while jobs are in  sets the timer again
flight
the answer has a worker or a  does nothing
running job of the function
the answer has neither        adds a notice, if the job still waits and the function has none yet
no answer, or an error        does nothing
============================  ====================================================================

One timer serves all jobs, and looks at each job at most twice. So a job is found between one and
two times `warn_after` seconds after its acknowledgment, the first job of a client right after
`warn_after` seconds.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final

from gearman_proto.constants import JOB_CREATED
from gearman_proto.engines.admin import Question
from gearman_proto.engines.waits import wake_nobody
from gearman_proto.wire.text import status

from .cancelling import ANSWER_TIMEOUT

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Iterator

    from gearman_proto.engines.servers import Server
    from gearman_proto.wire.text import FunctionStatus

    from .foreground import Job, LoneRef
    from .link import ClientLink

#: Maximum number of questions about a function. Later functions are not checked.
MAX_FUNCTIONS: Final = 1000
# Size limit of an answer in bytes, enough for some ten thousand functions.
_MAX_REPLY_SIZE: Final = 1024 * 1024
# Limits for the search of a similar name, which compares each of the names.
_MAX_NAMES: Final = 1000
_MAX_LENGTH: Final = 100
# Minimum similarity of two names, from 0 to 1. Names of four letters with one difference have 0.75.
_SIMILAR: Final = 0.75


class UnservedFunctions:
    """The functions that the engine has asked servers about.

    Args:
        seconds: Age of a job at which to ask about its function. Infinity means never.
        notices: The notices of the engine. It replaces them before the first question.

    Attributes:
        is_idle: True if the timer has to be set for the next job.
    """

    __slots__ = ("_asked", "_looked_at", "_reported", "is_idle", "notices", "seconds")

    def __init__(self, seconds: float, notices: deque[str]) -> None:
        self.seconds: float = seconds
        self.is_idle: bool = seconds < math.inf
        self.notices: deque[str] = notices
        self._asked: set[tuple[Server, str]] = set()
        self._reported: set[str] = set()
        # Time of the last look at the jobs.
        self._looked_at = -math.inf

    def is_full(self) -> bool:
        """Return whether the engine has asked about as many functions as it remembers."""
        return len(self._asked) >= MAX_FUNCTIONS

    def questions(
        self, links: Iterable[ClientLink], now: float
    ) -> Iterator[tuple[Server, WorkersQuestion]]:
        """Yield the questions about functions whose jobs have become old since the last call."""
        for link in links:
            jobs: dict[str, Job | LoneRef] = {}
            for job in reversed(link.jobs.values()):  # The newest first.
                due = job.since + self.seconds
                if due <= self._looked_at:
                    break
                if due <= now:
                    jobs.update((task, job) for task in _silent_tasks(job))
            for task in list(jobs):
                if self.is_full() or task in self._reported or (link.server, task) in self._asked:
                    del jobs[task]
                else:
                    self._asked.add((link.server, task))
            if jobs:
                yield link.server, WorkersQuestion(self, link.server, jobs, now + ANSWER_TIMEOUT)
        self._looked_at = now

    def report(self, server: Server, task: str, served: Iterable[str]) -> None:
        """Add a notice that `server` has workers only for `served`, and none for `task`."""
        if task in self._reported:
            return
        self._reported.add(task)
        text = (
            f"no worker of {server.address} has registered the function {task[:_MAX_LENGTH]!r}; "
            "its jobs wait until one does"
        )
        similar = _similar(task, served)
        self.notices.append(f"{text} (a worker has registered {similar!r})" if similar else text)


class WorkersQuestion(Question["tuple[FunctionStatus, ...]"]):
    """The question whether functions have workers. No call waits for the answer.

    Args:
        unserved: Gets the functions that have none.
        server: The server.
        jobs: The functions, each with a job that waits for a worker.
        deadline: When to give up.
    """

    __slots__ = ("_jobs", "_server", "_unserved")

    keeps_open = False

    def __init__(
        self,
        unserved: UnservedFunctions,
        server: Server,
        jobs: dict[str, Job | LoneRef],
        deadline: float,
    ) -> None:
        super().__init__(status(), _MAX_REPLY_SIZE, deadline, wake_nobody)
        self._unserved = unserved
        self._server = server
        self._jobs = jobs

    def answer(self, value: tuple[FunctionStatus, ...]) -> None:
        """Report the functions that have no worker, and whose jobs still wait."""
        super().answer(value)
        served = {each.task: None for each in value if each.workers or each.running}
        for task, job in self._jobs.items():
            if task not in served and task in _silent_tasks(job):
                self._unserved.report(self._server, task, served)


def _silent_tasks(job: Job | LoneRef) -> list[str]:
    """Return the functions of those requests of `job` that have received nothing.

    A job has one function, but the application can change its requests.
    """
    return [
        request.task
        for request in job.live()
        if request.state == JOB_CREATED
        and request._gm_updates is None
        and type(request.task) is str
    ]


def _similar(task: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is spelled almost like `task`, or None."""
    from difflib import get_close_matches  # noqa: PLC0415 - few programs need it

    if len(task) > _MAX_LENGTH:
        return None
    short = [name for name in islice(names, _MAX_NAMES) if len(name) <= _MAX_LENGTH]
    return next(iter(get_close_matches(task, short, n=1, cutoff=_SIMILAR)), None)
