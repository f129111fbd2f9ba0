"""Runs scenarios: async functions with a `kit`, once for each adapter, and each kind of server."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from .kit import ADAPTERS, SERVERS, EmbeddedServer, GearmandServer, Kit, Server, make_kit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let the kit run what is async."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    arguments["kit"].run(pyfuncitem.obj, arguments)
    return True


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    """The adapter."""
    name: str = request.param
    return name


@pytest.fixture(params=SERVERS)
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
