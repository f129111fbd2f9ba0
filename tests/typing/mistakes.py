"""Nineteen typical mistakes, by name, and whether a type checker finds them.

If mypy and pyright find a mistake, its line ends with ``type: ignore``. Both checkers report such a
comment if they do not need it, so this list is exact. No checker finds the last two mistakes:
`Iterable[str]` includes str, and `result` is Any, because encoders return anything.

Nothing runs this module.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnnecessaryComparison=true

from __future__ import annotations

import gearman_anyio
import gearman_sync as gearman


def misspelled_argument(client: gearman.GearmanClient) -> None:
    client.submit_job("f", b"", backgroud=True)  # type: ignore[arg-type]


def timeout_for_poll_timeout(client: gearman.GearmanClient) -> None:
    client.submit_job("f", b"", timeout=5)  # type: ignore[arg-type]


def timeout_as_text(client: gearman.GearmanClient) -> None:
    client.submit_job("f", b"", poll_timeout="5")  # type: ignore[arg-type]


def priority_in_lower_case(client: gearman.GearmanClient) -> None:
    client.submit_job("f", b"", priority="high")  # type: ignore[arg-type]


def unknown_state(request: gearman.GearmanJobRequest) -> bool:
    return request.state == "COMPLETED"  # type: ignore[comparison-overlap]


def unknown_routing() -> None:
    gearman.GearmanClient(["localhost"], routing="uniqe")  # type: ignore[arg-type]


def misspelled_key_of_a_job() -> gearman.JobDict:
    return {"task": "f", "dta": b""}  # type: ignore[typeddict-item]


def misspelled_key_of_a_status(request: gearman.GearmanJobRequest) -> None:
    request.status["numerater"]  # type: ignore[typeddict-item]


def one_request_for_a_list(
    client: gearman.GearmanClient, request: gearman.GearmanJobRequest
) -> None:
    client.wait_until_jobs_completed(request)  # type: ignore[type-var]


def data_of_any_update(update: gearman.JobUpdate) -> None:
    print(update.data)  # type: ignore[union-attr]


def callback_with_three_parameters(worker: gearman.GearmanWorker) -> None:
    worker.register_task("f", lambda worker, job, more: b"")  # type: ignore[arg-type]


def callback_with_swapped_parameters(worker: gearman.GearmanWorker) -> None:
    def callback(job: gearman.WorkerJob, worker: gearman.GearmanWorker) -> bytes:
        return b""

    worker.register_task("f", callback)  # type: ignore[arg-type]


def callback_that_returns_a_number(worker: gearman.GearmanWorker) -> None:
    def callback(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> int:
        return 5

    worker.register_task("f", callback)  # type: ignore[arg-type]


def async_callback_of_a_blocking_worker(worker: gearman.GearmanWorker) -> None:
    async def callback(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        return b""

    worker.register_task("f", callback)  # type: ignore[arg-type]


def async_task_of_a_blocking_registry(tasks: gearman.Tasks) -> None:
    @tasks.task("f")  # type: ignore[type-var]
    async def callback(job: gearman.WorkerJob) -> bytes:
        return b""


async def call_without_await(client: gearman_anyio.GearmanClient) -> None:
    print(client.submit_job("f", b"").result)  # type: ignore[attr-defined]


async def with_without_async() -> None:
    with gearman_anyio.GearmanClient() as client:  # type: ignore[attr-defined]
        await client.shutdown()


def one_server_for_a_list() -> None:
    gearman.GearmanClient("localhost:4730")


def result_compared_with_str(request: gearman.GearmanJobRequest) -> bool:
    return bool(request.result == "done")
