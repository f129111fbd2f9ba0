"""The application's own worker, run in a test: the common part of both adapters and its docs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gearman_proto.address import parse_address
from gearman_proto.checks import FOR_EVER, check_seconds
from gearman_proto.errors import ArgumentTypeError

from .runs import JobRun, Recorder, raise_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.surface.base import Waited

WorkerT = TypeVar("WorkerT")
ServerT = TypeVar("ServerT")

# Minimum timeout in seconds.
_SHORTEST: Final = 0.001


class WorkerUnderTest(ABC, Generic[WorkerT, ServerT]):
    """A worker under test, which does the jobs of a server in this process."""

    _worker_class: type[WorkerT]

    def __init__(
        self,
        worker: WorkerT | Mapping[str, Callable[[Any, Any], Any]],
        server: ServerT,
        *,
        timeout: float = 10.0,
        raise_errors: bool = True,
    ) -> None:
        """Prepare a worker. It connects only in `drain`, or inside ``with``.

        Args:
            worker: Callbacks by task, or a GearmanWorker. While it runs here, `server` replaces its
                own servers. It must not be connected.
            server: The address of the server, in any form that GearmanWorker accepts. (awaited) Or
                a JobServer of this event loop, which needs no sockets.
            timeout: Maximum duration of a `drain`, and of the end of ``with``, in seconds.
            raise_errors: True to raise the exceptions of callbacks in the test. Otherwise, they are
                only recorded in `runs`.

        Raises:
            TypeError: An argument has an invalid type.
            ValueError: The worker has no callbacks, or an argument has an invalid value.

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
        # The number of jobs that `drain` has returned.
        self._told = 0

    @staticmethod
    def _check_server(server: Any) -> None:
        parse_address(server)

    @property
    def runs(self) -> list[JobRun]:
        """The finished jobs (`job`, `result`, `error`), in the order of completion."""
        return list(self._recorder.runs)

    @abstractmethod
    def drain(self) -> Waited[list[JobRun]]:
        """Wait until the server has no job for the worker, neither queued nor running.

        This includes jobs that were queued earlier, and jobs that the jobs submit. A delayed job
        (`run_at=`) counts only once it is due.

        Returns:
            The jobs that were done since the last `drain`, or since the beginning.

        Raises:
            Exception: The exception of the first failed job, raised by its callback during this
                call or earlier in the ``with``. Its notes name the other failed jobs.
            TimeoutError: The jobs took longer than `timeout`. (awaited) The callbacks are
                cancelled. (blocking) A callback that still runs is interrupted by an exception, if
                this is the main thread and the system has SIGALRM. A callback in another thread can
                continue to run.
            ServerUnavailable: The server can't be reached.
            RuntimeError: The worker is connected or already under test; or one of its own callbacks
                calls this method.
        """

    def _drained(self) -> list[JobRun]:
        """Return the jobs that were done since the last call, or raise the first failure.

        Raises:
            Exception: The exception of a callback.
        """
        runs = self._recorder.runs[self._told :]
        self._told += len(runs)
        if self._raise_errors:
            raise_error(runs)
        return runs
