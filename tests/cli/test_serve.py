"""``gearmanctl serve``: the embedded server in the foreground."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from gearman_sync.testing import ScriptedWorker, echo

from .support import DONE, FAILED, NO_SERVER, Result, Running, gearmanctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., tuple[Running, tuple[str, int]]]


def test_serve_runs_a_server_and_prints_its_purpose(
    run_serve: Serve, start_worker: Callable[..., ScriptedWorker]
) -> None:
    running, address = run_serve()
    assert running.error() == (
        "It keeps nothing on disk: what is queued ends with it. Ctrl-C ends it."
    )
    start_worker(address, {"task": echo})
    assert gearmanctl("submit", "task", "data", at=address) == Result(DONE, b"data", "")
    assert gearmanctl("version", at=address).output.startswith(b"gearman-sansio-")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_server(run_serve: Serve, number: int) -> None:
    running, address = run_serve()
    running.error()
    assert gearmanctl("submit", "task", "", "-b", at=address).status == DONE
    running.signal(number)
    assert running.end() == Result(DONE, b"", "")
    assert gearmanctl("ping", at=address).status == NO_SERVER


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        result = gearmanctl("serve", "--port", port)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == f"can't listen at 127.0.0.1:{port}: Address already in use"


def test_limits_of_the_queue_and_of_memory(run_serve: Serve) -> None:
    _, address = run_serve("--max-queue", "2", "--max-memory", "1")
    sizes = 100_000, 900_000, 0, 0
    results = [
        gearmanctl("submit", "task", "-b", at=address, data=bytes(size)).status for size in sizes
    ]
    assert results == [DONE, FAILED, DONE, FAILED]


def test_tls_verifies_server_and_client(run_serve: Serve, tls_certificates: Path) -> None:
    def file(name: str) -> str:
        return str(tls_certificates / name)

    own = ("--tls-cert", file("server.pem"), "--tls-key", file("server.key"))
    shown = ("--tls-cert", file("client.pem"), "--tls-key", file("client.key"))
    _, anybody = run_serve(*own)
    _, the_known = run_serve(*own, "--tls-ca", file("ca.pem"))
    ca = ("--tls-ca", file("ca.pem"))
    assert gearmanctl("ping", *ca, at=anybody).status == DONE
    assert gearmanctl("ping", "--timeout", "2", at=anybody).status != DONE
    assert gearmanctl("ping", *ca, *shown, at=the_known).status == DONE
    assert gearmanctl("ping", *ca, "--timeout", "2", at=the_known).status != DONE
