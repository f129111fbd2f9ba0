"""Fixtures for tests of programs that use Gearman. pytest finds them where this is installed.

What a fixture needs is imported when it is used: pytest loads this for every project, and few tests
need it.
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
    """Make the option known."""
    parser.getgroup("gearman").addoption(
        "--gearman-server",
        metavar="HOST:PORT",
        help="run tests that use gearman_server on this job server, a gearmand, say, "
        "and not each on one of its own",
    )


@pytest.fixture
def gearman_server_options() -> dict[str, Any]:
    """The arguments of the JobServer that is `gearman_server`: override this to give others."""
    return {}


@pytest.fixture
def gearman_server(
    pytestconfig: pytest.Config, gearman_server_options: dict[str, Any]
) -> Iterator[HostAndPort]:
    """The address of a job server of the test's own: ``(host, port)``, or ``host:port`` as str.

    With the option ``--gearman-server`` it is that server's, and has whatever jobs it has. A test
    that has `gearman_server_options` is skipped then.
    """
    if (given := pytestconfig.getoption("--gearman-server")) is not None:
        if gearman_server_options:
            pytest.skip("it has gearman_server_options, for a server of its own")
        from gearman_proto.address import HostAndPort, parse_address  # noqa: PLC0415

        address = parse_address(given)
        yield HostAndPort(address.host, address.port)
        return
    from .server import JobServer  # noqa: PLC0415

    with JobServer(**gearman_server_options) as server:
        yield server.address


@pytest.fixture
def gearman_worker(gearman_server: HostAndPort) -> Callable[..., WorkerUnderTest]:
    """Runs a worker of one's own in the test: ``gearman_worker({"task": callback})``.

    Gets callbacks by task, or a GearmanWorker, and the arguments of
    `gearman_sync.testing.WorkerUnderTest`, which it returns; its server is `gearman_server`, unless
    there is a `server=`. With async callbacks, or a worker of `gearman_anyio`, it is a
    `gearman_anyio.testing.BlockingWorkerUnderTest`, which has the same methods.
    """
    from .testing import WorkerUnderTest  # noqa: PLC0415
    from .worker import GearmanWorker  # noqa: PLC0415

    def make(worker: Any, **options: Any) -> Any:
        from gearman_proto.surface.callbacks import is_async  # noqa: PLC0415

        options.setdefault("server", gearman_server)
        callbacks = worker.values() if isinstance(worker, Mapping) else ()
        if not isinstance(worker, (GearmanWorker, Mapping)) or any(map(is_async, callbacks)):
            from gearman_anyio.testing import BlockingWorkerUnderTest  # noqa: PLC0415

            return BlockingWorkerUnderTest(worker, **options)
        return WorkerUnderTest(worker, **options)

    return make
