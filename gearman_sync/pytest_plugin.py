"""Pytest fixtures for applications that use Gearman. Pytest finds them once this is installed.

Fixtures import what they need when a test uses them, because pytest loads this module in every
project and few tests need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.address import HostAndPort

    from .testing import WorkerUnderTest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--gearman-server``."""
    parser.getgroup("gearman").addoption(
        "--gearman-server",
        metavar="HOST:PORT",
        help="use this job server, for example a gearmand, for all tests with gearman_server, "
        "instead of one server for each test",
    )


@pytest.fixture
def gearman_server_options() -> dict[str, Any]:
    """The arguments of the JobServer of `gearman_server`. Override this fixture to change them."""
    return {}


@pytest.fixture
def gearman_server(
    pytestconfig: pytest.Config, gearman_server_options: dict[str, Any]
) -> Iterator[HostAndPort]:
    """The address of a job server that serves this test only: ``(host, port)``.

    Its `str` is ``host:port``. With the option ``--gearman-server``, the fixture returns that
    server's address instead. The server can then have jobs of others, and tests that override
    `gearman_server_options` are skipped.
    """
    if (given := pytestconfig.getoption("--gearman-server")) is not None:
        if gearman_server_options:
            pytest.skip("gearman_server_options need a job server of the test's own")
        from gearman_proto.address import HostAndPort, parse_address  # noqa: PLC0415

        address = parse_address(given)
        yield HostAndPort(address.host, address.port)
        return
    from .server import JobServer  # noqa: PLC0415

    with JobServer(**gearman_server_options) as server:
        yield server.address


@pytest.fixture
def gearman_worker(gearman_server: HostAndPort) -> Callable[..., WorkerUnderTest]:
    """Return a function that runs a worker in the test: ``gearman_worker({"task": callback})``.

    The function gets a dict of callbacks by task, or a GearmanWorker, and the arguments of
    `gearman_sync.testing.WorkerUnderTest`, which it returns. The default of `server` is
    `gearman_server`. For async callbacks, and for a worker of `gearman_anyio`, it returns a
    `gearman_anyio.testing.BlockingWorkerUnderTest`, which has the same methods.
    """

    def make(worker: Any, **options: Any) -> Any:
        options.setdefault("server", gearman_server)
        return _kind_for(worker)(worker, **options)

    return make


def _kind_for(worker: Any) -> Any:
    """Return the class that runs `worker`, or callbacks by task, in a test."""
    from gearman_proto.surface.callbacks import is_async  # noqa: PLC0415

    from .testing import WorkerUnderTest  # noqa: PLC0415
    from .worker import GearmanWorker  # noqa: PLC0415

    callbacks = worker.values() if isinstance(worker, Mapping) else ()
    if isinstance(worker, (GearmanWorker, Mapping)) and not any(map(is_async, callbacks)):
        return WorkerUnderTest
    from importlib.metadata import entry_points  # noqa: PLC0415

    found = list(entry_points(group="gearman.worker_under_test", name="async"))
    if not found:
        raise RuntimeError(
            f"gearman_worker can't run {worker!r}, which is async: gearman-sansio is not installed "
            "in this version (an editable checkout needs `pip install -e .` again)"
        )
    return found[0].load()  # Without anyio, this raises an error that names the cure.
