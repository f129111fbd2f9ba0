"""KeyboardInterrupt at every place where CPython checks for signals.

The interrupted call raises only KeyboardInterrupt. The client or worker can be used again at once.
It keeps no job, no lock and no old descriptor, and no other thread hangs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    InvalidClientState,
    ServerUnavailable,
)
from gearman_sync import (
    GearmanAdminClient,
    GearmanClient,
    GearmanJobRequest,
    GearmanWorker,
    JobServer,
    WorkerJob,
)
from tests.support import PATIENCE, deadlines_of, spawn
from tests.support.injecting import every_place, soon

from .support import interrupt, open_files, signal_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import MakeClient, MakeWorker, Work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system has no /proc"),
    # An interrupt may hit a finalizer, where Python ignores it, or hit after a socket was created
    # and before it was stored.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LOST = (ConnectionError, ExceededConnectionAttempts, ServerUnavailable)


def echo(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data


def settled_descriptors() -> int:
    """Return the number of descriptors after garbage of other tests has been collected."""
    gc.collect()
    return len(open_files())


@pytest.fixture
def strict_engines() -> None:
    """Use plain engines, since the exceptions would hit the proxies as well."""


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with JobServer() as server:
        yield server.address


@pytest.fixture
def echoing(address: tuple[str, int], work: Work) -> None:
    """Run a worker for jobs of "echo"."""
    work(address, tasks={"echo": echo})


@pytest.fixture
def raised() -> Iterator[list[Exception]]:
    """The exceptions of a signal handler. Their frames refer to sockets, which are closed late."""
    raised: list[Exception] = []
    yield raised
    raised.clear()
    gc.collect()


# Interrupted scenarios.


def submit(client: GearmanClient) -> None:
    client.submit_job("echo", b"1")


def connect(client: GearmanClient) -> None:
    client.establish_connection(client.connection_list[0])


def wait_for_each(client: GearmanClient) -> None:
    jobs = [{"task": "echo", "data": b"1"}, {"task": "echo", "data": b"2"}]
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert len(list(client.as_completed(requests))) == 2


def ask(client: GearmanClient) -> None:
    client.get_job_status(GearmanJobRequest.from_handle("H:host:1"))


def watch(client: GearmanClient) -> None:
    client.poll_connections_until_stopped([], lambda activity: False)


def disconnect(client: GearmanClient) -> None:
    client._gm_driver.apply(lambda engine, now: engine.disconnect(now, engine.pool.servers[0]))


def whole_job(client: GearmanClient) -> None:
    """Run a job. A connection lost in an interrupt may be noticed only now."""
    for _ in range(3):
        with contextlib.suppress(*LOST):
            request = client.submit_job("echo", b"again", poll_timeout=PATIENCE)
            assert not request.timed_out
            if request.complete:
                assert request.result == b"again"
                return
    raise AssertionError("it is lost again and again")


def check_idle(driver: Any, where: object) -> None:
    """Check that no call is left in the driver."""
    assert not driver._released, where
    assert not driver._busy, where
    assert not driver.engine._waits, where
    assert not deadlines_of(driver.engine), where
    assert driver._leadership.leader is None, where


class Partner:
    """A thread that submits jobs one by one to the same client until the end."""

    def __init__(self, client: GearmanClient) -> None:
        self._client = client
        self._is_finished = False
        self.done = 0
        self._call = spawn(self._run)

    def _run(self) -> None:
        while not self._is_finished:
            with contextlib.suppress(*LOST):
                self._client.submit_job("echo", b"partner")
            self.done += 1

    def goes_on(self) -> bool:
        before = self.done
        return soon(lambda: self.done > before)

    def end(self) -> None:
        self._is_finished = True
        self._call.result(PATIENCE)


def interrupt_client(
    client: GearmanClient,
    scenario: Callable[[GearmanClient], None],
    partner: Partner | None = None,
    function: Callable[[], object] = interrupt,
    errors: type[BaseException] = KeyboardInterrupt,
) -> int:
    """Interrupt `scenario` at every place, check each time, and return the number of places."""
    whole_job(client)
    before = settled_descriptors()
    places = 0
    for at in every_place(function):
        if scenario is connect:
            disconnect(client)
        try:
            with at, contextlib.suppress(*LOST if partner else ()):
                scenario(client)
        except errors:
            places += 1
        whole_job(client)
        if partner is not None:
            assert partner.goes_on(), at.where
        else:
            check_idle(client._gm_driver, at.where)
            assert soon(lambda: len(open_files()) == before), at.where
    return places


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("scenario", [submit, connect, wait_for_each, ask, watch])
def test_client(make_client: MakeClient, address: tuple[str, int], scenario: Any) -> None:
    assert interrupt_client(make_client(address), scenario) > 60


@pytest.mark.usefixtures("echoing")
def test_client_that_connects_by_name(make_client: MakeClient, address: tuple[str, int]) -> None:
    """Another thread resolves the name."""
    assert interrupt_client(make_client(("localhost", address[1])), connect) > 100


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("scenario", [submit, wait_for_each])
def test_client_beside_another_thread(
    make_client: MakeClient, address: tuple[str, int], scenario: Any
) -> None:
    """Leader and follower are random. Each thread takes over from the other."""
    client = make_client(address)
    partner = Partner(client)
    assert interrupt_client(client, scenario, partner) > 60
    partner.end()
    assert not client._gm_driver.engine._waits
    assert not client._gm_driver._leadership.followers


def test_admin_client(address: tuple[str, int]) -> None:
    places = 0
    with GearmanAdminClient([address]) as admin:
        pid = admin.get_pid()
        for at in every_place(interrupt):
            try:
                with at:
                    admin.get_version()
            except KeyboardInterrupt:
                places += 1
            assert admin.get_pid() == pid, at.where  # It does not get the reply to get_version.
            assert not admin._gm_driver._released, at.where
    assert places > 60


@pytest.mark.usefixtures("echoing")
@pytest.mark.parametrize("error", [TimeoutError, RuntimeError, ValueError, InvalidClientState])
def test_call_raises_the_exception_of_a_signal_handler(
    make_client: MakeClient,
    address: tuple[str, int],
    error: type[Exception],
    raised: list[Exception],
) -> None:
    """The library raises and catches the same class, but does not catch the handler's exception."""

    def handle(*_: object) -> None:
        raised[:] = [error("of a signal handler")]
        raise raised[-1]

    def scenario(client: GearmanClient) -> None:
        came_out = []
        raised.clear()
        try:
            submit(client)
        except error as caught:
            came_out.append(caught)
            raise
        finally:
            assert raised == came_out

    before = signal.signal(signal.SIGALRM, handle)
    try:
        assert interrupt_client(make_client(address), scenario, None, handle, error) > 60
    finally:
        signal.signal(signal.SIGALRM, before)


class OneJob(GearmanWorker):
    """A worker that does one job."""

    def after_job(self) -> bool:
        return False


def test_work_raises_the_exception_of_a_signal_handler_unless_it_hits_the_callback(
    make_client: MakeClient,
    make_worker: MakeWorker,
    address: tuple[str, int],
    raised: list[Exception],
) -> None:
    def handle(*_: object) -> None:
        raised[:] = [TimeoutError("of a signal handler")]
        raise raised[-1]

    client, worker = make_client(address), make_worker(address, kind=OneJob, tasks={"echo": echo})
    before = signal.getsignal(signal.SIGALRM)
    places = 0
    try:
        for at in every_place(handle, step=3):
            # No function lies between the library's and the handler, as with a signal.
            signal.signal(signal.SIGALRM, at._look)  # type: ignore[arg-type]
            request = client.submit_job("echo", b"1", wait_until_complete=False)
            has_come_out = False
            try:
                with at:
                    worker.work()
            except TimeoutError as error:
                has_come_out = error is raised[-1]
            if at.where is not None:
                places += 1
                assert has_come_out != (" in echo\n" in at.where), at.where
            # The result may be in flight. Otherwise, another worker runs the job.
            other = make_worker(address, tasks={"echo": echo})
            others_work = spawn(other.work)
            client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.complete, at.where
            other.stop()
            others_work.result(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert places > 60


@pytest.mark.parametrize("max_jobs", [1, 3])
def test_worker(
    make_client: MakeClient, make_worker: MakeWorker, address: tuple[str, int], max_jobs: int
) -> None:
    client = make_client(address)
    worker = make_worker(address, kind=OneJob, tasks={"echo": echo}, max_jobs=max_jobs)
    driver = worker._gm_driver
    threads = threading.active_count()

    def is_idle() -> bool:
        return threading.active_count() == threads

    client.submit_job("echo", b"", background=True)
    before = settled_descriptors()
    worker.work()
    assert soon(is_idle)

    def expected() -> int:
        # The waker's two, and the selector, which is opened again when it is needed.
        return before + 2 + (driver._poller.selector is not None)

    places = 0
    for at in every_place(interrupt):
        request = client.submit_job("echo", b"1", wait_until_complete=False)
        try:
            with at:
                worker.work()
        except KeyboardInterrupt:
            places += 1
        # Release the job at once, not only at the next use, so that another worker gets it.
        assert not worker.has_job_lock(), at.where
        assert not driver._poller.transports, at.where
        assert not driver._released, at.where
        assert soon(lambda: len(open_files()) == expected()), at.where
        client.wait_until_jobs_completed([request], poll_timeout=0)
        if not request.complete:
            again = spawn(worker.work)
            client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.result == b"1", at.where
            again.result(PATIENCE)
        assert soon(is_idle), at.where
    assert places > 500


@pytest.mark.usefixtures("echoing")
def test_storm_beside_twenty_threads(make_client: MakeClient, address: tuple[str, int]) -> None:
    """Signals in quick succession leave no job, lock or descriptor, wherever they hit."""
    client = make_client(address)
    partners = [Partner(client) for _ in range(20)]
    chance = random.Random(1)
    armed: list[bool] = []
    interrupts = 0

    def handle() -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    def storm(trigger: Callable[[], None]) -> None:
        end = time.monotonic() + PATIENCE
        while interrupts < 350 and time.monotonic() < end:
            time.sleep(chance.random() * 0.001)
            trigger()

    with signal_handler(handle) as trigger:
        raining = spawn(storm, trigger)
        while not raining.done():
            with contextlib.suppress(*LOST):
                try:
                    armed.append(True)
                    client.submit_job("echo", b"1")
                    armed.clear()
                except KeyboardInterrupt:
                    interrupts += 1
        raining.result()
        armed.clear()
    assert interrupts > 300
    for partner in partners:
        assert partner.goes_on()
    for partner in partners:
        partner.end()
    whole_job(client)
    check_idle(client._gm_driver, None)
