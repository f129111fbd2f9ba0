"""Streams of jobs with a limit for the jobs in flight."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ExceededConnectionAttempts, InvalidClientState, ServerUnavailable
from tests.support import free_port

from .kit import Kit, Launch, Server, collect, echo, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Jobs:
    """A stream of jobs that counts how many were taken. A proxy for adapters with async streams."""

    def __init__(self, task: str, count: int, error: Exception | None = None) -> None:
        self.taken = 0
        self._task = task
        self._count = count
        self._error = error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.taken < self._count:
            self.taken += 1
            yield {"task": self._task, "data": b"%d" % self.taken}
        if self._error is not None:
            raise self._error


class AsyncJobs:
    """The same as an async stream, which can wait for an event of `kit`."""

    def __init__(self, kit: Kit, jobs: Jobs, pause_after: int | None = None) -> None:
        self._kit = kit
        self._jobs = jobs
        self._pause_after = pause_after
        self.go_on = False

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        for job in self._jobs:
            if self._jobs.taken == self._pause_after:
                await self._kit.eventually(lambda: self.go_on, "the next job")
            await self._kit.sleep(0)
            yield job


def forms(kit: Kit, jobs: Jobs) -> list[Any]:
    """Return `jobs` in each form that the adapter takes. Only one of them can be used."""
    return [jobs] if kit.gearman.__name__ == "gearman_sync" else [jobs, AsyncJobs(kit, jobs)]


async def collect_until_error(results: Any) -> tuple[list[Any], Exception]:
    """Return the requests and the error that follows them."""
    requests = []
    try:
        async for request in results:
            requests.append(request)  # noqa: PERF401 - kept when the iterator raises
    except Exception as error:  # noqa: BLE001 - the caller checks it
        return requests, error
    raise AssertionError("no error")


@pytest.mark.both_servers
async def test_results_of_a_stream(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo}, max_jobs=4)
    for number in range(len(forms(kit, Jobs(task, 0)))):
        jobs = Jobs(task, 100)
        results = []
        async for request in client.results(forms(kit, jobs)[number], window=7):
            results.append(request.result)
            # The stream is at most a window ahead of the consumer.
            assert jobs.taken <= len(results) + 7
        assert sorted(results) == sorted(b"%d" % count for count in range(1, 101))
        assert await collect(client.results(forms(kit, Jobs(task, 0))[number])) == []


async def test_jobs_are_taken_only_while_the_consumer_waits(
    kit: Kit, server: Server, task: str
) -> None:
    gate = kit.gate()
    client = await kit.client(server.address)
    jobs = Jobs(task, 10)
    results = client.results(jobs, window=3)
    assert jobs.taken == 0
    call = await kit.spawn(results.__anext__)
    await server.wait_for_counts(task, 3)
    await kit.start_worker(server.address, tasks={task: gate})
    await kit.wait_for(gate.begun)
    assert jobs.taken == 3
    gate.open.set()
    first = await call.result()
    assert first.result == b"1"
    await server.wait_for_counts(task, 0)
    assert jobs.taken == 3
    assert len(await collect(results)) == 9


@pytest.mark.both_servers
async def test_server_that_is_killed_in_the_middle(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    gate = kit.gate(opened=True)
    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: gate})
    jobs = Jobs(task, 1000)
    results = client.results(jobs, window=5)
    assert [(await results.__anext__()).state for _ in range(10)] == ["COMPLETE"] * 10
    gate.open.clear()
    await server.kill()
    requests, error = await collect_until_error(results)
    assert isinstance(error, (ServerUnavailable, ExceededConnectionAttempts))
    # Each job that was taken has its request.
    assert 10 + len(requests) == jobs.taken < 1000
    assert set(error.job_requests) <= set(requests)
    assert all(request.complete or request.error is not None for request in requests)


async def test_errors_of_the_stream_are_raised_after_the_jobs_before(
    kit: Kit, server: Server, task: str
) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    jobs = Jobs(task, 5, ZeroDivisionError("in the stream"))
    streams: list[Any] = forms(kit, jobs)
    wrong_jobs: list[Any] = [{"task": task, "data": b"1"}, {"task": task}, {"task": "never"}]
    for stream, error, count in [
        (streams[-1], ZeroDivisionError, 5),
        (Jobs(task, 5, ZeroDivisionError("in the stream")), ZeroDivisionError, 5),
        (wrong_jobs, ValueError, 1),
    ]:
        requests, reason = await collect_until_error(client.results(stream, window=3))
        assert isinstance(reason, error)
        assert [request.state for request in requests] == ["COMPLETE"] * count


async def test_wrong_arguments_of_results_raise_at_once(kit: Kit) -> None:
    client = await kit.client(("127.0.0.1", free_port()))
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((None,), {}),
        (([], 0), {}),
        (([], "1"), {}),
        (([],), {"max_retries": -1}),
        (([],), {"poll_timeout": "1"}),
    ]
    for args, options in wrong:
        with pytest.raises((TypeError, ValueError)):
            client.results(*args, **options)
    if kit.gearman.__name__ == "gearman_sync":
        with pytest.raises(TypeError):
            client.results(AsyncJobs(kit, Jobs("task", 1)))


async def test_results_left_early_leave_the_jobs(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    jobs = Jobs(task, 10)
    results = client.results(jobs, window=3, background=True)
    request = await results.__anext__()
    assert request.state == "CREATED"
    await settled(results.aclose() if hasattr(results, "aclose") else results.close())
    assert await collect(results) == []
    await server.wait_for_counts(task, 3)
    assert jobs.taken == 3


async def test_results_stop_at_the_timeout(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    # A job that is taken just before the timeout is not submitted any more.
    requests = await collect(client.results(Jobs(task, 5), poll_timeout=0.02))
    assert all(request.timed_out for request in requests)


async def test_results_of_a_closed_client(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    results = client.results(Jobs(task, 5), window=2)
    call = await kit.spawn(collect, results)
    await server.wait_for_counts(task, 2)
    await client.shutdown()
    # The second, if the client has not processed the acknowledgment of a job.
    with pytest.raises((InvalidClientState, ServerUnavailable), match="shut down"):
        await call.result()
    with pytest.raises(InvalidClientState):
        await collect(client.results([]))


async def test_requests_are_yielded_while_an_async_stream_waits(
    kit: Kit, server: Server, task: str
) -> None:
    if kit.gearman.__name__ == "gearman_sync":
        pytest.skip("blocking clients take no async streams")
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    jobs = AsyncJobs(kit, Jobs(task, 4), pause_after=3)
    results = client.results(jobs)
    assert {(await results.__anext__()).result for _ in range(2)} == {b"1", b"2"}
    jobs.go_on = True
    assert {request.result async for request in results} == {b"3", b"4"}


async def test_closed_iterator_ends_the_async_stream(kit: Kit, server: Server, task: str) -> None:
    if kit.gearman.__name__ == "gearman_sync":
        pytest.skip("blocking clients take no async streams")
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    ended: list[bool] = []

    async def stream() -> AsyncIterator[dict[str, Any]]:
        yield {"task": task, "data": b"1"}
        try:
            await kit.eventually(lambda: False, "never")
        finally:
            ended.append(True)

    for how in ("closed", "dropped"):
        results = client.results(stream())
        assert (await results.__anext__()).result == b"1"
        if how == "closed":
            async with contextlib.aclosing(results):
                pass
        else:
            del results
            await client.submit_job(task, b"")
        await kit.eventually(ended.copy, "the end of the stream")
        ended.clear()
        assert not client._gm_driver.engine._waits
