"""Job servers: gearmand, our own in a thread, and their admin commands."""

from __future__ import annotations

import socket

from gearman_sync import JobServer
from gearman_sync.testing.recording import is_whole_reply

from .programs import PortProgram, free_port, require
from .waiting import PATIENCE, eventually


def counts_of(task: str, status: str) -> tuple[int, int, int]:
    """Return the numbers of jobs of `task`, of running jobs, and of workers.

    `status` is the reply to the command of that name.
    """
    for line in status.splitlines():
        name, *numbers = line.split("\t")
        if name == task:
            total, running, workers = map(int, numbers)
            return total, running, workers
    return 0, 0, 0


class Administered:
    """A job server with the text protocol for administration."""

    @property
    def address(self) -> tuple[str, int]:
        raise NotImplementedError

    def admin(self, command: str) -> str:
        """Return the reply to an admin command."""
        with socket.create_connection(self.address, PATIENCE) as sock:
            sock.sendall(command.encode() + b"\r\n")
            reply = b""
            while not is_whole_reply(command.encode(), reply):
                data = sock.recv(65536)
                assert data, f"{command}: the server closed after {reply!r}"
                reply += data
        return reply.decode(errors="surrogateescape")

    def counts(self, task: str) -> tuple[int, int, int]:
        """Return the numbers of jobs of `task`, of running jobs, and of workers."""
        return counts_of(task, self.admin("status"))

    def wait_for_jobs(self, task: str, count: int) -> None:
        """Wait until the server has `count` jobs of `task`."""
        eventually(lambda: self.counts(task)[0] == count, f"{count} jobs of {task}")

    def client_ids(self) -> list[str]:
        """Return the client ids of the server's connections."""
        return [line.split(" ")[2] for line in self.admin("workers").splitlines()[:-1]]


class ServerAt(Administered):
    """A job server run outside of the tests."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    @property
    def address(self) -> tuple[str, int]:
        return self._address


class Gearmand(PortProgram, Administered):
    """A gearmand process."""

    def __init__(self, *options: str, host: str = "127.0.0.1", port: int | None = None) -> None:
        port = port or free_port(host)
        super().__init__(
            host,
            port,
            require("gearmand"),
            *("-p", str(port), "-L", host, "-t", "1", "-l", "/dev/null", *options),
        )
        self.start()

    def start(self) -> None:
        super().start()
        assert self.process is not None
        # Another process may have taken the port since it was chosen.
        assert self.admin("getpid") == f"OK {self.process.pid}\n", "another server has the port"


class EmbeddedServer(Administered):
    """A JobServer with the test interface of Gearmand. It can be killed and restarted."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def start(self) -> None:
        self._server = JobServer(port=self.port)
        self._server.start()
        self.port = self._server.address.port

    def kill(self) -> None:
        self._server.stop()
