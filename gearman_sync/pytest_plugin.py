"""A fixture for tests of programs that use Gearman. pytest finds it where this is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.address import HostAndPort


@pytest.fixture
def gearman_server() -> Iterator[HostAndPort]:
    """The address of a job server of the test's own: ``(host, port)``, or ``host:port`` as str."""
    # Imported here, since pytest loads this for every project, and few tests need it.
    from .server import JobServer  # noqa: PLC0415

    with JobServer() as server:
        yield server.address
