"""The main job: a client submits jobs, a worker does them, and the results come back.

    python examples/quickstart.py --server localhost:4730 [FILE ...]

Each FILE (this program, if none is given) becomes a job for the function `count-words`. The worker
is a thread of this program, written on the protocol core in a few lines; with --no-worker, any
worker that has registered for that function does them, such as

    gearman -w -h localhost -p 4730 -f count-words -- wc -w
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gearman_sync as gearman
from gearman_proto import NEED_DATA, Connection, Role, ServerAddress, events, parse_address

TASK = "count-words"


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the words of files in Gearman jobs.")
    parser.add_argument("files", nargs="*", metavar="FILE", default=[__file__])
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="a gearmand")
    parser.add_argument("--no-worker", action="store_true", help="leave the work to others")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait")
    arguments = parser.parse_args()
    try:
        jobs = [{"task": TASK, "data": Path(name).read_bytes()} for name in arguments.files]
        address = parse_address(arguments.server)
    except (OSError, ValueError) as error:
        return fail(str(error), 2)
    try:
        with contextlib.ExitStack() as stack:
            if not arguments.no_worker:
                stack.enter_context(Worker(address))
            client = stack.enter_context(gearman.GearmanClient([address]))
            return submit(client, arguments.files, jobs, arguments.timeout)
    except (OSError, gearman.errors.GearmanError) as error:
        return fail(
            f"{error}\nIs there a gearmand at {address}? Debian: apt-get install "
            "gearman-job-server",
            3,
        )


def submit(
    client: gearman.GearmanClient, files: list[str], jobs: list[dict[str, Any]], timeout: float
) -> int:
    started = time.perf_counter()
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False, poll_timeout=timeout)
    names = dict(zip(requests, files))
    for request in requests:
        say(f"client: submitted {names[request]} as {request.job.handle or 'nothing yet'}")
    for request in client.as_completed(requests, poll_timeout=timeout):
        words = request.result.decode().strip() if request.complete else request.state
        say(f"client: {names[request]} has {words} words")
    late = [request for request in requests if not request.complete]
    for request in late:
        state = "timed out" if request.timed_out else request.state
        say(f"client: {names[request]}: {state}")
    done = len(requests) - len(late)
    say(f"{done} of {len(requests)} jobs done in {time.perf_counter() - started:.3f} s")
    return 1 if late else 0


class Worker:
    """A worker thread. All of the protocol is in `Connection`; this moves bytes."""

    def __init__(self, address: ServerAddress) -> None:
        self.connection = Connection(Role.WORKER)
        self.sock = socket.create_connection((address.host, address.port), timeout=10)
        self.sock.settimeout(None)
        self.thread = threading.Thread(target=self.run, name="worker", daemon=True)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.sock.close()

    def send(self, *packets: events.Event) -> None:
        self.sock.sendall(b"".join(map(self.connection.send, packets)))

    def run(self) -> None:
        # An OSError is the end of the connection, ours or the server's.
        with contextlib.suppress(OSError):
            self.send(events.CanDo(TASK.encode()), events.GrabJob())
            while data := self.sock.recv(65536):
                self.connection.receive_data(data)
                while (event := self.connection.next_event()) is not NEED_DATA:
                    self.answer(event)

    def answer(self, event: events.Event) -> None:
        if isinstance(event, events.JobAssign):
            words = len(event.data.split())
            say(f"worker: {event.handle.decode()} counted {len(event.data)} bytes")
            self.send(events.WorkComplete(event.handle, b"%d" % words), events.GrabJob())
        elif isinstance(event, events.NoJob):
            self.send(events.PreSleep())
        elif isinstance(event, events.Noop):
            self.send(events.GrabJob())


def say(line: str) -> None:
    # In one piece, as two threads talk.
    print(f"{line}\n", end="", flush=True)


def fail(message: str, status: int) -> int:
    print(f"quickstart: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
