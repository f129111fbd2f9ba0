"""File descriptors: the library opens none too early and never touches those of the application.

The programs run in processes of their own, because they close or exhaust descriptors.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_sync import GearmanClient, JobServer
from tests.support import PATIENCE, Gearmand, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .support import StartScript

#: The start of all programs: helpers, and files of the program.
BEGIN: Final = """
import encodings.idna, inspect, os, resource, signal, socket, sys, tempfile, threading, time
import gearman_sync as gearman
from gearman_proto.errors import ConnectionError

signal.alarm(60)
servers = [("127.0.0.1", int(sys.argv[1]))]
task = sys.argv[2]

def submit(client):
    request = client.submit_job(task, b"", background=True)
    assert request.state == "CREATED", request

def open_files():
    return set(os.listdir("/proc/self/fd"))

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

class limited:
    '''No descriptor can be opened in here, or `more` only.'''
    def __init__(self, more=0):
        self.more = more
    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + self.more, self.limits[1]))
    def __exit__(self, *args):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)

def refused(error, submit, *args):
    try:
        submit(*args)
    except error as caught:
        assert "Too many open files" in str(caught)
    else:
        raise AssertionError

def in_child(function):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0

client, worker = gearman.GearmanClient(servers), gearman.GearmanWorker(servers)
"""

PROGRAMS: Final = {
    "objects_made_before_a_daemon_touch_none_of_its_files": """
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
""",
    "unused_objects_have_no_descriptors": """
with limited():
    client = gearman.GearmanClient(servers)
    worker = gearman.GearmanWorker(servers)
    worker.register_task(task, print)
    worker.set_client_id("me")
    in_child(worker.stop)
    worker.unregister_task(task)
    worker.stop()
    del worker
    client.shutdown()
""",
    # A call needs three descriptors for waiting, and one for the connection.
    "call_without_descriptors_raises_and_the_next_one_works": """
request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, task, None, b""))
request.background = True
with limited():
    refused(ConnectionError, client.submit_multiple_requests, [request])
assert (request.state, request.error) == ("UNKNOWN", None)
client.submit_multiple_requests([request])
assert request.state == "CREATED"
""",
    "call_without_a_descriptor_for_its_connection_raises_and_the_next_one_works": """
for more in (3, 0):
    with limited(more):
        refused(gearman.errors.ServerUnavailable, submit, client)
submit(client)
""",
    "fork_without_descriptors_left_leaves_a_client_that_works": """
submit(client)
before = open_files()

def child():
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    # All that the parent had open is closed, and nothing was opened instead.
    assert len(before) - len(open_files()) == 4
    with limited():
        refused(ConnectionError, submit, client)
    submit(client)

limits = resource.getrlimit(resource.RLIMIT_NOFILE)
with limited():
    in_child(child)
submit(client)
""",
    "forked_child_closes_the_sockets_of_a_job_server": """
server = gearman.JobServer()
before = open_files()
server.start()
sock = socket.create_connection(server.address)
client = gearman.GearmanClient([server.address])
submit(client)

def child():
    sock.close()
    assert open_files() <= before, open_files()
    server.stop()
    client.shutdown()

in_child(child)
submit(client)
server.stop()
sock.close()
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_program(start_script: StartScript, gearmand: Gearmand, task: str, program: str) -> None:
    out, errors, status = start_script(BEGIN + program, gearmand.port, task).end()
    assert (out, errors, status) == ("", "", 0), errors


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
while waiting and client._gm_driver._turns.sleeping_until is None:
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


@contextlib.contextmanager
def copied(poller: Any) -> Iterator[None]:
    """Keep a copy of each socket, as a fork in C code would."""
    found = [*poller.transports.values(), *poller._listeners]
    copies = [os.dup(each.sock.fileno()) for each in found]
    try:
        yield
    finally:
        for copy in copies:
            os.close(copy)


def test_shutdown_ends_a_connection_copied_to_a_child(
    gearmand: Gearmand, client: GearmanClient, task: str
) -> None:
    client.submit_job(task, b"", background=True)
    mine = gearmand.admin("workers").count("127.0.0.1")
    with copied(client._gm_driver._poller):
        client.shutdown()
        eventually(lambda: gearmand.admin("workers").count("127.0.0.1") < mine)


def test_stopped_server_copied_to_a_child_ends_all_connections() -> None:
    server = JobServer()
    server.start()
    poller = server._gm_driver._poller  # type: ignore[union-attr]
    with socket.create_connection(server.address, PATIENCE) as connected:
        eventually(lambda: poller.transports)
        with copied(poller):
            server.stop()
            assert connected.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(server.address, PATIENCE)
