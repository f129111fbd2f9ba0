"""File descriptors: the library opens none too early and never touches those of the application.

The programs run in processes of their own, because they close all descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.jobs.submitting import make_requests

from .support import limited

if TYPE_CHECKING:
    from pathlib import Path

    from gearman_sync import GearmanClient
    from tests.support import Gearmand

    from .support import StartScript

#: The start of all programs: helpers, and files of the program.
BEGIN: Final = """
import os, signal, sys, tempfile, threading, time
import gearman_sync as gearman
from gearman_proto.errors import ConnectionError

signal.alarm(60)
servers = [("127.0.0.1", int(sys.argv[1]))]
task = sys.argv[2]

def submit(client):
    request = client.submit_job(task, b"", background=True)
    assert request.state == "CREATED", request

class OwnFiles:
    '''Files at the lowest numbers: those that descriptors had that were closed.'''
    def __init__(self):
        self.files = [tempfile.TemporaryFile() for _ in range(16)]
        self.inodes = [os.fstat(file.fileno()).st_ino for file in self.files]
        assert self.files[0].fileno() in (3, 4)
        for file in self.files:
            file.write(b"mine")
    def check(self):
        for file, inode in zip(self.files, self.inodes):
            assert os.fstat(file.fileno()).st_ino == inode
            file.flush()
            assert os.pread(file.fileno(), 100, 0) == b"mine"
    def end(self):
        self.check()
        for file in self.files:
            file.close()

client, worker = gearman.GearmanClient(servers), gearman.GearmanWorker(servers)
"""

OBJECTS_MADE_BEFORE_A_DAEMON: Final = """
unused = gearman.GearmanClient(servers)
admin = gearman.GearmanAdminClient(servers)
server = gearman.JobServer(port=0)
os.closerange(3, 1024)
own = OwnFiles()
worker.stop()
worker.shutdown()
unused.shutdown()
del worker, unused, server
admin.ping_server()
submit(client)
client.shutdown()
admin.shutdown()
own.end()
"""


def test_objects_made_before_a_daemon_touch_none_of_its_files(
    start_script: StartScript, gearmand: Gearmand, task: str
) -> None:
    program = start_script(BEGIN + OBJECTS_MADE_BEFORE_A_DAEMON, gearmand.port, task)
    assert program.end() == ("", "", 0)


def test_call_without_descriptors_raises_and_the_next_one_works(
    client: GearmanClient, task: str
) -> None:
    (request,) = make_requests([{"task": task, "data": b""}], background=True)
    with limited(), pytest.raises(ConnectionError, match="Too many open files"):
        client.submit_multiple_requests([request])
    assert (request.state, request.error) == ("UNKNOWN", None)
    client.submit_multiple_requests([request])
    assert request.complete


def test_call_without_a_descriptor_for_its_connection_raises_and_the_next_one_works(
    client: GearmanClient, task: str
) -> None:
    (server,) = client.connection_list
    client.establish_connection(server)
    # The selector and the waker stay open.
    client._gm_driver.apply(lambda engine, now: engine.disconnect(now, server))
    with limited(), pytest.raises(ServerUnavailable, match="Too many open files"):
        client.submit_job(task, b"", background=True)
    assert client.submit_job(task, b"", background=True).complete


# Nothing can wake the waiting thread, whose selector was closed, so it sleeps until its heartbeat.
CLOSED_UNDER_A_CLIENT: Final = """
client = gearman.GearmanClient(servers, heartbeat=1.0)
unfinished = client.submit_job(task, b"", wait_until_complete=False)

def wait():
    try:
        client.wait_until_jobs_completed([unfinished])
    except ConnectionError:
        pass

waiting = [threading.Thread(target=wait) for _ in range(int(sys.argv[3]))]
for thread in waiting:
    thread.start()
while waiting and client._gm_driver._leadership.sleeping_until is None:
    time.sleep(0.001)
os.closerange(3, 1024)
own = OwnFiles()
lost = 0
for _ in range(3):
    try:
        submit(client)
    except ConnectionError as error:
        assert "closerange" in str(error), error
        lost += 1
    own.check()
assert lost <= 1
for thread in waiting:
    thread.join()
submit(client)
assert unfinished.state == "UNKNOWN"
assert "closerange" in str(unfinished.error), unfinished.error
client.shutdown()
own.end()
"""


@pytest.mark.parametrize("threads", [0, 1])
def test_descriptors_closed_under_a_client_cost_one_call(
    gearmand: Gearmand, start_script: StartScript, task: str, threads: int
) -> None:
    """A daemon has closed all descriptors, and its own files have reused the numbers."""
    program = start_script(BEGIN + CLOSED_UNDER_A_CLIENT, gearmand.port, task, threads)
    assert program.end() == ("", "", 0)


ENDED_AFTERWARDS: Final = """
import warnings
submit(client)
worker.register_task(task, lambda worker, job: b"")
worker.after_job = lambda: False
worker.work()
os.closerange(3, 1024)
late = open(sys.argv[3], "w")
own = OwnFiles()
late.write("late")
exec(sys.argv[4])
own.end()
warnings.simplefilter("ignore", ResourceWarning)  # `late` is left open.
"""


@pytest.mark.parametrize(
    "end", ["client.shutdown(); worker.shutdown()", "worker.stop(); del client, worker", "pass"]
)
def test_descriptors_closed_under_a_client_are_not_closed_again(
    gearmand: Gearmand, start_script: StartScript, task: str, tmp_path: Path, end: str
) -> None:
    """A file of the program that has buffered data is flushed at the program's end."""
    path = tmp_path / "late"
    program = start_script(BEGIN + ENDED_AFTERWARDS, gearmand.port, task, path, end)
    assert program.end() == ("", "", 0)
    assert path.read_text() == "late"
