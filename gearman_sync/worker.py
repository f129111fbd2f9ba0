"""The blocking worker: python-gearman's surface on the worker engine.

The thread that calls `work` polls the servers. With one slot, it also runs the callbacks. With
several slots, a pool of threads runs the callbacks and sends their packets. In both cases,
`_gm_execute` runs a job, and `gearman_proto.engines.worker.outcomes` decides how it ends.
"""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import InvalidWorkerState, Server, WorkerEngine, WorkerJob
from gearman_proto.checks import to_seconds
from gearman_proto.engines.worker.outcomes import (
    Ending,
    ForkGuard,
    contain_errors,
    exc_info_of,
    leaves,
)
from gearman_proto.handlers import has_hit_the_library
from gearman_proto.jobs import tracking
from gearman_proto.signals import SIGNALLED, draining, end_process
from gearman_proto.surface.worker import (
    POLL_TIMEOUT_IN_SECONDS,
    Worker,
    check_main_thread,
    logger,
)
from gearman_proto.tls import make_contexts
from gearman_proto.wire.packets import WorkData, WorkException, WorkWarning

from ._closing import ClosesOnExit, SSLContext, load_ssl
from ._driver import Driver, rng
from ._threads import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import ServerAddress
    from gearman_proto.engines.worker.engine import GrabWait, WorkSubscription
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.wire.packets import PacketEvent

    from ._driver import Call


#: Ends this process at once, without cleanup.
_end_process: Final = functools.partial(end_process, os._exit)
#: Makes the guard of a job. See `ForkGuard`.
_guard: Final = functools.partial(ForkGuard, logger, os.getpid, _end_process)
_NO_GUARD: Final = contextlib.nullcontext()


def _take_job(call: Call[GrabWait]) -> WorkerJob | None:
    wait = call.block()
    wait.raise_error()
    return wait.take()


class GearmanWorker(Worker[Server, SSLContext], ClosesOnExit):
    """Does the jobs of Gearman servers.

    From python-gearman (`gearman.GearmanWorker`). With one slot (`max_jobs`) callbacks run in the
    thread that calls `work`, and KeyboardInterrupt and SystemExit out of one leave that; with
    several they run in a pool of threads, and nothing that they raise does. All methods may be
    called from any thread. After a fork, the child's copy makes connections of its own.
    """

    _gm_driver: Driver[WorkerEngine]

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        make_engine = functools.partial(WorkerEngine, addresses, rng=rng, **options)
        self._gm_driver = Driver(
            self._gm_engines(make_engine), make_contexts(addresses, load_ssl), InvalidWorkerState
        )

    # Working.

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        # What `after_job` has raised; it is raised when all jobs are done.
        errors: list[BaseException] = []
        body = functools.partial(self._gm_work, errors=errors)
        timeout = to_seconds(poll_timeout)
        self._gm_look_at_hooks()
        subscription = self._gm_driver.during(body, WorkerEngine.work, timeout=timeout)
        if errors:
            raise errors[0]
        subscription.raise_error()

    def _gm_work(
        self, call: Call[WorkSubscription], errors: list[BaseException]
    ) -> WorkSubscription:
        subscription = call.wait
        execute: Callable[[WorkerJob], None] = functools.partial(self._gm_execute, errors=errors)
        pool = None
        if self._gm_max_jobs > 1:
            pool = Pool(
                self._gm_max_jobs, functools.partial(self._gm_execute_in_pool, errors=errors)
            )
            execute = pool.do
        try:
            if pool is not None:
                pool.start()
            while not subscription.done:
                call.block()
                active, subscription.active = subscription.active, False
                while (
                    subscription.news
                    and (job := self._gm_driver.call(WorkerEngine.next_job)) is not None
                ):
                    execute(job)
                self._gm_driver.log_notices()
                if not self.after_poll(active):
                    self._gm_driver.call(WorkerEngine.stop)
        finally:
            if pool is not None:
                pool.is_finished = True
                pool.jobs.put(None)
            self._gm_driver.log_notices()
        return subscription

    def run(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        check_main_thread()
        with draining(self.stop, lambda number: _end_process(SIGNALLED + number)):
            self.work(poll_timeout)

    def grab(self, timeout: float | None = None) -> WorkerJob | None:
        seconds = to_seconds(timeout, "timeout")
        try:
            job = self._gm_driver.during(_take_job, WorkerEngine.grab, timeout=seconds)
        finally:
            self._gm_driver.log_notices()
        if job is not None:
            tracking.attach(job, self)
        return job

    def stop(self, timeout: float | None = None) -> None:
        self._gm_driver.post(self._gm_make_stop(timeout))

    def shutdown(self) -> None:
        self._gm_driver.close()

    def _gm_do(self, job: WorkerJob) -> None:
        """Do one job, and see to it that it ends, unless it is deferred."""
        tracking.attach(job, self)
        ending = Ending(job, logger)
        watch = contain_errors(self._gm_leaves, ending.hook_raised)
        # `on_job_execute` has a guard around the callback. A subclass's hook can fork too.
        with watch, _NO_GUARD if self._gm_ends_at_once else _guard(job):
            self.on_job_execute(job)
        with watch:
            self._gm_send_all(job, ending.to_send(self.data_encoder, *self._gm_how))

    def _gm_execute(self, job: WorkerJob, errors: list[BaseException]) -> None:
        if not tracking.is_left(job):
            self._gm_do(job)
            if tracking.is_finished(job):
                return
            if tracking.is_deferred(job) and self._gm_driver.call(WorkerEngine.leave, job):
                return
        go_on = False
        with contain_errors(self._gm_leaves, errors.append):
            go_on = bool(self.after_job())
        self._gm_driver.call(WorkerEngine.job_done, job, go_on=go_on)

    def _gm_execute_in_pool(self, job: WorkerJob, errors: list[BaseException]) -> None:
        try:
            self._gm_execute(job, errors)
        except BaseException as error:  # noqa: BLE001 - raised by work
            errors.append(error)

    def _gm_leaves(self, error: BaseException) -> bool:
        return leaves(error, in_work=self._gm_max_jobs == 1) or has_hit_the_library(error)

    # Hooks.

    def on_job_execute(self, current_job: WorkerJob) -> bool:
        try:
            with _guard(current_job):
                result = self._gm_registered[current_job.task].callback(self, current_job)
        except BaseException as error:
            if self._gm_leaves(error):
                raise
            return self.on_job_exception(current_job, exc_info_of(error))
        return self.on_job_complete(current_job, result)

    def on_job_exception(self, current_job: WorkerJob, exc_info: ExcInfo) -> bool:
        self._gm_send_all(current_job, self._gm_raised(current_job, exc_info))
        return False

    def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
        try:
            events = self._gm_returned(current_job, job_result)
        except BaseException as error:
            if self._gm_leaves(error):
                raise
            return self.on_job_exception(current_job, exc_info_of(error))
        self._gm_send_all(current_job, events)
        return True

    def after_poll(self, any_activity: bool) -> bool:  # noqa: ARG002 - for subclasses
        return True

    def after_job(self) -> bool:
        return True

    # What callbacks send.

    def send_job_status(
        self,
        current_job: WorkerJob,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> None:
        event = self._gm_status(current_job, numerator, denominator)
        self._gm_send(current_job, event, poll_timeout)

    def send_job_data(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        self._gm_send(current_job, self._gm_data(WorkData, current_job, data), poll_timeout)

    def send_job_warning(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        self._gm_send(current_job, self._gm_data(WorkWarning, current_job, data), poll_timeout)

    def send_job_complete(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        event = self._gm_result(current_job, data)
        self._gm_send(current_job, event, poll_timeout)

    def send_job_failure(self, current_job: WorkerJob, poll_timeout: float | None = None) -> None:
        self._gm_send(current_job, self._gm_failure(current_job), poll_timeout)

    def send_job_exception(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        self._gm_send(current_job, self._gm_data(WorkException, current_job, data), poll_timeout)

    def _gm_send(self, job: WorkerJob, event: PacketEvent, timeout: float | None) -> None:
        self._gm_driver.run(WorkerEngine.send, job, event, timeout=to_seconds(timeout))

    def _gm_send_all(self, job: WorkerJob, events: list[PacketEvent]) -> None:
        for event in events:
            self._gm_driver.run(WorkerEngine.send, job, event, done=self._gm_ends_at_once)
