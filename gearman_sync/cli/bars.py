"""Progress bars on a terminal, driven by the jobs' progress reports.

The bars are drawn on standard error, and only if it is a terminal. If standard output is the same
terminal, output appears above the bars. It is then written in whole lines, since a bar would
overwrite an unfinished line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from gearman_proto.names import to_text
from gearman_proto.printable import printable
from gearman_proto.signals import SIGNALLED, handled
from gearman_sync import _interrupts

from . import exits
from .output import flush, write, write_errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

# Terminal lines reserved for the total and for the output above the bars.
_RESERVED: Final = 3
# Maximum width of a job's name, in columns.
_NAME: Final = 24


class _LogLines:
    """A stream for log records, which writes them above the bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def write(self, text: str) -> None:
        self._bars.complain(text.rstrip("\n"))

    def flush(self) -> None:
        """Do nothing, as `write` does not buffer."""


class _InOrder(Progress):
    """Progress bars sorted by place, not by the time at which the jobs started."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        return super().make_tasks_table(sorted(tasks, key=lambda task: task.fields["place"]))


class Bars:
    """A bar for each job that reports progress, as far as the terminal has room, and a total.

    Args:
        total: True to show a bar for all jobs together.
    """

    def __init__(self, *, total: bool = False) -> None:
        console = Console(stderr=True)
        self._console = console
        self._progress: Progress | None = None
        self._has_total = total
        self._total: TaskID | None = None
        self._tasks: dict[object, TaskID] = {}
        # An unfinished line, held back until it can be written above the bars.
        self._begun = b""
        # True if the last line written to a terminal is unfinished.
        self._is_open = False
        self._on_terminal = sys.stdout.isatty()
        self._is_same = self._on_terminal and os.path.sameopenfile(
            sys.stdout.fileno(), sys.stderr.fileno()
        )
        #: True once signals are ignored.
        self._is_ending = False
        self._handling = contextlib.ExitStack()
        # The environment can make rich treat a pipe as a terminal.
        if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
            self._progress = _InOrder(
                # A name can be any text.
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis", max_width=_NAME),
                ),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
                # `write` and `complain` write above the bars.
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        if self._progress is not None:
            signals = signal.SIGINT, signal.SIGTERM
            self._handling.enter_context(handled(signals, self._on_signal))
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.StreamHandler):
                    self._handling.callback(handler.setStream, handler.setStream(_LogLines(self)))
            self._progress.start()
            if self._has_total:
                self._total = self._progress.add_task("total", total=None, place=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._is_ending = True
            self._progress.stop()
            self._handling.close()
        begun, self._begun = self._begun, b""
        write(begun)
        if begun or self._is_open:
            write(b"\n")
        flush()

    def _on_signal(self, number: int) -> None:
        # Ignore further signals, so that the terminal is always restored. If SIG_IGN replaced this
        # handler just after a signal has arrived, CPython would print an error.
        if self._is_ending:
            return
        self._is_ending = True
        if number == signal.SIGINT:
            _interrupts.exit_silently()
            raise KeyboardInterrupt
        raise exits.Exit(SIGNALLED + number)

    @property
    def are_drawn(self) -> bool:
        """True if there is a terminal to draw on."""
        return self._progress is not None

    def report(
        self, job: object, name: str, numerator: int, denominator: int, *, place: int = 1
    ) -> None:
        """Show a job's progress. The bars are sorted by `place`, which starts at 1."""
        progress = self._progress
        if progress is None:
            return
        task = self._tasks.get(job)
        if task is None:
            if len(self._tasks) >= max(self._console.height - _RESERVED, 1):
                return
            task = self._tasks[job] = progress.add_task(printable(name), total=None, place=place)
        progress.update(task, completed=numerator, total=denominator or None)

    def end(self, job: object) -> None:
        """Remove the bar of an ended job."""
        task = self._tasks.pop(job, None)
        if task is not None and self._progress is not None:
            self._progress.remove_task(task)

    def count(self, done: int, total: int | None) -> None:
        """Show in the total that `done` jobs of `total` are done. `total` is None if unknown."""
        if self._progress is not None and self._total is not None:
            self._progress.update(self._total, completed=done, total=total)

    def write(self, data: bytes) -> None:
        """Write to standard output."""
        if self._progress is None or not self._is_same:
            write(data)
            if data:
                self._is_open = self._on_terminal and not data.endswith(b"\n")
            return
        lines, end, rest = (self._begun + data).rpartition(b"\n")
        self._begun = rest  # A signal's exception can interrupt `print` after it has written.
        if end:
            text = lines.decode("utf-8", "replace")
            self._console.print(Text(text), soft_wrap=True, highlight=False)

    def complain(self, message: str) -> None:
        """Write a line to standard error."""
        line = printable(message)
        if self._progress is None:
            write_errors(f"{line}\n".encode())
        else:
            self._console.print(Text(line), soft_wrap=True, highlight=False)

    def warn(self, warning: bytes) -> None:
        """Write a job's warning to standard error, as one line."""
        self.complain(" ".join(to_text(warning).split()))
