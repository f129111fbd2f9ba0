"""A simulated network of a server, a worker, a client and an admin client."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing import Fault, Faults, Network, SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.testing import Call


def reverse(job: WorkerJob) -> bytes:
    data: bytes = job.data
    return data[::-1]


def slowly(job: WorkerJob) -> Generator[Any, None, bytes]:
    yield 1.0
    yield JobProgress(1, 2)
    yield JobData(b"half of " + job.data)
    yield JobWarning(b"nearly")
    yield 1.0
    result: bytes = b"all of " + job.data
    return result


def fail(job: WorkerJob) -> bytes:
    raise RuntimeError("no")


CALLBACKS: dict[str, Any] = {"reverse": reverse, "slowly": slowly, "fail": fail}


class Cast:
    """A network with one node of each kind.

    Args:
        faults: The faults to replay, as text.
        seed: The seed of the network.
        server: Options of the server.
        worker: Options of the worker.
        client: Options of the client.
        quality: The quality of the network: attributes of `Faults`.

    Attributes:
        call: The last submit; `request` and `entry` are its request and its entry in the books.
    """

    def __init__(
        self,
        *faults: str,
        seed: int = 1,
        server: dict[str, Any] | None = None,
        worker: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        **quality: Any,
    ) -> None:
        replay = [Fault.parse(fault) for fault in faults]
        self.net = Network(random.Random, seed, Faults(**quality), replay=replay)
        self.books: Any = self.net.books
        self.server: Any = self.net.server(**(server or {}))
        self.worker: Any = self.net.worker([self.server], CALLBACKS, **(worker or {}))
        self.client: Any = self.net.client([self.server], **(client or {}))
        self.admin = self.net.admin(self.server)

    def submit(
        self,
        task: str = "slowly",
        data: bytes = b"data",
        *,
        job: dict[str, Any] | None = None,
        **options: Any,
    ) -> Call:
        """Submit a job. `job` has more of its attributes, `options` are those of the call."""
        call: Call = self.client.submit([{"task": task, "data": data, **(job or {})}], **options)
        self.call: Any = call
        (self.request,) = self.call.requests
        (self.entry,) = self.call.entries
        return call

    def run(self, seconds: float) -> None:
        self.net.run(self.net.now + seconds)

    def fails(self, problem: str, do: float | Callable[[], object] | None = None) -> None:
        """Expect a problem within some seconds, in a call, or by the end of the run."""
        if isinstance(do, float):
            do = partial(self.run, do)
        with pytest.raises(SimulationError, match=problem):
            (do or self.net.check)()

    @property
    def engine(self) -> Any:
        """The server's engine."""
        return self.server.engine

    @property
    def job(self) -> Any:
        """The server's only job."""
        (job,) = self.engine.queue.jobs.values()
        return job

    @property
    def execution(self) -> Any:
        """The only execution in the books."""
        ((execution,),) = self.books.executions.values()
        return execution

    def start_again(self) -> None:
        """Assign the job to the worker once more."""
        first = self.execution
        job = (first.key[1], "slowly", None, b"data")
        self.books.started(self.worker, self.server, first.is_lost, job, self.net.now, None)
