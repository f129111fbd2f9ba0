"""Fixtures for servers, workers and names that tests of all adapters share."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading

# pytest's hook for exceptions in finalizers imports this. If another such exception occurs during
# the import, the hook fails, and so does the test, whatever its filters say.
import tracemalloc  # noqa: F401
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import pytest

from gearman_proto.engines.driver import BaseDriver
from gearman_proto.testing import StrictEngine
from gearman_sync.testing import Peer, ScriptedServer, ScriptedWorker
from tests import profiles
from tests.measuring import Measuring
from tests.support import (
    PATIENCE,
    EmbeddedServer,
    Gearmand,
    Stunnel,
    client_context,
    client_keys,
    eventually,
    make_certificates,
    require,
)

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Callable, Generator, Iterator
    from types import FrameType

_numbers = itertools.count(1)

SERVERS = ("gearmand", "JobServer")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose a seed for Hypothesis, so that failures can be repeated, and set up the
    measurement.
    """
    if sys.dont_write_bytecode:
        sys.pycache_prefix = tempfile.mkdtemp(prefix="gearman-tests-")
        config.add_cleanup(lambda: shutil.rmtree(str(sys.pycache_prefix), ignore_errors=True))
        sys.dont_write_bytecode = False
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    measured = coverage.Coverage.current()
    if measured is not None:
        config.pluginmanager.register(Measuring(measured))


def pytest_report_header(config: pytest.Config) -> str:
    return profiles.describe(config.option.hypothesis_seed)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let each process of pytest-xdist start with another directory of tests.

    In a fresh checkout, a process then finds the other directories compiled. Otherwise all
    processes would compile the same files at the same time, which takes a tenth of the whole run.
    """
    report = yield
    if collector.path == Path(__file__).parent and hasattr(collector.config, "workerinput"):
        worker = collector.config.workerinput
        number = int(worker["workerid"].removeprefix("gw"))
        begin = len(report.result) * number // worker["workercount"]
        report.result = report.result[begin:] + report.result[:begin]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Restore the same order of tests in all processes."""
    items.sort(key=lambda item: item.path)


def pytest_collection_finish() -> None:
    """Exclude permanent objects from garbage collection, which runs after many tests.

    These are all modules and tests of the session. They would add 116 ms to each collection.
    """
    # At import, Hypothesis registers trio's random generator, and warns if that is frozen.
    import hypothesis  # noqa: F401

    gc.collect()
    gc.freeze()


def _is_of_this_test(record: logging.LogRecord) -> bool:
    return record.name != "asyncio"


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Ignore asyncio's messages about tasks of earlier tests, logged when these are collected."""
    caplog.handler.addFilter(_is_of_this_test)
    return caplog


@pytest.fixture(scope="session")
def gearmand() -> Iterator[Gearmand]:
    """A gearmand that tests share. They must use their own functions (`task`) and not kill it."""
    server = Gearmand()
    yield server
    server.kill()


@pytest.fixture
def start_gearmand() -> Iterator[Callable[..., Gearmand]]:
    """Start a gearmand for one test."""
    # Check this here: a thread or a task of the test can't skip it.
    require("gearmand")
    with contextlib.ExitStack() as stack:

        def start(*options: str, **kwargs: Any) -> Gearmand:
            server = Gearmand(*options, **kwargs)
            stack.callback(server.kill)
            return server

        yield start


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Gearmand | EmbeddedServer]:
    """The shared gearmand, or a JobServer. Tests must not kill it."""
    if request.param == "gearmand":
        yield request.getfixturevalue("gearmand")
    else:
        embedded = EmbeddedServer()
        yield embedded
        embedded.kill()


@pytest.fixture(params=SERVERS)
def launch(request: pytest.FixtureRequest) -> Iterator[Callable[[], Gearmand | EmbeddedServer]]:
    """Start a gearmand or a JobServer for one test, which is allowed to kill it."""
    if request.param == "gearmand":
        yield request.getfixturevalue("start_gearmand")
    else:
        with contextlib.ExitStack() as stack:

            def start() -> EmbeddedServer:
                embedded = EmbeddedServer()
                stack.callback(embedded.kill)
                return embedded

            yield start


@pytest.fixture(scope="session")
def tls_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, and with keys and certificates of a server and a client."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def tls_tunnel(tls_certificates: Path, gearmand: Gearmand) -> Iterator[Stunnel]:
    """A TLS tunnel to the shared gearmand."""
    program = Stunnel(tls_certificates, gearmand)
    yield program
    program.kill()


@pytest.fixture
def tls_host(tls_certificates: Path, tls_tunnel: Stunnel) -> dict[str, Any]:
    """The dict for a host list that connects to the tunnel."""
    return {"host": "localhost", "port": tls_tunnel.port, **client_keys(tls_certificates)}


@pytest.fixture
def tls_context(tls_certificates: Path) -> ssl.SSLContext:
    """The SSL context that connects to the tunnel."""
    return client_context(tls_certificates)


@pytest.fixture
def task() -> str:
    """The name of a function that no other test uses."""
    return f"task-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def start_worker() -> Iterator[Callable[..., ScriptedWorker]]:
    """Start a scripted worker for one test."""
    with contextlib.ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> ScriptedWorker:
            worker = ScriptedWorker(*args, **{"timeout": PATIENCE, **kwargs})
            stack.callback(worker.stop)
            return worker

        yield start


@pytest.fixture
def start_server() -> Iterator[Callable[..., ScriptedServer]]:
    """Start a scripted server for one test."""
    with contextlib.ExitStack() as stack:

        def start(script: Callable[[Peer], object], **kwargs: Any) -> ScriptedServer:
            server = ScriptedServer(script, timeout=PATIENCE, **kwargs)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs, if the system supports it. CPU time is not limited."""
    patience = 8 if request.node.get_closest_marker("slow") else 5

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the test hangs")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(patience * PATIENCE))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    eventually(
        lambda: before.issuperset(threading.enumerate()),
        f"the end of threads, {threading.enumerate()},",
    )


@pytest.fixture
def strict_engines() -> Iterator[None]:
    """A check that the drivers of both adapters make no mistake in the use of their engines."""
    engines: list[StrictEngine[Any]] = []
    init = BaseDriver.__init__

    def strict_init(
        driver: BaseDriver[Any], make_engine: Callable[[], Any], logger: logging.Logger
    ) -> None:
        def make_strict_engine() -> Any:
            engine = make_engine()
            if type(engine) is not StrictEngine:  # After a fork, a driver passes this function.
                engine = StrictEngine(engine)
                engines.append(engine)
            return engine

        init(driver, make_strict_engine, logger)

    # Not the fixture, since tests undo its changes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDriver, "__init__", strict_init)
        yield
    for engine in engines:
        if engine._gm_waits:
            gc.collect()  # An iterator releases its Wait when it is collected.
        if engine.closed or engine.mistakes:
            engine.check_end()
