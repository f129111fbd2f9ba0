"""Fixtures that run each scenario, an async function with a `kit`, once per adapter.

Scenarios marked `both_servers` also test the server, so they run with every pair of an adapter and
a kind of server. The others cover each adapter and each kind of server, but not every pair.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import ScriptedClient

from .kit import (
    ADAPTERS,
    SERVERS,
    Connect,
    EmbeddedServer,
    GearmandServer,
    Kit,
    Launch,
    Server,
    make_kit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


_PAIRS = [("sync", "gearmand"), ("asyncio", "JobServer"), ("trio", "gearmand")]
_ALL_PAIRS = list(itertools.product(ADAPTERS, SERVERS))


def pytest_configure(config: pytest.Config) -> None:
    """Register the `both_servers` marker."""
    config.addinivalue_line(
        "markers", "both_servers: a scenario of what servers do, for all adapters with all servers"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a scenario with its adapters and kinds of servers."""
    if "server_kind" in metafunc.fixturenames:
        all_pairs = metafunc.definition.get_closest_marker("both_servers") is not None
        pairs = _ALL_PAIRS if all_pairs else _PAIRS
        metafunc.parametrize(("adapter", "server_kind"), pairs, indirect=True)
    elif "adapter" in metafunc.fixturenames:
        metafunc.parametrize("adapter", ADAPTERS, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests with the kit."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    arguments["kit"].run(pyfuncitem.obj, arguments)
    return True


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> str:
    """The name of the adapter."""
    name: str = request.param
    return name


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> str:
    """The kind of job server."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _clean(
    adapter: str, request: pytest.FixtureRequest, no_hang: None, strict_engines: None
) -> None:
    """A check that no scenario hangs or leaks threads, except those that anyio keeps for reuse."""
    if adapter == "sync":
        request.getfixturevalue("no_leak")


@pytest.fixture
def kit(adapter: str) -> Kit:
    """The adapter's kit."""
    return make_kit(adapter)


@pytest.fixture
def server(kit: Kit, server_kind: str, request: pytest.FixtureRequest) -> Server:
    """A server that runs when the scenario begins and still runs when it ends."""
    if server_kind == "JobServer":
        return EmbeddedServer(kit)
    gearmand = request.getfixturevalue("gearmand")
    return GearmandServer(kit, lambda: gearmand)


@pytest.fixture
def launch(kit: Kit, server_kind: str, request: pytest.FixtureRequest) -> Launch:
    """A function that starts a server for this scenario only. The scenario may kill that server."""
    # Only fixtures can skip the test if gearmand is missing.
    start_gearmand: Any = server_kind == "gearmand" and request.getfixturevalue("start_gearmand")

    async def start() -> Server:
        server = GearmandServer(kit, start_gearmand) if start_gearmand else EmbeddedServer(kit)
        await server.start()
        return server

    return start


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that connects a ScriptedClient to a JobServer. The fixture closes it."""
    with contextlib.ExitStack() as stack:

        def connect(server: Any, **options: Any) -> ScriptedClient:
            link = ScriptedClient(tuple(server.address), **options)
            stack.callback(link.close)
            return link

        yield connect
