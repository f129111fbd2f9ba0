"""The drivers of both adapters and of the examples pass the tests for drivers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from gearman_sync.testing import DriverTests
from tests.support import PATIENCE, require_module

from .kits import Async, Blocking, OwnLoop, Twisted

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import DriverUnderTest


def classes_of_the_page() -> dict[str, Any]:
    """Return the names of the code on the page of adapters that defines the tiny driver."""
    page = Path(__file__).parents[2] / "docs/howto/adapters.md"
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if "class Tiny" in code:
            exec(code, names)
    return names


PAGE = classes_of_the_page()


@pytest.mark.usefixtures("no_hang", "no_leak")
class Checked(DriverTests):
    patience: ClassVar[float] = PATIENCE


class TestPage(PAGE["TestTinyDriver"], Checked):  # type: ignore[misc, name-defined, valid-type]
    pass


class TestBlocking(Checked):
    forks: ClassVar[bool] = True

    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        return Blocking(make_engine)


class TestAsyncio(Checked):
    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        return Async(make_engine, "asyncio")


class TestTrio(Checked):
    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        return Async(make_engine, "trio")


class TestOwnLoop(Checked):
    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        return OwnLoop(make_engine)


class TestTwisted(Checked):
    def make_driver(self, make_engine: Callable[[], Any], /) -> DriverUnderTest:
        require_module("twisted")
        return Twisted(make_engine)
