"""One's own worker, run in a test: what both kinds have in common, and their documentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gearman_proto.address import parse_address
from gearman_proto.arguments import FOR_EVER, check_seconds
from gearman_proto.errors import ArgumentTypeError

from .runs import JobRun, Recorder, raise_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.surface.base import Waited

WorkerT = TypeVar("WorkerT")
ServerT = TypeVar("ServerT")

# Seconds.
_SHORTEST: Final = 0.001


class WorkerUnderTest(ABC, Generic[WorkerT, ServerT]):
    """Does the jobs of a server in this process, with a worker of one's own."""

    _worker_class: type[WorkerT]

    def __init__(
        self,
        worker: WorkerT | Mapping[str, Callable[[Any, Any], Any]],
        server: ServerT,
        *,
        timeout: float = 10.0,
        raise_errors: bool = True,
    ) -> None:
        """Take a worker. Nothing is connected before `drain`, or ``with``.

        Args:
            worker: Callbacks by task, or a GearmanWorker, whose servers `server` stands in place of
                as long as it runs here. It must not be connected.
            server: The address of the server, in any form that GearmanWorker takes. (awaited) Or a
                JobServer of this event loop: then there are no sockets.
            timeout: Seconds that a `drain`, or the end of ``with``, may take.
            raise_errors: Whether to raise in the test what callbacks have raised. Else it is in
                `runs` only.

        Raises:
            TypeError: An argument is not of the type it must be.
            ValueError: There are no callbacks; or an argument has a value that can't be.

        Attributes:
            worker: The worker.
        """
        check_seconds("timeout", timeout, _SHORTEST, FOR_EVER)
        self._check_server(server)
        made: Any = worker
        if not isinstance(worker, self._worker_class):
            if not isinstance(worker, Mapping):
                name = f"{self._worker_class.__module__}.{self._worker_class.__name__}"
                raise ArgumentTypeError(
                    f"a worker is callbacks by task (a dict), or a {name}, not {worker!r}"
                )
            made = self._worker_class()
            for task, callback in worker.items():
                made.register_task(task, callback)
        self.worker: WorkerT = made
        self._server = server
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._recorder = Recorder(made, timeout)
        # How many jobs `drain` has told of.
        self._told = 0

    @staticmethod
    def _check_server(server: Any) -> None:
        parse_address(server)

    @property
    def runs(self) -> list[JobRun]:
        """The jobs that were done (`job`, `result`, `error`), in the order of their ends."""
        return list(self._recorder.runs)

    @abstractmethod
    def drain(self) -> Waited[list[JobRun]]:
        """Return when the server has no job for the worker: none that waits, and none that runs.

        That includes jobs that were queued before, and those that jobs submit. A job for later
        (`run_at=`) counts when it is due, and not before.

        Returns:
            The jobs that were done since the last `drain`, or the beginning.

        Raises:
            Exception: What the callback of the first job that has failed has raised, now or earlier
                in the ``with``. Notes name the other ones.
            TimeoutError: It took longer than `timeout`. (awaited) The callbacks are cancelled.
                (blocking) A callback that is in the way is left by an exception, if this is the
                main thread and the system has SIGALRM; one in another thread may go on there.
            ServerUnavailable: The server can't be reached.
            RuntimeError: The worker is connected, or under test elsewhere; or a callback of its own
                calls this.
        """

    def _drained(self) -> list[JobRun]:
        """Raise what is to be raised, or return the jobs that were done since the last time.

        Raises:
            Exception: What a callback has raised.
        """
        runs = self._recorder.runs[self._told :]
        self._told += len(runs)
        if self._raise_errors:
            raise_error(runs)
        return runs
