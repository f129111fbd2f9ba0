"""A scripted worker: a thread with a plain socket and a `Connection`."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gearman_proto import NEED_DATA, Connection, Role
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

from .waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


class Failed(Exception):
    """Raised by a worker's function: WORK_FAIL."""


class Raised(Exception):
    """Raised by a worker's function: WORK_EXCEPTION, with these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


@dataclass
class Job:
    """What a worker's function gets."""

    worker: Worker
    handle: bytes
    function: str
    unique: bytes
    data: bytes
    reducer: bytes = b""

    def send_data(self, data: bytes) -> None:
        self.worker.send(WorkData(self.handle, data))

    def send_warning(self, data: bytes) -> None:
        self.worker.send(WorkWarning(self.handle, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        self.worker.send(WorkStatus(self.handle, b"%d" % numerator, b"%d" % denominator))


class Worker:
    """A worker in a thread: runs `functions` (name -> function of a Job that returns bytes).

    With `look_again`, it asks for jobs every so many seconds, as one has to for those with a time.
    """

    def __init__(
        self,
        address: tuple[str, int],
        functions: dict[str, Callable[[Job], bytes]],
        *,
        look_again: float | None = None,
    ) -> None:
        #: The jobs that were begun.
        self.jobs: list[Job] = []
        self._functions = functions
        self._connection = Connection(Role.WORKER)
        self._sock = socket.create_connection(address, PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(look_again)
        self._stopped = False
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()
        wait_for(self._ready, "worker's registration")

    @property
    def order(self) -> list[bytes]:
        """The data of the jobs, in the order in which they were begun."""
        return [job.data for job in self.jobs]

    def send(self, *events: Event) -> None:
        self._sock.sendall(b"".join([self._connection.send(event) for event in events]))

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._sock.close()
        assert not self._thread.is_alive(), "a worker's function does not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except OSError:
            pass  # The server was killed, or this was stopped.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = error
        finally:
            self._ready.set()

    def _work(self) -> None:
        self.send(*[CanDo(name.encode()) for name in self._functions], GrabJobAll())
        while not self._stopped:
            event = self._connection.next_event()
            if event is NEED_DATA:
                try:
                    data = self._sock.recv(1 << 18)
                except TimeoutError:
                    self.send(PreSleep())
                    continue
                if not data:
                    return
                self._connection.receive_data(data)
                continue
            self._ready.set()
            if isinstance(event, NoJob):
                self.send(PreSleep())
            elif isinstance(event, Noop):
                self.send(GrabJobAll())
            else:
                assert isinstance(event, (JobAssignAll, JobAssignUniq)), event
                self.send(self._done(event), GrabJobAll())

    def _done(self, event: JobAssignAll | JobAssignUniq) -> Event:
        job = Job(self, event.handle, event.function.decode(), event.unique, event.data)
        if isinstance(event, JobAssignAll):
            job.reducer = event.reducer
        self.jobs.append(job)
        try:
            return WorkComplete(job.handle, self._functions[job.function](job))
        except Failed:
            return WorkFail(job.handle)
        except Raised as error:
            return WorkException(job.handle, error.data)


def echo(job: Job) -> bytes:
    """A worker's function: the data back."""
    return job.data


def reverse(job: Job) -> bytes:
    """A worker's function: the data back to front."""
    return job.data[::-1]


class Gate:
    """A worker's function that says when a job has begun, and holds it until it is opened."""

    def __init__(self, function: Callable[[Job], bytes] = echo) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self._function = function

    def __call__(self, job: Job) -> bytes:
        self.begun.set()
        wait_for(self.open, "opening of a gate")
        return self._function(job)
