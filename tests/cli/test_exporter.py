"""``gearmanctl exporter`` and ``gearmanctl status --prometheus``."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gearman_proto import FunctionStatus
from gearman_sync.cli.exporter import _Shared
from gearman_sync.cli.metrics import Answer, exposition
from gearman_sync.cli.web import WebServer
from gearman_sync.testing import Peer
from tests.support import PATIENCE, eventually, free_port

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Result,
    Running,
    address_of,
    gearmanctl,
    on_both,
)
from .test_admin import closing, garbage, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_sync.testing import ScriptedServer

    from .support import Queue, Server

    Exporter = Callable[..., tuple[Running, str]]


@pytest.fixture
def run_exporter(start: Callable[..., Running]) -> Exporter:
    """Start an exporter of the servers `at`. Return it and its URL."""

    def run(*words: str, at: object) -> tuple[Running, str]:
        running = start("exporter", "--port", "0", *words, at=at)
        line = running.error()
        assert line.startswith("gearmanctl: http://127.0.0.1:"), line
        return running, line.removeprefix("gearmanctl: ")

    return run


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text: str = answer.read().decode()
    return text


@on_both
def test_exporter_follows_a_server_that_ends(
    launch: Callable[[], Server], run_exporter: Exporter
) -> None:
    server = launch()
    name = f'server="{address_of(server)}"'
    assert gearmanctl("submit", "resize", "", "-b", "-p", "high", at=server).status == DONE
    running, url = run_exporter(at=server)
    text = scrape(url)
    for line in (
        f"gearman_up{{{name}}} 1",
        f'gearman_jobs{{{name},function="resize"}} 1',
        f'gearman_jobs_waiting{{{name},function="resize"}} 1',
        f'gearman_jobs_waiting_by_priority{{{name},function="resize",priority="high"}} 1',
    ):
        assert line in text.splitlines()
    assert gearmanctl("status", "--prometheus", at=server) == Result(DONE, text.encode(), "")
    server.kill()
    assert scrape(url) == exposition({address_of(server): None})
    server.start()
    eventually(lambda: f"gearman_up{{{name}}} 1\n" in scrape(url), "the new server")
    assert scrape(url.replace("metrics", "healthz")) == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(url.replace("metrics", "nowhere"))
    running.signal(signal.SIGTERM)
    assert running.end() == Result(DONE, b"", "")


@pytest.mark.parametrize("script", [pytest.param(silent, marks=pytest.mark.slow), garbage, closing])
def test_exporter_survives_bad_servers(
    start_server: Callable[..., ScriptedServer],
    queue: Queue,
    run_exporter: Exporter,
    script: Callable[[Peer], None],
) -> None:
    """It serves the others' metrics, and the end is not delayed."""
    bad = start_server(script)
    timeout = "1" if script is silent else str(PATIENCE)
    running, url = run_exporter("--timeout", timeout, at=(bad.address, queue.server))
    for _ in range(2):
        lines = scrape(url).splitlines()
        assert f'gearman_up{{server="{address_of(bad.address)}"}} 0' in lines
        assert f'gearman_up{{server="{address_of(queue.server)}"}} 1' in lines
    running.signal(signal.SIGINT)
    assert running.end() == Result(DONE, b"", "")


def test_exporter_ends_while_a_server_is_asked(
    start_server: Callable[..., ScriptedServer], run_exporter: Exporter
) -> None:
    server = start_server(Peer.hold)
    running, url = run_exporter("--timeout", "1000", at=server.address)
    host, port = url.split("/")[2].split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        eventually(lambda: any(peer.events for peer in server.peers), "the question")
        running.signal(signal.SIGTERM)
        assert running.end() == Result(DONE, b"", "")


def test_busy_port_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = gearmanctl("exporter", "--port", port)
    assert result == Result(
        FAILED, b"", f"gearmanctl: can't listen at 127.0.0.1:{port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(silent, TIMED_OUT, marks=pytest.mark.slow),
        (garbage, NO_SERVER),
        (closing, NO_SERVER),
    ],
)
def test_status_prometheus_reports_bad_servers(
    start_server: Callable[..., ScriptedServer], script: Callable[[Peer], None], status: int
) -> None:
    bad = start_server(script).address
    timeout = "1" if script is silent else str(PATIENCE)
    result = gearmanctl("status", "--prometheus", "--timeout", timeout, at=bad)
    assert result.status == status
    assert result.output.decode() == exposition({address_of(bad): None})
    assert address_of(bad) in result.error
    nowhere = ("127.0.0.1", free_port())
    result = gearmanctl("status", "--prometheus", at=nowhere)
    assert (result.status, address_of(nowhere) in result.error) == (NO_SERVER, True)


def test_server_without_priorities_is_up(start_server: Callable[..., ScriptedServer]) -> None:
    """Perl's server does not know the command."""

    def script(peer: Peer) -> None:
        for reply in (b"v1.130.1\n", b"f\t1\t0\t2\n.\n", b"ERR unknown_command \r\n"):
            peer.sock.recv(100)
            peer.send_raw(reply)
        peer.hold()

    server = start_server(script)
    answer = Answer("v1.130.1", [FunctionStatus("f", 1, 0, 2)])
    text = exposition({address_of(server.address): answer})
    result = gearmanctl("status", "--prometheus", at=server.address)
    assert result == Result(DONE, text.encode(), "")


# The page and the web server.


def test_page_is_made_once_for_all_who_wait() -> None:
    ticks: list[int] = []
    made: list[int] = []

    def clock() -> int:
        ticks.append(len(ticks))
        return ticks[-1]

    def make() -> str:
        if not made:
            # The clock is read by each caller, and when a page is begun.
            eventually(lambda: len(ticks) == 7, "the other callers")
        made.append(len(made))
        return str(made[-1])

    page = _Shared(make, clock)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(page)
        eventually(lambda: len(ticks) == 2, "the first page")
        others = [pool.submit(page) for _ in range(5)]
        assert [first.result(), *(each.result() for each in others)] == ["0", *"11111"]
    assert page() == "2"


@contextlib.contextmanager
def serving(timeout: float) -> Iterator[tuple[str, int]]:
    with WebServer("127.0.0.1", 0, {"/x": lambda: "text"}, timeout) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[:2]  # type: ignore[misc]
        finally:
            server.shutdown()
            thread.join()


def test_connection_that_sends_no_request_is_closed() -> None:
    with serving(0.0) as address, socket.create_connection(address, PATIENCE) as client:
        client.sendall(b"GET /x HTTP/1.0\r\n")
        assert client.recv(100) == b""


def test_connections_beyond_the_limit_are_closed() -> None:
    with serving(1000.0) as address, contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(65)
        ]
        assert clients[-1].recv(100) == b""
        clients[0].sendall(b"GET /x HTTP/1.0\r\n\r\n")
        assert clients[0].makefile("rb").read().endswith(b"\r\n\r\ntext")
        eventually(lambda: _answers(address), "room for another connection")
        for client in clients[1:-1]:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        return scrape(f"http://{address[0]}:{address[1]}/x") == "text"
    return False


def test_errors_of_pages_are_reported_until_the_server_is_closed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def errors(error: Exception) -> str:
        try:
            raise error
        except type(error):
            server.handle_error(None, ("127.0.0.1", 1))
        return capsys.readouterr().err

    with WebServer("127.0.0.1", 0, {}, 1.0) as server:
        assert "ValueError: broken" in errors(ValueError("broken"))
        assert errors(BrokenPipeError()) == ""
    assert errors(ValueError("broken")) == ""
