"""The core in Qt's event loop: a client engine with QTcpSocket and QTimer.

    python examples/qt_client.py [--server HOST:PORT] [--jobs N] [--size BYTES] [--timeout S]

`Adapter` runs any engine that makes connections. It does not support TLS. `Jobs` emits the signal
`ended` for each request that ends, and `finished` after the last one. The rest of the program
submits jobs for the function `reverse`. It has no window, so it needs no display.

With --server, any worker of that server does the jobs. Without it, the program runs its own job
server and worker in threads.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

try:
    from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal
    from PySide6.QtNetwork import QAbstractSocket, QTcpSocket
except ModuleNotFoundError:
    raise SystemExit("this example needs PySide6: pip install pyside6") from None

from own_loop import own_server

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
    from gearman_proto import Engine, GearmanJobRequest

clock = time.monotonic


class Adapter(QObject):
    """Runs an engine in Qt's event loop."""

    def __init__(self, engine: Engine[Any]) -> None:
        super().__init__()
        self.engine = engine
        self.socks: dict[Any, QTcpSocket] = {}
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.timeout.connect(self.on_timeout)

    def pump(self) -> None:
        """Do the work that the engine has requested, and set the timer for its next deadline."""
        while True:
            for link in self.engine.links_to_write():
                self.refill(link)
            action = self.engine.next_action()
            if isinstance(action, Connect):
                self.connect_link(action.link)
            elif isinstance(action, Close):
                self.drop(action.link)
            else:
                break
        deadline = self.engine.next_deadline()
        if deadline is None:
            self.timer.stop()
        else:
            self.timer.start(max(round((deadline - clock()) * 1000), 0))

    def connect_link(self, link: Any) -> None:
        sock = self.socks[link] = QTcpSocket(self)
        sock.connected.connect(partial(self.on_connected, link))
        sock.readyRead.connect(partial(self.on_data, link))
        sock.bytesWritten.connect(partial(self.on_written, link))
        sock.errorOccurred.connect(partial(self.on_error, link))
        sock.connectToHost(link.address.host, link.address.port)

    def on_connected(self, link: Any) -> None:
        self.engine.connected(link, clock())
        self.pump()

    def on_data(self, link: Any) -> None:
        self.engine.receive_data(link, bytes(self.socks[link].readAll().data()), clock())
        self.pump()

    def on_written(self, link: Any, _count: int) -> None:
        self.refill(link)
        self.pump()

    def refill(self, link: Any) -> None:
        """Pass the next bytes to the socket if it has written the previous ones."""
        if link in self.socks and not self.socks[link].bytesToWrite():
            data = self.engine.data_to_send(link, clock())
            if data:
                self.socks[link].write(data)

    def on_error(self, link: Any, code: Any) -> None:
        error = OSError(self.socks[link].errorString())
        if code == QAbstractSocket.SocketError.RemoteHostClosedError:
            self.engine.receive_eof(link, clock())
        elif link.is_up:
            self.engine.connection_lost(link, error, clock())
        else:
            self.engine.connect_failed(link, error, clock())
        self.drop(link)
        self.pump()

    def on_timeout(self) -> None:
        self.engine.handle_timeout(clock())
        self.pump()

    def drop(self, link: Any) -> None:
        sock = self.socks.pop(link, None)
        if sock is not None:
            sock.blockSignals(True)
            sock.flush()
            sock.abort()
            sock.deleteLater()


class Jobs(QObject):
    """Requests in flight, as a source of signals."""

    ended = Signal(object)
    finished = Signal()

    def __init__(self, adapter: Adapter, requests: list[GearmanJobRequest], timeout: float) -> None:
        super().__init__(adapter)
        self.adapter = adapter
        self.is_due = self.is_finished = False
        engine: Any = adapter.engine
        prepare(requests, NoopEncoder)
        # The subscription waits for the requests, so the submit's own Wait is not needed.
        engine.release(engine.submit(clock(), int, requests), clock())
        self.subscription = engine.as_completed(clock(), self.wake, requests, timeout=timeout)
        self.wake()
        adapter.pump()

    def wake(self) -> None:
        """Take the requests that have ended, but not here: the engine makes this call."""
        if not self.is_due and not self.is_finished:
            self.is_due = True
            QTimer.singleShot(0, self.take)

    def take(self) -> None:
        self.is_due = False
        done = self.subscription.done
        while (request := self.subscription.take()) is not None:
            self.ended.emit(request)
        if done:
            self.is_finished = True
            self.adapter.engine.release(self.subscription, clock())
            self.finished.emit()


def main() -> int:
    parser = argparse.ArgumentParser(description="Reverse some bytes in Gearman jobs.")
    parser.add_argument("--server", metavar="HOST:PORT", help="in place of our own")
    parser.add_argument("--jobs", type=int, default=8, metavar="N", help="how many; 8")
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of each; 1000000")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    arguments = parser.parse_args()
    jobs = [f"job {number + 1} ".encode().ljust(arguments.size) for number in range(arguments.jobs)]
    try:
        with contextlib.ExitStack() as stack:
            server = arguments.server or stack.enter_context(own_server())
            return run(server, jobs, arguments.timeout)
    except (OSError, ValueError) as error:
        return fail(error, 2)
    except ServerUnavailable as error:
        return fail(error, 3)


def run(server: str, data: list[bytes], timeout: float) -> int:
    app = QCoreApplication.instance() or QCoreApplication([])
    engine = ClientEngine(
        parse_host_list([server]), rng=random.SystemRandom(), wall_clock=time.time
    )
    adapter = Adapter(engine)
    started = clock()
    requests = make_requests([{"task": "reverse", "data": each} for each in data])
    numbers = {request: number for number, request in enumerate(requests, 1)}
    done = 0

    def report(request: GearmanJobRequest) -> None:
        nonlocal done
        if isinstance(request.error, ServerUnavailable):
            return  # `run` raises it.
        good = request.state == JOB_COMPLETE and request.result == request.data[::-1]
        result = f"{len(request.result)} bytes reversed" if good else request.error or request.state
        print(f"job {numbers[request]}: {result}", flush=True)
        done += good

    jobs = Jobs(adapter, requests, timeout)
    jobs.ended.connect(report)
    jobs.finished.connect(app.quit)
    app.exec()
    engine.close(clock())
    adapter.pump()
    for request in requests:
        if isinstance(request.error, ServerUnavailable):
            raise request.error
        if request.timed_out:
            print(f"job {numbers[request]}: timed out")
    print(f"{done} of {len(requests)} jobs done in {clock() - started:.3f} s")
    return 0 if done == len(requests) else 1


def fail(error: Exception, status: int) -> int:
    print(f"qt_client: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
