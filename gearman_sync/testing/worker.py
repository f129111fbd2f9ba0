"""A scripted worker for tests: a thread with a plain socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gearman_proto import Role, events
from gearman_proto.checks import check_callable, check_type

from .conversation import ScriptedClient
from .sockets import check_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.address import HostSpec


class Failed(Exception):
    """Raised by a worker's function to end the job with WORK_FAIL."""


class Raised(Exception):
    """Raised by a worker's function to end the job with WORK_EXCEPTION.

    Args:
        data: The data of WORK_EXCEPTION.

    Raises:
        TypeError: `data` is not bytes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(check_type("data", data, bytes, "bytes"))
        self.data: bytes = data


@dataclass
class ScriptedJob:
    """A job for a scripted worker's function.

    Attributes:
        worker: The worker. ``job.worker.send(event)`` sends any packet.
        handle: The job's handle.
        function: The name of the job's function.
        unique: The job's unique.
        data: The job's data.
        reducer: The name of the job's reducer, if it has one.
    """

    worker: ScriptedWorker
    handle: bytes
    function: str
    unique: bytes
    data: bytes
    reducer: bytes = b""

    def send_data(self, data: bytes) -> None:
        """Send a part of the result (WORK_DATA)."""
        self.worker.send(events.WorkData(self.handle, data))

    def send_warning(self, data: bytes) -> None:
        """Send a warning (WORK_WARNING)."""
        self.worker.send(events.WorkWarning(self.handle, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        """Send the job's progress (WORK_STATUS)."""
        self.worker.send(events.WorkStatus(self.handle, b"%d" % numerator, b"%d" % denominator))


class ScriptedWorker(ScriptedClient):
    """A worker in a thread, whose functions script the course of each job.

    A function is called with a `ScriptedJob` and returns the result. Before that, the function can
    send any packets. It can also close the connection, or raise `Failed` or `Raised`. Any other
    exception fails the job as well, and `stop` raises it. A `Gate` makes a function wait.

    The constructor returns when the worker has registered with the server. `stop`, or the end of
    the ``with`` block, ends the worker.

    Args:
        address: The address of the server, in any form that GearmanWorker takes.
        functions: The functions by name, a dict.
        poll_interval: Seconds after which the worker asks for jobs without being woken. Some
            servers require that for scheduled jobs. None means never.
        timeout: Seconds that the constructor waits for the server to accept the registration, and
            `stop` for a function.

    Attributes:
        jobs: The jobs that were begun.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        OSError: The worker can't connect to the address.
        AssertionError: The server does not answer.
    """

    def __init__(
        self,
        address: HostSpec,
        functions: Mapping[str, Callable[[ScriptedJob], bytes]],
        *,
        poll_interval: float | None = None,
        timeout: float = 20.0,
    ) -> None:
        self._functions = check_type("functions", functions, Mapping, "a dict of functions by name")
        for name, function in functions.items():
            check_type("a function's name", name, str, "a str")
            check_callable(f"the function {name!r}", function, "of a ScriptedJob")
        if poll_interval is not None:
            check_timeout(poll_interval, "poll_interval")
        super().__init__(address, role=Role.WORKER, timeout=timeout)
        self.jobs: list[ScriptedJob] = []
        self._timeout = timeout
        self._stopped = False
        self._ready = threading.Event()
        self._error: Exception | None = None
        self.sock.settimeout(poll_interval)
        self._thread = threading.Thread(target=self._run, name="scripted worker", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            self.sock.close()
            raise AssertionError("the server does not answer a scripted worker")

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def order(self) -> list[bytes]:
        """The data of all jobs, in the order in which they began."""
        return [job.data for job in self.jobs]

    def stop(self) -> None:
        """Close the connection, and end the thread.

        Raises:
            AssertionError: A function does not end, or the server has sent a packet that is not for
                workers.
            Exception: Any exception that a function has raised, except `Failed` and `Raised`.
            RuntimeError: A function has called this method.
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

    # Methods that run in the worker's thread.

    def _run(self) -> None:
        try:
            self._work()
        except OSError:
            pass  # The server has disconnected, or the worker was stopped.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = error
        finally:
            self._ready.set()

    def _work(self) -> None:
        self.send(*[events.CanDo(name.encode()) for name in self._functions], events.GrabJobAll())
        while not self._stopped:
            try:
                event = self.receive()
            except TimeoutError:
                self.send(events.PreSleep())
                continue
            self._ready.set()
            if isinstance(event, events.NoJob):
                self.send(events.PreSleep())
            elif isinstance(event, events.Noop):
                self.send(events.GrabJobAll())
            elif isinstance(event, (events.JobAssignAll, events.JobAssignUniq)):
                self.send(self._done(event), events.GrabJobAll())
            else:
                raise AssertionError(f"a worker gets {event!r}")  # noqa: TRY004

    def _done(self, event: events.JobAssignAll | events.JobAssignUniq) -> events.Event:
        job = ScriptedJob(self, event.handle, event.function.decode(), event.unique, event.data)
        if isinstance(event, events.JobAssignAll):
            job.reducer = event.reducer
        self.jobs.append(job)
        try:
            result = self._functions[job.function](job)
            what = f"what the function {job.function!r} returns"
            return events.WorkComplete(job.handle, check_type(what, result, bytes, "bytes"))
        except Failed:
            return events.WorkFail(job.handle)
        except Raised as error:
            return events.WorkException(job.handle, error.data)
        except OSError:
            raise  # The function has closed the connection, for example.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = self._error or error
            return events.WorkFail(job.handle)


def echo(job: ScriptedJob) -> bytes:
    """Return the job's data. This is a function for a scripted worker."""
    return job.data


def reverse(job: ScriptedJob) -> bytes:
    """Return the job's data in reverse order. This is a function for a scripted worker."""
    return job.data[::-1]


class Gate:
    """A function for a scripted worker that reports when a job begins, and blocks it until opened.

    Args:
        function: The function to call when the gate is open.
        timeout: Seconds after which a blocked job raises an AssertionError.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.

    Attributes:
        begun: An event that is set when a job has begun.
        open: An event to set in order to let the job continue.
    """

    def __init__(
        self, function: Callable[[ScriptedJob], bytes] = echo, *, timeout: float = 60.0
    ) -> None:
        self.begun: threading.Event = threading.Event()
        self.open: threading.Event = threading.Event()
        self._function = check_callable("function", function, "of a ScriptedJob")
        self._timeout = check_timeout(timeout)

    def __call__(self, job: ScriptedJob) -> bytes:
        """Wait until the gate is open, and run the job."""
        self.begun.set()
        if not self.open.wait(self._timeout):
            raise AssertionError("a gate was never opened")
        return self._function(job)
