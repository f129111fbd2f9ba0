"""Selects the tests that measure the core's coverage, when run with `coverage run -m pytest`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    import coverage

# The directories of the core's own tests.
CORE: Final = ("ground", "wire", "jobs", "engines", "surface", "testing")
# Marks of those core tests that are not measured.
UNMEASURED: Final = ("hypothesis", "unmeasured")


class Measuring:
    """A pytest plugin that measures the core's plain tests, one directory at a time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._coverage = measured
        # The current context: "" while tests are collected, None while nothing is measured.
        self._directory: str | None = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        directory: str | None = item.path.relative_to(Path(__file__).parent).parts[0]
        if directory not in CORE or any(map(item.get_closest_marker, UNMEASURED)):
            directory = None
        if directory != self._directory:
            self._switch(directory)
        tracer = sys.gettrace()
        result = yield
        if sys.gettrace() is not tracer:
            raise RuntimeError(f"{item.nodeid} ended the measuring of those after it")
        return result

    def _switch(self, directory: str | None) -> None:
        if directory is None:
            self._coverage.stop()
        else:
            if self._directory is None:
                self._coverage.start()
            self._coverage.switch_context(directory)
        self._directory = directory
        # `start` sets the variable, so remove it now: the processes that tests start are not
        # measured.
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
