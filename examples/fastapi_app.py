"""A FastAPI application that submits jobs to Gearman.

uvicorn examples.fastapi_app:app
python examples/fastapi_app.py          # The worker.
"""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

try:
    import anyio
    from fastapi import Body, FastAPI, HTTPException, Request
except ModuleNotFoundError:
    raise SystemExit("this example needs FastAPI: pip install anyio fastapi uvicorn") from None

import gearman_anyio as gearman

Text = Annotated[str, Body(media_type="text/plain")]


def servers() -> list[str]:
    return os.environ.get("GEARMAN_SERVERS", "localhost:4730").split(",")


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with gearman.GearmanClient(servers()) as client:
        yield {"gearman": client}


app = FastAPI(lifespan=lifespan)


@app.post("/now")
async def count_now(text: Text, request: Request) -> dict[str, int]:
    """Wait for the result, but only for two seconds."""
    try:
        job = await request.state.gearman.submit_job("count-words", text, poll_timeout=2)
    except gearman.errors.ServerUnavailable as error:
        raise HTTPException(503, "try again later") from error
    if job.state != gearman.JOB_COMPLETE:
        raise HTTPException(504, job.reason or "no result in time")
    return {"words": int(job.result)}


@app.post("/later", status_code=202)
async def count_later(text: Text, request: Request) -> dict[str, str]:
    """Submit a background job."""
    name = uuid.uuid4().hex
    await request.state.gearman.submit_job(
        "count-words", text, name, background=True, poll_timeout=2
    )
    return {"job": name}


async def count_words(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    return str(len(job.data.split()))


async def work() -> None:
    async with gearman.GearmanWorker(servers(), max_jobs=100) as worker:
        worker.register_task("count-words", count_words)
        await worker.run()


@contextlib.asynccontextmanager
async def lifespan_with_worker(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Also run a worker in the process of the web server."""
    async with (
        gearman.GearmanClient(servers()) as client,
        gearman.GearmanWorker(servers(), max_jobs=10, max_outage=None) as worker,
        anyio.create_task_group() as tasks,
    ):
        worker.register_task("count-words", count_words)
        tasks.start_soon(worker.work)
        yield {"gearman": client}
        worker.stop(timeout=10)


if __name__ == "__main__":
    anyio.run(work)
