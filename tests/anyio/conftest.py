"""Fixtures of the anyio tests. Every test runs on asyncio and on trio.

A test fails if it hangs or leaves a socket open. Tests marked `both_streams` also run with both
kinds of streams: our own, which are the default, and anyio's, which serve `connect=`, TLS and
uvloop.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

import gearman_anyio
from gearman_anyio import _raw, _streams
from tests.support import eventually

from .stepping import nothing_left, open_sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "both_streams: a test for each kind of stream to a server")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test with the kinds of streams."""
    if metafunc.definition.get_closest_marker("both_streams") is not None:
        metafunc.parametrize("kind_of_stream", ["own", "anyio's"], indirect=True)


@pytest.fixture(autouse=True)
def kind_of_stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of stream used for TCP connections without TLS."""
    kind: str = getattr(request, "param", "own")
    if kind != "own":
        monkeypatch.setattr(_raw, "raw_stream", _streams.socket_stream)
    return kind


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def _clean(no_hang: None, no_open_sockets: None, strict_engines: None) -> None:
    """Time limit and socket check for every test."""


@pytest.fixture
def no_open_sockets() -> Iterator[None]:
    """A check that fails a test which leaves a socket open."""
    before = open_sockets()
    yield
    if not open_sockets() <= before:
        # An unreachable socket stays open until it is collected. If it is one of ours, collecting
        # it warns.
        gc.collect()
    eventually(lambda: open_sockets() <= before, "the end of all sockets")


@pytest.fixture
async def nothing_is_left(anyio_backend: Any) -> AsyncIterator[None]:
    """A check that fails a test which leaves a task."""
    async with nothing_left():
        yield


@pytest.fixture
async def server(anyio_backend: Any) -> AsyncIterator[gearman_anyio.JobServer]:
    """A JobServer in the test's event loop. The test must not stop it.

    These tests check the adapter. The tests in tests/contract run against both kinds of servers.
    """
    async with gearman_anyio.JobServer() as embedded:
        yield embedded
