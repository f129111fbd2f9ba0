"""The core in a custom event loop: a client engine with non-blocking sockets and `selectors`.

    python examples/own_loop.py [--server HOST:PORT] [--jobs N] [--size BYTES] [--timeout S]

`Adapter` is all that such a loop needs. It imports nothing but `gearman_proto` and the standard
library, and runs any engine that makes connections. It does not support TLS. It connects to
addresses only, because resolving names blocks.

The rest of the program uses the adapter. It submits jobs for the function `reverse`, and prints
each when it ends. With --server, any worker of that server does the jobs. Without it, the program
runs its own job server and worker in threads.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import selectors
import socket
import sys
import threading
import time
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

import gearman_sync  # for `own_server` only
from gearman_proto import (
    JOB_COMPLETE,
    ClientEngine,
    Close,
    Connect,
    NoopEncoder,
    ServerUnavailable,
    make_requests,
    parse_host_list,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto import Engine, GearmanJobRequest, Wait

clock = time.monotonic
log = logging.getLogger("own_loop")

# The adapter begins here.


class Adapter:
    """Runs an engine in a selectors loop that calls the `data` of each key that is ready.

    `make_engine` also makes the successor of a broken engine.
    """

    def __init__(
        self, make_engine: Callable[[], Engine[Any]], selector: selectors.BaseSelector
    ) -> None:
        self.make_engine = make_engine
        self.engine = make_engine()
        self.selector = selector
        self.socks: dict[Any, socket.socket] = {}
        self.unsent: dict[Any, memoryview] = {}

    def tell(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the engine. If that fails, which is a bug, end all calls and make a new engine."""
        try:
            return call(*args, clock())
        except Exception as error:
            log.exception("internal error")
            for wait in self.engine.abandon(error):
                wait.wake()
            for link in list(self.socks):
                self.drop(link)
            self.engine = self.make_engine()

    def pump(self) -> None:
        """Do the work that the engine has requested. Each call of the engine can request more."""
        while True:
            for link in self.engine.links_to_write():
                if link in self.unsent and not self.unsent[link]:
                    self.refill(link)
            action = self.engine.next_action()
            if isinstance(action, Connect):
                self.connect(action.link)
            elif isinstance(action, Close):
                self.drop(action.link)
            else:
                return

    def connect(self, link: Any) -> None:
        host, port = link.address.host, link.address.port
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.selector.register(sock, EVENT_WRITE, partial(self.on_connect, link))
            self.socks[link] = sock
            sock.setblocking(False)
            sock.connect((host, port))
        except BlockingIOError:
            pass  # The connection is in progress.
        except OSError as error:
            self.drop(link)
            self.tell(self.engine.connect_failed, link, error)

    def on_connect(self, link: Any, _events: int) -> None:
        if link not in self.socks:
            return  # It was closed after the selector returned.
        code = self.socks[link].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.drop(link)
            self.tell(self.engine.connect_failed, link, OSError(code, os.strerror(code)))
        else:
            self.tell(self.engine.connected, link)
            self.refill(link)

    def refill(self, link: Any) -> None:
        data = self.tell(self.engine.data_to_send, link) or b""
        if link in self.socks:
            self.unsent[link] = memoryview(data)
            events = EVENT_READ | EVENT_WRITE if data else EVENT_READ
            self.selector.modify(self.socks[link], events, partial(self.on_ready, link))

    def on_ready(self, link: Any, events: int) -> None:
        try:
            if events & EVENT_READ and link in self.socks:
                data = self.socks[link].recv(65536)
                if not data:
                    self.tell(self.engine.receive_eof, link)  # The engine wants the link closed.
                    return
                self.tell(self.engine.receive_data, link, data)
            if events & EVENT_WRITE and link in self.socks:
                sent = self.socks[link].send(self.unsent[link])
                self.unsent[link] = self.unsent[link][sent:]
                if not self.unsent[link]:
                    self.refill(link)
        except BlockingIOError:
            pass  # The socket was not ready after all.
        except OSError as error:
            self.drop(link)
            self.tell(self.engine.connection_lost, link, error)

    def drop(self, link: Any) -> None:
        self.unsent.pop(link, None)
        sock = self.socks.pop(link, None)
        if sock is not None:
            self.selector.unregister(sock)
            with contextlib.suppress(OSError):  # A forked child may have a copy of the socket.
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


# The adapter ends here.


def main() -> int:
    parser = argparse.ArgumentParser(description="Reverse some bytes in Gearman jobs.")
    parser.add_argument("--server", metavar="HOST:PORT", help="in place of our own")
    parser.add_argument("--jobs", type=int, default=8, metavar="N", help="how many; 8")
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of each; 1000000")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    arguments = parser.parse_args()
    data = [f"job {number + 1} ".encode().ljust(arguments.size) for number in range(arguments.jobs)]
    try:
        with contextlib.ExitStack() as stack:
            server = arguments.server or stack.enter_context(own_server())
            adapter = stack.enter_context(client(server))
            return run(adapter, data, arguments.timeout)
    except (OSError, ValueError) as error:
        return fail(error, 2)
    except ServerUnavailable as error:
        return fail(error, 3)


def run(adapter: Adapter, data: list[bytes], timeout: float) -> int:
    started = clock()
    requests = make_requests([{"task": "reverse", "data": each} for each in data])
    numbers = {request: number for number, request in enumerate(requests, 1)}
    done = 0
    for request in submit(adapter, requests, timeout):
        if isinstance(request.error, ServerUnavailable):
            raise request.error
        good = request.state == JOB_COMPLETE and request.result == request.data[::-1]
        result = f"{len(request.result)} bytes reversed" if good else request.error or request.state
        print(f"job {numbers[request]}: {result}", flush=True)
        done += good
    for request in requests:
        if request.timed_out:
            print(f"job {numbers[request]}: timed out")
    print(f"{done} of {len(requests)} jobs done in {clock() - started:.3f} s")
    return 0 if done == len(requests) else 1


def submit(
    adapter: Adapter, requests: list[GearmanJobRequest], timeout: float
) -> Iterator[GearmanJobRequest]:
    """Submit requests, and yield each one when it ends."""
    prepare(requests, NoopEncoder)
    engine: Any = adapter.engine
    # The subscription waits for the requests, so the submit's own Wait is not needed.
    engine.release(engine.submit(clock(), wake, requests), clock())
    subscription = engine.as_completed(clock(), wake, requests, timeout=timeout)
    try:
        while True:
            over = subscription.done
            request = subscription.take()
            if request is not None:
                yield request
            elif over:
                break
            else:
                run_until_ready(adapter, subscription)
    finally:
        adapter.tell(adapter.engine.release, subscription)
    subscription.raise_error()


def wake() -> None:
    """Do nothing: the loop checks the Wait in each round."""


def run_until_ready(adapter: Adapter, wait: Wait) -> None:
    """Run the loop. The selector can contain other sockets too."""
    adapter.pump()
    while not wait.ready:
        deadline = adapter.engine.next_deadline()
        timeout = None if deadline is None else max(deadline - clock(), 0.0)
        for key, events in adapter.selector.select(timeout):
            key.data(events)
        adapter.tell(adapter.engine.handle_timeout)
        adapter.pump()


@contextlib.contextmanager
def client(server: str) -> Iterator[Adapter]:
    (address,) = parse_host_list([server])
    found: list[Any] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    # Each address of a name counts as a server. If one refuses, the client tries the next.
    addresses = parse_host_list([where[:2] for *_, where in found])
    make_engine = partial(ClientEngine, addresses, rng=random.SystemRandom(), wall_clock=time.time)
    with selectors.DefaultSelector() as selector:
        adapter = Adapter(make_engine, selector)
        try:
            yield adapter
        finally:
            adapter.tell(adapter.engine.close)
            adapter.pump()


@contextlib.contextmanager
def own_server() -> Iterator[str]:
    with gearman_sync.JobServer() as server, gearman_sync.GearmanWorker([server.address]) as worker:
        worker.register_task("reverse", lambda _worker, job: job.data[::-1])
        thread = threading.Thread(target=worker.work)
        thread.start()
        print(f"server: listening at {server.address}, for this program only", flush=True)
        try:
            yield str(server.address)
        finally:
            worker.stop()
            thread.join()


def fail(error: Exception, status: int) -> int:
    print(f"own_loop: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
