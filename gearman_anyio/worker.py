"""The worker for trio and asyncio: python-gearman's surface on the worker engine.

Each job runs in its own task, in the task group that `work` hides. The task runs `_gm_execute`, and
`gearman_proto.engines.worker.outcomes` decides how the job ends. A job starts as soon as it is
received. Only if a subclass overrides `after_poll`, `work` itself wakes and starts it.
"""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from gearman_proto import Server, WorkerEngine, WorkerJob, constants
from gearman_proto.checks import to_seconds
from gearman_proto.engines.worker.outcomes import (
    Ending,
    contain_errors,
    exc_info_of,
    leaves,
)
from gearman_proto.jobs import tracking
from gearman_proto.signals import SIGNALLED, draining
from gearman_proto.surface.tasks import job_context
from gearman_proto.surface.worker import (
    POLL_TIMEOUT_IN_SECONDS,
    Worker,
    check_main_thread,
    logger,
)
from gearman_proto.wire.packets import WorkData, WorkException, WorkWarning

from ._callbacks import (
    NO_GUARD,
    CallbackExit,
    WorkTask,
    awaited,
    call_back,
    end_process,
    guard,
)
from ._driver import Driver, rng
from ._opening import SSLContext, make_opener
from ._tasks import Tasks, Use, hosted_tasks, make_call_soon

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from gearman_proto import HostSpec, ServerAddress
    from gearman_proto.engines.worker.engine import WorkSubscription
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.surface.worker import Result
    from gearman_proto.wire.packets import PacketEvent

    from ._calls import Call
    from ._streams import Connector


class GearmanWorker(Worker[Server, SSLContext]):
    """A worker that runs jobs of Gearman servers.

    From python-gearman (`gearman.GearmanWorker`). The methods are the same, and those that wait are
    async. If `work` is cancelled, servers give its jobs to other workers.

    Callbacks and the hooks of a subclass can be async or plain. Plain callbacks run in threads, up
    to `max_jobs` at once. They get a proxy of the worker whose methods block. Plain hooks run in
    the event loop.
    """

    _gm_is_awaited = True
    # The tasks of ``async with``. One of them can run the driver for `grab`.
    _gm_host: Tasks | None = None
    # The current or last use of the driver.
    _gm_use: Use | None = None
    # While it works.
    _gm_task: WorkTask
    _gm_limiter: anyio.CapacityLimiter

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        *,
        max_jobs: int = 1,
        exceptions: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_outage: float | None = constants.DEFAULT_MAX_OUTAGE,
        poll_interval: float = constants.DEFAULT_POLL_INTERVAL,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        connect: Connector | None = None,
    ) -> None:
        self._gm_connect = connect
        super().__init__(
            host_list,
            max_jobs=max_jobs,
            exceptions=exceptions,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            max_outage=max_outage,
            poll_interval=poll_interval,
            max_packet_size=max_packet_size,
        )

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        opener = make_opener(addresses, self._gm_connect)
        make_engine = functools.partial(WorkerEngine, addresses, rng=rng, **options)
        # The task of `work` enters and leaves the group. An exception of a job's task must cancel
        # that task.
        self._gm_driver = Driver(self._gm_engines(make_engine), opener, lambda _failed: Tasks())

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_gm_host", "_gm_use")
        return {name: value for name, value in super().__getstate__().items() if name not in hidden}

    async def __aenter__(self) -> Self:
        host = hosted_tasks()
        await host.__aenter__()
        self._gm_host = host
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gm_driver.close()
        host, self._gm_host = self._gm_host, None
        if host is not None:
            await host.__aexit__(kind, error, traceback)

    def register_task(
        self,
        task: str | bytes,
        # A plain callback gets a proxy with blocking methods, as of gearman_sync.GearmanWorker.
        callback: Callable[[Self, WorkerJob], Awaitable[Result]]
        | Callable[[Any, WorkerJob], Result]
        | Callable[[WorkerJob], Awaitable[Result] | Result],
        timeout: float | None = None,
    ) -> str:
        plain: Any = callback
        return super().register_task(task, plain, timeout)

    # Working.

    async def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        timeout = to_seconds(poll_timeout)
        self._gm_look_at_hooks()
        await self._gm_wait_for_driver(for_work=True)
        with (
            self._gm_driver.start(WorkerEngine.work, timeout=timeout) as call,
            Use() as self._gm_use,
        ):
            self._gm_use.ending.set()  # Its engine becomes idle just before its driver ends.
            # What `after_job` has raised; it is raised when all jobs are done.
            errors: list[BaseException] = []
            self._gm_task = WorkTask()
            self._gm_limiter = anyio.CapacityLimiter(self._gm_max_jobs)
            async with self._gm_driver:
                try:
                    if not self._gm_has_own("after_poll"):
                        self._gm_start_at_once(call.wait, errors)
                    await self._gm_work(call, errors)
                finally:
                    self._gm_driver.call(WorkerEngine.end_work)
                    self._gm_driver.log_notices()
        if errors:
            raise errors[0]
        call.wait.raise_error()

    async def _gm_wait_for_driver(self, *, for_work: bool) -> None:
        """Wait for the end of an earlier use of the driver, unless it continues for `grab`.

        If `work` or calls of `grab` use the engine, return at once, because the engine refuses the
        new call. The caller has to begin its call before it awaits anything else.
        """
        while (
            (use := self._gm_use) is not None
            and not use.ended.is_set()
            and self._gm_driver.apply(lambda engine, _now: engine.is_idle)
        ):
            if for_work:
                use.ending.set()
            elif not use.ending.is_set():
                return
            await use.ended.wait()

    async def _gm_work(self, call: Call[Any], errors: list[BaseException]) -> None:
        subscription = call.wait
        while not subscription.done:
            await call.block()
            active, subscription.active = subscription.active, False
            self._gm_driver.apply(functools.partial(self._gm_start_jobs, subscription, errors))
            self._gm_driver.log_notices()
            if not await awaited(self.after_poll(active)):
                self._gm_driver.call(WorkerEngine.stop)

    def _gm_start_jobs(
        self,
        subscription: WorkSubscription,
        errors: list[BaseException],
        engine: WorkerEngine,
        now: float,
    ) -> None:
        while subscription.news and (job := engine.next_job(now)) is not None:
            self._gm_driver.start_soon(self._gm_execute, job, errors)

    def _gm_start_at_once(
        self, subscription: WorkSubscription, errors: list[BaseException]
    ) -> None:
        """Start each job when it is received, without waking `_gm_work`."""
        wake = subscription.wake

        def take(engine: WorkerEngine, now: float) -> None:
            if subscription.done or engine.notices:
                wake()
            else:
                self._gm_start_jobs(subscription, errors, engine, now)

        # The engine calls `wake` while it is in use, so it can't be asked for a job there.
        subscription.wake = lambda: self._gm_driver.call_or_post(take)

    async def run(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        check_main_thread()
        call_soon = make_call_soon()
        with draining(lambda: call_soon(self.stop), lambda number: end_process(SIGNALLED + number)):
            await self.work(poll_timeout)

    async def grab(self, timeout: float | None = None) -> WorkerJob | None:
        seconds = to_seconds(timeout, "timeout")
        if self._gm_host is None:
            raise RuntimeError("grab() keeps connections: use the worker with `async with`")
        driver = self._gm_driver
        await self._gm_wait_for_driver(for_work=False)
        try:
            with driver.start(WorkerEngine.grab, timeout=seconds) as call:
                if self._gm_use is None or self._gm_use.ended.is_set():
                    self._gm_use = Use()
                    self._gm_host.start_soon(self._gm_use.keep, driver)
                await call.block()
                call.wait.raise_error()
                job: WorkerJob | None = call.wait.take()
        finally:
            driver.apply(lambda _engine, _now: None)  # Let the engine handle the end of the call.
            self._gm_driver.log_notices()
        if job is not None:
            tracking.attach(job, self)
        return job

    def stop(self, timeout: float | None = None) -> None:
        self._gm_driver.call_or_post(self._gm_make_stop(timeout))

    async def shutdown(self) -> None:
        self._gm_driver.close()
        await anyio.lowlevel.checkpoint()

    async def _gm_execute(self, job: WorkerJob, errors: list[BaseException]) -> None:
        if not tracking.is_left(job):
            await self._gm_do(job)
            if tracking.is_finished(job):
                return
            if tracking.is_deferred(job) and self._gm_driver.call(WorkerEngine.leave, job):
                return
        go_on = False
        with contain_errors(self._gm_leaves, errors.append):
            go_on = bool(await awaited(self.after_job()))
        self._gm_driver.call(WorkerEngine.job_done, job, go_on=go_on)

    async def _gm_do(self, job: WorkerJob) -> None:
        """Do one job, and see to it that it ends, unless it is deferred."""
        tracking.attach(job, self)
        ending = Ending(job, logger)
        watch = contain_errors(self._gm_leaves, ending.hook_raised)
        # `call_back` has a guard of its own. A subclass's hook can fork too.
        with watch, NO_GUARD if self._gm_ends_at_once else guard(job):
            await awaited(self.on_job_execute(job))
        with watch:
            events = ending.to_send(self.data_encoder, *self._gm_how)
            await self._gm_send_all(job, events)

    def _gm_leaves(self, error: BaseException) -> bool:
        return leaves(error, in_work=True, is_cancelled=self._gm_task.is_ending)

    # Hooks. Those that are overridden may be plain.

    async def on_job_execute(self, current_job: WorkerJob) -> bool:
        try:
            ability = self._gm_registered[current_job.task]
            if ability.around is None:
                result = await call_back(ability, self, current_job, self._gm_limiter)
            else:
                result = None  # A context manager can suppress the callback's exception.
                async with job_context(current_job, ability.around):
                    result = await call_back(ability, self, current_job, self._gm_limiter)
        except BaseException as error:
            raised = error.error if isinstance(error, CallbackExit) else error
            if raised is error and self._gm_leaves(error):
                raise
            return bool(await awaited(self.on_job_exception(current_job, exc_info_of(raised))))
        return bool(await awaited(self.on_job_complete(current_job, result)))

    async def on_job_exception(self, current_job: WorkerJob, exc_info: ExcInfo) -> bool:
        await self._gm_send_all(current_job, self._gm_raised(current_job, exc_info))
        return False

    async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
        try:
            events = self._gm_returned(current_job, job_result)
        except BaseException as error:
            if self._gm_leaves(error):
                raise
            return bool(await awaited(self.on_job_exception(current_job, exc_info_of(error))))
        await self._gm_send_all(current_job, events)
        return True

    # What callbacks send.

    async def send_job_status(
        self,
        current_job: WorkerJob,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> None:
        event = self._gm_status(current_job, numerator, denominator)
        await self._gm_send(current_job, event, poll_timeout)

    async def send_job_data(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        await self._gm_send(current_job, self._gm_data(WorkData, current_job, data), poll_timeout)

    async def send_job_warning(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        await self._gm_send(
            current_job, self._gm_data(WorkWarning, current_job, data), poll_timeout
        )

    async def send_job_complete(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        event = self._gm_result(current_job, data)
        await self._gm_send(current_job, event, poll_timeout)

    async def send_job_failure(
        self, current_job: WorkerJob, poll_timeout: float | None = None
    ) -> None:
        await self._gm_send(current_job, self._gm_failure(current_job), poll_timeout)

    async def send_job_exception(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        await self._gm_send(
            current_job, self._gm_data(WorkException, current_job, data), poll_timeout
        )

    async def _gm_send(self, job: WorkerJob, event: PacketEvent, timeout: float | None) -> None:
        await self._gm_driver.run(WorkerEngine.send, job, event, timeout=to_seconds(timeout))

    async def _gm_send_all(self, job: WorkerJob, events: list[PacketEvent]) -> None:
        for event in events:
            # The job's task is about to end.
            await self._gm_driver.run_at_once(
                WorkerEngine.send, job, event, done=self._gm_ends_at_once
            )
