"""A worker that does as the test says: a thread with a plain socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gearman_proto import Role
from gearman_proto.arguments import check_callable, check_type
from gearman_proto.wire.events import (
    CanDo,
    Event,
    GrabJobAll,
    JobAssignAll,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .client import ScriptedClient
from .sockets import check_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.address import HostSpec


class Failed(Exception):
    """Raised by a worker's function: the job ends with WORK_FAIL."""


class Raised(Exception):
    """Raised by a worker's function: the job ends with WORK_EXCEPTION.

    Args:
        data: What that says.

    Raises:
        TypeError: That is not bytes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(check_type("data", data, bytes, "bytes"))
        self.data: bytes = data


@dataclass
class ScriptedJob:
    """What a scripted worker's function gets.

    Attributes:
        worker: The worker; with ``job.worker.send(event)`` it sends whatever it likes.
        handle: The job's handle.
        function: The name of its function.
        unique: Its unique.
        data: Its data.
        reducer: The name of its reducer, if it has one.
    """

    worker: ScriptedWorker
    handle: bytes
    function: str
    unique: bytes
    data: bytes
    reducer: bytes = b""

    def send_data(self, data: bytes) -> None:
        """Send a part of the result: WORK_DATA."""
        self.worker.send(WorkData(self.handle, data))

    def send_warning(self, data: bytes) -> None:
        """Send a warning: WORK_WARNING."""
        self.worker.send(WorkWarning(self.handle, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Send how far the job is: WORK_STATUS."""
        self.worker.send(WorkStatus(self.handle, b"%d" % numerator, b"%d" % denominator))


class ScriptedWorker(ScriptedClient):
    """A worker in a thread, whose functions are scripts of what happens to a job.

    A function gets a `ScriptedJob`. What it returns is the result; it may raise `Failed` or
    `Raised`, and send whatever it likes before, or close the connection. `Gate` makes it wait. Any
    other exception fails the job as well, and is raised by `stop`.

    When it is made, it has registered at the server. `stop`, or the end of its ``with``, ends it.

    Args:
        address: The address of the server, in any form that GearmanWorker takes.
        functions: The function for each name, a dict.
        look_again: Seconds after which it asks for jobs without being woken, as one has to for
            those with a time at some servers. None: it does not.
        timeout: Seconds that it waits for the server to take its registration, and `stop` for a
            function.

    Attributes:
        jobs: The jobs that were begun.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.
        OSError: There is no connection to that address.
        AssertionError: The server does not answer.
    """

    def __init__(
        self,
        address: HostSpec,
        functions: Mapping[str, Callable[[ScriptedJob], bytes]],
        *,
        look_again: float | None = None,
        timeout: float = 20.0,
    ) -> None:
        self._functions = check_type("functions", functions, Mapping, "a dict of functions by name")
        for name, function in functions.items():
            check_type("a function's name", name, str, "a str")
            check_callable(f"the function {name!r}", function, "of a ScriptedJob")
        if look_again is not None:
            check_timeout(look_again, "look_again")
        super().__init__(address, role=Role.WORKER, timeout=timeout)
        self.jobs: list[ScriptedJob] = []
        self._timeout = timeout
        self._stopped = False
        self._ready = threading.Event()
        self._error: Exception | None = None
        self.sock.settimeout(look_again)
        self._thread = threading.Thread(target=self._run, name="scripted worker", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            self.sock.close()
            raise AssertionError("the server does not answer a scripted worker")

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def order(self) -> list[bytes]:
        """The data of the jobs, in the order in which they were begun."""
        return [job.data for job in self.jobs]

    def stop(self) -> None:
        """Close the connection, and end the thread.

        Raises:
            AssertionError: A function does not end; or the server sent what a worker does not get.
            Exception: What a function has raised, beside `Failed` and `Raised`.
            RuntimeError: A function has called this.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a function can't call stop() of its worker, but job.worker.close()")
        self._stopped = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(self._timeout)
        self.sock.close()
        if self._thread.is_alive():
            raise AssertionError("a scripted worker's function does not end")
        if self._error is not None:
            raise self._error

    # In its thread.

    def _run(self) -> None:
        try:
            self._work()
        except OSError:
            pass  # The server has gone, or this was stopped.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = error
        finally:
            self._ready.set()

    def _work(self) -> None:
        self.send(*[CanDo(name.encode()) for name in self._functions], GrabJobAll())
        while not self._stopped:
            try:
                event = self.receive()
            except TimeoutError:
                self.send(PreSleep())
                continue
            self._ready.set()
            if isinstance(event, NoJob):
                self.send(PreSleep())
            elif isinstance(event, Noop):
                self.send(GrabJobAll())
            elif isinstance(event, (JobAssignAll, JobAssignUniq)):
                self.send(self._done(event), GrabJobAll())
            else:
                raise AssertionError(f"a worker gets {event!r}")  # noqa: TRY004

    def _done(self, event: JobAssignAll | JobAssignUniq) -> Event:
        job = ScriptedJob(self, event.handle, event.function.decode(), event.unique, event.data)
        if isinstance(event, JobAssignAll):
            job.reducer = event.reducer
        self.jobs.append(job)
        try:
            result = self._functions[job.function](job)
            what = f"what the function {job.function!r} returns"
            return WorkComplete(job.handle, check_type(what, result, bytes, "bytes"))
        except Failed:
            return WorkFail(job.handle)
        except Raised as error:
            return WorkException(job.handle, error.data)
        except OSError:
            raise  # It has closed the connection, say.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = self._error or error
            return WorkFail(job.handle)


def echo(job: ScriptedJob) -> bytes:
    """Return the data: a scripted worker's function."""
    return job.data


def reverse(job: ScriptedJob) -> bytes:
    """Return the data back to front: a scripted worker's function."""
    return job.data[::-1]


class Gate:
    """A scripted worker's function that says when a job has begun, and holds it until it is opened.

    Args:
        function: What is called then.
        timeout: Seconds after which the job is held no longer: that is an AssertionError.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.

    Attributes:
        begun: Set when a job has begun.
        open: What lets it go on when it is set.
    """

    def __init__(
        self, function: Callable[[ScriptedJob], bytes] = echo, *, timeout: float = 60.0
    ) -> None:
        self.begun: threading.Event = threading.Event()
        self.open: threading.Event = threading.Event()
        self._function = check_callable("function", function, "of a ScriptedJob")
        self._timeout = check_timeout(timeout)

    def __call__(self, job: ScriptedJob) -> bytes:
        """Wait, and do it."""
        self.begun.set()
        if not self.open.wait(self._timeout):
            raise AssertionError("nobody has opened a gate")
        return self._function(job)
