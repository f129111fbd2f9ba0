"""Every test runs on asyncio and on trio; none hangs, or leaves a socket open.

Those marked `both_streams` run with each kind of stream to a server, too: with our own, which are
what anybody gets, and with anyio's in their place, which are for `connect=`, TLS and uvloop.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest

import gearman_anyio
from gearman_anyio import _plain, _streams
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "both_streams: a test for each kind of stream to a server")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the kinds of streams of a test."""
    if metafunc.definition.get_closest_marker("both_streams") is not None:
        metafunc.parametrize("kind_of_stream", ["own", "anyio's"], indirect=True)


@pytest.fixture(autouse=True)
def kind_of_stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What TCP connections without TLS are."""
    kind: str = getattr(request, "param", "own")
    if kind != "own":
        monkeypatch.setattr(_plain, "plain_stream", _streams.socket_stream)
    return kind


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The event loop."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def _clean(no_hang: None, no_open_sockets: None) -> None:
    """Every test here is watched."""


def open_sockets() -> set[str]:
    """The sockets of this process, as the system names them, where it has such a list."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in found if name.startswith("socket:")}


@pytest.fixture
def no_open_sockets() -> Iterator[None]:
    """Fails a test that leaves a socket open."""
    before = open_sockets()
    yield
    if not open_sockets() <= before:
        # A test's own sockets may be garbage, which is still open; one that is ours warns then.
        gc.collect()
    eventually(lambda: open_sockets() <= before, "the end of all sockets")


@pytest.fixture
async def server(anyio_backend: Any) -> AsyncIterator[gearman_anyio.JobServer]:
    """A JobServer in the loop of the test. The test leaves it alive.

    What is asked here is what the adapter does. What tests/contract asks, it asks of both kinds of
    servers.
    """
    async with gearman_anyio.JobServer() as embedded:
        yield embedded
