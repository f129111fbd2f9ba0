"""Overridden hooks of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .kit import Hooks, Kit, Server, echo, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob


def in_form(form: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return the hook unchanged ("plain") or wrapped in an async function."""
    if form == "plain":
        return hook

    async def call(*args: Any) -> Any:
        return await settled(hook(*args))

    return call


@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_hooks_of_each_job_run_in_order(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    calls: list[Any] = []

    class Hooked(Hooks):
        def on_job_execute(self, current_job: WorkerJob) -> Any:
            calls.append(("execute", current_job.data))
            return super().on_job_execute(current_job)

        def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> Any:
            calls.append(("exception", exc_info[0], str(exc_info[1])))
            assert exc_info[2] is exc_info[1].__traceback__
            return super().on_job_exception(current_job, exc_info)

        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any:
            calls.append(("complete", job_result, current_job.ended))
            return super().on_job_complete(current_job, job_result)

        def after_job(self) -> Any:
            calls.append("after")
            return super().after_job()

    def function(worker: Any, job: WorkerJob) -> Any:
        return {b"good": b"result", b"bad": 5}[job.data]

    client = await kit.client_and_worker(
        server.address, kind=Hooked, tasks={task: function}, max_jobs=max_jobs
    )
    expected: list[Any] = []
    for data, state, hooks in (
        (b"good", "COMPLETE", [("complete", b"result", False)]),
        (b"ugly", "FAILED", [("exception", KeyError, "b'ugly'")]),
        (b"bad", "FAILED", [("complete", 5, False), ("exception", TypeError)]),
    ):
        assert (await client.submit_job(task, data)).state == state
        expected += [("execute", data), *hooks, "after"]
        await kit.eventually(lambda: len(calls) == len(expected))  # noqa: B023 - awaited at once
    # The exception's text depends on the encoder, so drop it.
    calls[-2] = calls[-2][:2]
    assert calls == expected


async def test_async_hooks_send_and_await_super(kit: Kit, server: Server, task: str) -> None:
    returned: list[Any] = []

    class Hooked(Hooks):
        async def on_job_execute(self, current_job: WorkerJob) -> Any:
            return await settled(super().on_job_execute(current_job))

        async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any:
            send = self.send_job_complete if job_result == b"end" else self.send_job_data
            await settled(send(current_job, b"by the hook"))
            returned.append(await settled(super().on_job_complete(current_job, job_result)))
            return returned[-1]

        async def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> Any:
            if str(exc_info[1]) == "end":
                await settled(self.send_job_failure(current_job))
            else:
                await settled(self.send_job_warning(current_job, b"by the hook"))
            returned.append(await settled(super().on_job_exception(current_job, exc_info)))
            return returned[-1]

        async def after_job(self) -> Any:
            return await settled(super().after_job())

    def function(worker: Any, job: WorkerJob) -> Any:
        if job.data.startswith(b"bad"):
            raise ValueError(job.data.decode().removeprefix("bad "))
        return job.data

    client = await kit.client_and_worker(server.address, kind=Hooked, tasks={task: function})
    for data, result, updates, warnings in (
        (b"go on", b"go on", [b"by the hook"], []),
        (b"end", b"by the hook", [], []),
        (b"bad go on", None, [], [b"by the hook", b"ValueError: go on"]),
        (b"bad end", None, [], []),
    ):
        request = await client.submit_job(task, data)
        assert (request.complete, request.result) == (True, result)
        assert [[*request.data_updates], [*request.warning_updates]] == [updates, warnings]
    await kit.eventually(lambda: returned == [True, True, False, False])


async def test_on_job_execute_can_replace_the_callback(kit: Kit, server: Server, task: str) -> None:
    class Hooked(Hooks):
        def on_job_execute(self, current_job: WorkerJob) -> Any:
            return self.on_job_complete(current_job, current_job.task)

    client = await kit.client_and_worker(server.address, kind=Hooked, tasks={task: echo})
    assert (await client.submit_job(task, b"")).result == task.encode()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, []),
        (GeneratorExit("hook"), [b"GeneratorExit: hook"]),
    ],
    ids=["leaves it open", "raises"],
)
@pytest.mark.parametrize(("form", "max_jobs"), [("plain", 1), ("async", 3)])
@pytest.mark.parametrize("name", ["on_job_execute", "on_job_complete", "on_job_exception"])
async def test_job_left_open_by_a_hook_fails(
    kit: Kit,
    server: Server,
    task: str,
    name: str,
    form: str,
    max_jobs: int,
    error: BaseException | None,
    text: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        if name == "on_job_exception" and job.data == b"bad":
            raise LookupError("in the callback")
        return job.data

    def hook(self: Any, current_job: WorkerJob, *args: Any) -> Any:
        if current_job.data == b"good":
            return getattr(super(kind, self), name)(current_job, *args)
        if error is not None:
            raise error
        return True

    kind: Any = type("Hooked", (Hooks,), {name: in_form(form, hook)})
    client = await kit.client_and_worker(
        server.address, kind=kind, tasks={task: function}, max_jobs=max_jobs
    )
    request = await client.submit_job(task, b"bad")
    assert (request.state, list(request.warning_updates)) == ("FAILED", text)
    assert ("a hook failed" if text else "left without an end") in caplog.text
    assert (await client.submit_job(task, b"good")).result == b"good"


@pytest.mark.parametrize(("max_jobs", "form"), [(1, "plain"), (3, "plain"), (1, "async")])
async def test_after_job_returning_false_ends_work(
    kit: Kit, server: Server, task: str, max_jobs: int, form: str
) -> None:
    gate = kit.gate()

    def after_job(self: Any) -> bool:
        return len(gate.order) < max_jobs

    kind: Any = type("Hooked", (Hooks,), {"after_job": in_form(form, after_job)})
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(2 * max_jobs)]
    await client.submit_multiple_jobs(jobs, background=True)
    worker = await kit.make_worker(server.address, kind=kind, tasks={task: gate}, max_jobs=max_jobs)
    call = await kit.work(worker)
    # Running jobs finish, but no new ones start.
    await kit.eventually(lambda: len(gate.order) == max_jobs)
    gate.open.set()
    assert await call.result() is None
    await server.wait_for_counts(task, max_jobs, 0, 0)
    assert len(gate.order) == max_jobs
    assert [connection.connected for connection in worker.connection_list] == [False]


@pytest.mark.parametrize("form", ["plain", "async"])
async def test_after_poll(kit: Kit, server: Server, task: str, form: str) -> None:
    activity: list[bool] = []
    ending: list[bool] = []

    def after_poll(self: Any, any_activity: bool) -> bool:
        activity.append(any_activity)
        return not ending

    kind: Any = type("Hooked", (Hooks,), {"after_poll": in_form(form, after_poll)})
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, kind=kind, tasks={task: echo})
    call = await kit.work(worker, poll_timeout=0.02)
    await kit.eventually(lambda: activity.count(False) > 3)
    before = activity.count(True)
    assert (await client.submit_job(task, b"x")).result == b"x"
    await kit.eventually(lambda: activity.count(True) > before)
    assert not call.done
    ending.append(True)
    assert await call.result() is None
    await server.wait_for_counts(task, 0, 0, 0)


@pytest.mark.parametrize("ending", ["returns False", "raises"])
async def test_after_poll_that_ends_work_during_a_job(
    kit: Kit, server: Server, task: str, ending: str
) -> None:
    """Finish the job if the hook has returned False. Return it to the server if it has raised."""
    gate = kit.gate()

    class Hooked(Hooks):
        def after_poll(self, any_activity: bool) -> Any:
            if ending == "raises" and self.has_job_lock():
                raise ZeroDivisionError("in the hook")
            return not self.has_job_lock()

    client, request = await kit.submit(server.address, task, b"ab")
    worker = await kit.make_worker(server.address, kind=Hooked, tasks={task: gate}, max_jobs=2)
    call = await kit.work(worker, poll_timeout=0.02)
    if ending == "raises":
        with pytest.raises(ZeroDivisionError, match="in the hook"):
            await call.result()
        await server.wait_for_counts(task, 1, 0, 0)
    else:
        await kit.wait_for(gate.begun)
        assert await server.counts(task) == (1, 1, 1)
        assert not call.done
        gate.open.set()
        await call.result()
        await client.wait_until_jobs_completed([request])
        assert request.result == b"ab"
    assert not worker.has_job_lock()


class Odd(BaseException):
    """A BaseException that is not an Exception."""


@pytest.mark.parametrize("error", [ZeroDivisionError("hook"), Odd("hook")], ids=repr)
@pytest.mark.parametrize(
    ("hook", "max_jobs", "form"),
    [("after_job", 1, "plain"), ("after_job", 2, "async"), ("after_poll", 1, "plain")],
)
async def test_hook_that_raises_ends_work(
    kit: Kit,
    server: Server,
    task: str,
    hook: str,
    max_jobs: int,
    form: str,
    error: BaseException,
) -> None:
    def raise_error(self: Any, *args: Any) -> bool:
        # With `after_poll`, the job's result might still be on its way to the server.
        if hook == "after_job" or request.complete:
            raise error
        return True

    async def work() -> BaseException | None:
        try:
            await worker.work(poll_timeout=0.02)
        except (ZeroDivisionError, Odd) as raised:
            return raised
        return None

    client, request = await kit.submit(server.address, task, b"x")
    kind: Any = type("Hooked", (Hooks,), {hook: in_form(form, raise_error)})
    worker = await kit.make_worker(server.address, kind=kind, tasks={task: echo}, max_jobs=max_jobs)
    call = await kit.spawn(work)
    # The job's result has reached the server before `work` raises.
    await client.wait_until_jobs_completed([request])
    assert request.result == b"x"
    assert await call.result() is error
    await server.wait_for_counts(task, 0, 0, 0)
    assert not worker.has_job_lock()
    # The next `work` does not raise the exception again.
    worker.stop()
    await worker.work()
