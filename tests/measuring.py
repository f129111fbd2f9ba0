"""Which tests the coverage of the core is measured from, where `coverage run -m pytest` is."""

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
# The marks of those among these tests that are not measured.
UNMEASURED: Final = ("hypothesis", "unmeasured")


class Measuring:
    """Measures the core's plain tests, and notes for each of their directories what it covers.

    All others would only be slowed, and what Hypothesis's examples cover is luck. So would those
    marked `unmeasured`, of which half a second can take three when it is measured.
    """

    def __init__(self, measured: coverage.Coverage) -> None:
        self._coverage = measured
        # What is being covered: "" while tests are collected, None when nothing is measured.
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
        # Not before, since `start` sets it: the processes that tests start are not measured.
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
