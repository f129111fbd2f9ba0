"""`run`: SIGTERM and SIGINT end a worker, which is a program of its own here."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import PATIENCE, spawn
from tests.support.programs import interruptible

from .kit import Kit, Launch, Server, make_kit, reverse

if TYPE_CHECKING:
    from collections.abc import Iterator

# Its callback prints a line, and reads one before it returns. Or it returns the exit status of a
# forked child that it has terminated.
_CALLBACK: Final = """
import os, signal, sys, time

SIGNALS = signal.SIGTERM, signal.SIGINT

def callback(job):
    print("begun", flush=True)
    sys.stdin.readline()
    return job.data

async def blocking_callback(worker, job):
    return callback(job)

def forking_callback(job):
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, b"x")
        time.sleep(60)
        os._exit(1)
    os.read(readable, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return b"%d" % os.waitstatus_to_exitcode(status)

def make_worker(kind, host, port, task, form):
    if form == "nohup":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocks = form == "blocking"
    worker = kind([(host, int(port))], max_jobs=1 if blocks else 2, max_outage=3600)
    callbacks = {"forking": forking_callback}
    if blocks and sys.argv[1] != "sync":
        callbacks["blocking"] = blocking_callback
    worker.register_task(task, callbacks.get(form, callback))
    return worker
"""
_PROGRAMS: Final = {
    "sync": """
import gearman_sync as gearman

worker = make_worker(gearman.GearmanWorker, *sys.argv[2:])
before = [*map(signal.getsignal, SIGNALS)]
worker.run()
print("drained", before == [*map(signal.getsignal, SIGNALS)])
""",
    "anyio": """
import anyio
import gearman_anyio as gearman

async def main():
    worker = make_worker(gearman.GearmanWorker, *sys.argv[2:])
    before = [*map(signal.getsignal, SIGNALS)]
    await worker.run()
    print("drained", before == [*map(signal.getsignal, SIGNALS)])

anyio.run(main, backend=sys.argv[1])
""",
}


class Worker:
    """The program.

    Args:
        adapter: The test's adapter.
        address: The server.
        task: The task.
        form: "plain"; "blocking" if the callback blocks the main thread; "forking" if it forks; or
            "nohup" if the program ignores SIGINT.
    """

    def __init__(self, adapter: str, address: tuple[str, int], task: str, form: str) -> None:
        code = _CALLBACK + _PROGRAMS["sync" if adapter == "sync" else "anyio"]
        command = sys.executable, "-c", code, adapter, address[0], str(address[1]), task, form
        self.process = subprocess.Popen(
            interruptible(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """Return the next line that the program prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def release(self) -> None:
        """Let the callback return."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Return the exit status."""
        return self.process.wait(PATIENCE)


@pytest.fixture
def programs() -> Iterator[list[Worker]]:
    """A list of programs, which are killed at the end."""
    programs: list[Worker] = []
    yield programs
    for program in programs:
        program.process.kill()
        program.process.communicate()


async def begin(kit: Kit, adapter: str, server: Server, task: str, form: str = "plain") -> Worker:
    """Start the program."""
    return await kit.blocking(Worker, adapter, server.address, task, form)


@pytest.mark.both_servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_the_worker_finish_its_job(
    kit: Kit, adapter: str, server: Server, task: str, programs: list[Worker], number: int
) -> None:
    programs.append(await begin(kit, adapter, server, task))
    (worker,) = programs
    client, request = await kit.submit(server.address, task, b"data")
    assert await kit.blocking(worker.line) == "begun\n"
    worker.signal(number)
    worker.release()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"
    assert await kit.blocking(worker.line) == "drained True\n"
    assert await kit.blocking(worker.end) == 0


async def test_ignored_signal_stays_ignored(
    kit: Kit, adapter: str, server: Server, task: str, programs: list[Worker]
) -> None:
    programs.append(await begin(kit, adapter, server, task, "nohup"))
    (worker,) = programs
    client, request = await kit.submit(server.address, task, b"data")
    assert await kit.blocking(worker.line) == "begun\n"
    worker.signal(signal.SIGINT)
    worker.release()
    await client.wait_until_jobs_completed([request])
    request = await client.submit_job(task, b"next", wait_until_complete=False)
    assert await kit.blocking(worker.line) == "begun\n"
    worker.signal(signal.SIGTERM)
    worker.release()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"next"
    assert await kit.blocking(worker.line) == "drained True\n"
    assert await kit.blocking(worker.end) == 0


async def test_forked_child_of_a_callback_can_be_terminated(
    kit: Kit, adapter: str, server: Server, task: str, programs: list[Worker]
) -> None:
    """The child's signal does not stop the worker either."""
    programs.append(await begin(kit, adapter, server, task, "forking"))
    (worker,) = programs
    client = await kit.client(server.address)
    for _ in range(2):
        request = await client.submit_job(task, b"")
        assert request.result == b"%d" % -signal.SIGTERM
    worker.signal(signal.SIGTERM)
    assert await kit.blocking(worker.line) == "drained True\n"
    assert await kit.blocking(worker.end) == 0


@pytest.mark.both_servers
@pytest.mark.parametrize("form", ["plain", "blocking"])
async def test_second_signal_ends_the_program_at_once(
    kit: Kit, adapter: str, server: Server, task: str, programs: list[Worker], form: str
) -> None:
    programs.append(await begin(kit, adapter, server, task, form))
    (worker,) = programs
    client, request = await kit.submit(server.address, task, b"data")
    assert await kit.blocking(worker.line) == "begun\n"
    # Of the same signal, the system can deliver two as one.
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.signal(number)
    status = await kit.blocking(worker.end)
    assert status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    # The server assigns the job to another worker.
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert request.result == b"atad"


@pytest.mark.both_servers
async def test_server_that_is_killed_and_restarted(
    kit: Kit, adapter: str, launch: Launch, task: str, programs: list[Worker]
) -> None:
    server = await launch()
    programs.append(await begin(kit, adapter, server, task))
    (worker,) = programs
    client, lost = await kit.submit(server.address, task, b"lost")
    assert await kit.blocking(worker.line) == "begun\n"
    await server.kill()
    await client.wait_until_jobs_completed([lost])
    assert lost.state == "UNKNOWN"
    worker.release()
    await server.start()
    request = await client.submit_job(task, b"data", wait_until_complete=False)
    assert await kit.blocking(worker.line) == "begun\n"
    worker.signal(signal.SIGTERM)
    worker.release()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"
    assert await kit.blocking(worker.line) == "drained True\n"
    assert await kit.blocking(worker.end) == 0


def test_run_outside_of_the_main_thread_is_refused(adapter: str) -> None:
    async def scenario(kit: Kit) -> None:
        worker = await kit.make_worker("localhost:1")
        with pytest.raises(RuntimeError, match=r"call work\(\) in this thread, and stop\(\)"):
            await worker.run()

    kit = make_kit(adapter)
    spawn(kit.run, scenario, {"kit": kit}).result(PATIENCE)
