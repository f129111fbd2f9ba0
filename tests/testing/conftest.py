"""The server of the tests with sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A JobServer for one test."""
    embedded = EmbeddedServer()
    yield embedded
    embedded.kill()
