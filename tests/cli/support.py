"""gearmanctl in processes of its own."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.support import PATIENCE, Administered, require

if TYPE_CHECKING:
    from typing import IO

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-W", "error", "-m", "gearman_sync")
Argument: TypeAlias = "str | bytes | int | Path"

# It starts faster when it was compiled before, which may be switched off for the tests themselves.
_cache = tempfile.TemporaryDirectory(prefix="gearmanctl-")
atexit.register(_cache.cleanup)

DONE, FAILED, USAGE, NO_SERVER, TIMED_OUT = range(5)


@dataclass(frozen=True)
class Result:
    """How a program has ended, and what it has written."""

    status: int
    output: bytes
    errors: str

    @property
    def lines(self) -> list[str]:
        """The lines of the output."""
        return self.output.decode().splitlines()

    @property
    def error(self) -> str:
        """The only line of the standard error."""
        assert self.errors.startswith("gearmanctl: "), self.errors
        assert self.errors.endswith("\n"), self.errors
        assert self.errors.count("\n") == 1, self.errors
        return self.errors.removeprefix("gearmanctl: ")[:-1]


def environment(**variables: str) -> dict[str, str]:
    """An environment that has nothing to do with gearmanctl, but for what is given."""
    others = ("GEARMAN", "_GEARMANCTL", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": _cache.name}
    return {**kept, **ours, **variables}


def address_of(server: Administered | tuple[str, int]) -> str:
    """A server's address as an option takes it."""
    host, port = server.address if isinstance(server, Administered) else server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def command_line(*arguments: Argument, servers: tuple[Any, ...] = ()) -> list[bytes]:
    """A command of gearmanctl for `servers`."""
    command, *others = arguments
    options = [word for server in servers for word in ("--server", address_of(server))]
    return [
        os.fsencode(str(word) if isinstance(word, int) else word)
        for word in (*PROGRAM, command, *options, *others)
    ]


def gearmanctl(
    *arguments: Argument, at: Any = (), data: bytes = b"", timeout: float = PATIENCE, **env: str
) -> Result:
    """Run gearmanctl to its end: a command, for the server or the servers `at`."""
    servers = at if isinstance(at, tuple) and not (at and isinstance(at[0], str)) else (at,)
    process = subprocess.run(
        command_line(*arguments, servers=servers),
        env=environment(**env),
        input=data,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Result(
        process.returncode, process.stdout, process.stderr.decode("utf-8", "surrogateescape")
    )


class Running:
    """A program that runs. What it reads and writes is not buffered here."""

    def __init__(self, command: list[bytes], **options: Any) -> None:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            bufsize=0,
            start_new_session=True,
            **{"env": environment(), **pipes, **options},
        )

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def close(self) -> None:
        """Nothing more will come on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def line(self) -> bytes:
        """The next line of its standard output."""
        return self._line(self.process.stdout)

    def error(self) -> str:
        """The next line of its standard error."""
        return self._line(self.process.stderr).decode("utf-8", "surrogateescape").rstrip("\n")

    def read(self, size: int) -> bytes:
        """As many bytes of its standard output."""
        assert self.process.stdout is not None
        data = b""
        while len(data) < size:
            _wait_until_readable(self.process.stdout)
            chunk = self.process.stdout.read(size - len(data))
            assert chunk, f"it ended after {data!r}"
            data += chunk
        return data

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> Result:
        """Wait for its end. The result has what was not read before."""
        if self.process.stdin is not None and self.process.stdin.closed:
            self.process.stdin = None
        output, errors = self.process.communicate(timeout=PATIENCE)
        return Result(self.process.returncode, output or b"", (errors or b"").decode())

    def kill(self) -> None:
        """End it at once, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:
            pass

    @staticmethod
    def _line(stream: IO[bytes] | None) -> bytes:
        assert stream is not None
        _wait_until_readable(stream)
        return stream.readline()


def _wait_until_readable(stream: IO[bytes]) -> None:
    assert select.select([stream], [], [], PATIENCE)[0], "nothing was written"


def gearman(server: Administered, *arguments: str, data: bytes = b"") -> Result:
    """Run libgearman's `gearman` program to its end."""
    host, port = server.address
    process = subprocess.run(
        [require("gearman"), "-h", host, "-p", str(port), *arguments],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr.decode())


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than one that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        with contextlib.suppress(OSError):
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        return False
    return True


def stays(condition: Any, seconds: float = 0.3) -> bool:
    """Whether `condition` is true for a while. It is what a wrong program would break at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.01)
    return True
