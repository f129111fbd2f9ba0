"""Starts gearmanctl in forked processes that have already imported everything.

The imports take ten times as long as most tests. So one server process imports all modules and
forks for each command: a watcher, and its child, which becomes gearmanctl with the requested
session, descriptors, environment and directory. From then on, the child behaves like a newly
started process: it receives signals, and its interpreter exits as usual.

    a test             -- command, descriptors -->  server
    (Forked)           <-- number, status --------   watcher
                                                       gearmanctl
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self


class Forked:
    """A running gearmanctl, with the parts of `subprocess.Popen` that the tests use.

    Args:
        words: The arguments after the program's name.
        environ: The environment.
        cwd: The working directory; None for the current one.
        terminal: The controlling terminal of its session, or None.
        streams: ``stdin``, ``stdout`` and ``stderr``, as for Popen.
    """

    def __init__(
        self,
        words: Sequence[bytes],
        environ: Mapping[str, str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        terminal: int | None = None,
        **streams: Any,
    ) -> None:
        self.args = words
        self.returncode: int | None = None
        self._news, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            self.stdin, source = _stream(streams["stdin"], 0, stack)
            self.stdout, output = _stream(streams["stdout"], 1, stack)
            self.stderr, errors = _stream(streams["stderr"], 2, stack)
            order = {
                "words": [os.fsdecode(word) for word in words],
                "environ": dict(environ),
                "cwd": os.fspath(cwd or os.getcwd()),
                "has_terminal": terminal is not None,
            }
            descriptors = [theirs.fileno(), source, output, errors]
            if terminal is not None:
                descriptors.append(terminal)
            message = json.dumps(order).encode() + b"\n"
            control = _server()
            sent = socket.send_fds(control, [message], descriptors)
            control.sendall(message[sent:])
        self.pid = self._receive_number()

    def _receive_number(self) -> int:
        """Return the next number that the watcher sends."""
        data = b""
        while not data.endswith(b"\n"):
            some = self._news.recv(1)
            assert some, "whoever forks has died"
            data += some
        return int(data)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._news, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = self._receive_number()
                    self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        # The process might have ended unnoticed.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Close the process's input, and read its output until it has ended."""
        deadline = time.monotonic() + timeout
        if self.stdin is not None:
            self.stdin.close()
        taken: dict[Any, list[bytes]] = {self.stdout: [], self.stderr: []}
        with selectors.DefaultSelector() as selector:
            for stream in filter(None, taken):
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(deadline - time.monotonic())
                if not ready:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    taken[key.fileobj].append(chunk)
                    if not chunk:
                        selector.unregister(key.fileobj)
        self.wait(deadline - time.monotonic())
        return b"".join(taken[self.stdout]), b"".join(taken[self.stderr])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _stream(given: Any, number: int, stack: contextlib.ExitStack) -> tuple[IO[bytes] | None, int]:
    """Return our end of a standard stream, if any, and the process's end, which `stack` closes."""
    if given == subprocess.PIPE:
        reader, writer = os.pipe()
        ours, theirs = (writer, reader) if number == 0 else (reader, writer)
        stack.callback(os.close, theirs)
        return open(ours, "wb" if number == 0 else "rb", buffering=0), theirs
    if given == subprocess.DEVNULL:
        theirs = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, theirs)
        return None, theirs
    return None, given if isinstance(given, int) else given.fileno()


@functools.cache
def _server() -> socket.socket:
    """Return the socket for starting processes."""
    from .support import default_signals, environment

    control, theirs = socket.socketpair()
    with theirs, default_signals():
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__, str(theirs.fileno())],
            env=environment(),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        control.close()
        process.wait()

    atexit.register(end)
    return control


# The server.


def _serve(control: socket.socket) -> None:
    """Fork for each request. Return in the processes that become gearmanctl."""
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 65536, 5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # Reap the watchers that have finished.
        if not message:
            os._exit(0)
        while not message.endswith(b"\n"):
            message += control.recv(65536)
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    news, *streams = descriptors
    process = os.fork()
    if process:
        for descriptor in (control.detach(), *streams):
            os.close(descriptor)
        os.write(news, b"%d\n" % process)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # The test process has ended.
            os.write(news, b"%d\n" % status)
        os._exit(0)
    control.detach()
    _become(json.loads(message), streams)


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """Make this process look as if it had been started as requested."""
    os.setsid()
    if order["has_terminal"]:
        fcntl.ioctl(streams[3], termios.TIOCSCTTY, 0)
    for number, descriptor in enumerate(streams[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    sys.argv = ["gearmanctl", *order["words"]]
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        buffering = 1 if name == "stderr" else -1
        stream = open(number, mode, buffering, encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    from gearman_sync.cli import app, main

    # Import the modules that typer imports lazily while it parses arguments.
    with contextlib.suppress(Exception):
        app.app(["status", "--timeout", "-1"], standalone_mode=False)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
