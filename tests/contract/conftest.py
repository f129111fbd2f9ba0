"""Runs scenarios: async functions with a `kit`, once for each adapter.

Those of what a server does, too, are marked `both_servers` and run with each adapter and each kind
of server. The others run with each adapter, and with each kind of server, but not with all pairs.
"""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from .kit import ADAPTERS, SERVERS, EmbeddedServer, GearmandServer, Kit, Server, make_kit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


# Each adapter, and each kind of server.
_PAIRS = [("sync", "gearmand"), ("asyncio", "JobServer"), ("trio", "gearmand")]
_ALL_PAIRS = list(itertools.product(ADAPTERS, SERVERS))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "both_servers: a scenario of what servers do, for all adapters with all servers"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the adapters and kinds of servers of a scenario."""
    if "server_kind" in metafunc.fixturenames:
        all_pairs = metafunc.definition.get_closest_marker("both_servers") is not None
        pairs = _ALL_PAIRS if all_pairs else _PAIRS
        metafunc.parametrize(("adapter", "server_kind"), pairs, indirect=True)
    elif "adapter" in metafunc.fixturenames:
        metafunc.parametrize("adapter", ADAPTERS, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let the kit run what is async."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    arguments["kit"].run(pyfuncitem.obj, arguments)
    return True


@pytest.fixture
def adapter(request: pytest.FixtureRequest) -> str:
    """The adapter."""
    name: str = request.param
    return name


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> str:
    """The kind of job server."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _clean(adapter: str, request: pytest.FixtureRequest, no_hang: None) -> None:
    """No scenario hangs, or leaves a thread. (anyio's are kept for others to use.)"""
    if adapter == "sync":
        request.getfixturevalue("no_leak")


@pytest.fixture
def kit(adapter: str) -> Kit:
    """The adapter's kit."""
    return make_kit(adapter)


@pytest.fixture
def server(kit: Kit, server_kind: str, request: pytest.FixtureRequest) -> Server:
    """A server that runs when the scenario begins, and is left alive by it."""
    if server_kind == "gearmand":
        gearmand = request.getfixturevalue("gearmand")
        return GearmandServer(kit, lambda: gearmand, shared=True)
    return EmbeddedServer(kit)


@pytest.fixture
def launch(
    kit: Kit, server_kind: str, request: pytest.FixtureRequest
) -> Callable[[], Awaitable[Server]]:
    """Starts a server of the scenario's own, which may be killed."""
    start_gearmand = (
        request.getfixturevalue("start_gearmand") if server_kind == "gearmand" else None
    )

    async def start() -> Server:
        server: Server
        if start_gearmand is None:
            server = EmbeddedServer(kit)
        else:
            server = GearmandServer(kit, start_gearmand, shared=False)
        await server.start()
        return server

    return start
