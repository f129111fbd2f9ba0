"""Progress bars on a terminal, from what jobs report.

They are drawn on standard error. Where that is no terminal, nothing is drawn. What is written to
standard output meanwhile goes above them if both are the same terminal: then it is written in whole
lines, since a bar would overwrite a line that is not finished.
"""

from __future__ import annotations

import contextlib
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

from gearman_proto.foreign import shown
from gearman_proto.names import to_text

from . import exits
from .output import flush, write, write_errors
from .signals import handled, heeded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

# Lines of the terminal that are not for the bars of jobs: the total, and what is above.
_RESERVED: Final = 3
# Columns of the terminal that a name may take.
_NAME: Final = 24


class _InOrder(Progress):
    """Bars that are sorted, whichever of the jobs began first."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        return super().make_tasks_table(sorted(tasks, key=lambda task: task.fields["place"]))


class Bars:
    """A bar for each job that reports progress, as many as there is room for, and a total.

    Args:
        total: Whether there is a bar for all jobs together.
    """

    def __init__(self, *, total: bool = False) -> None:
        console = Console(stderr=True)
        self._console = console
        self._progress: Progress | None = None
        self._has_total = total
        self._total: TaskID | None = None
        self._tasks: dict[object, TaskID] = {}
        # What was to be written above the bars and is not a whole line yet.
        self._begun = b""
        # Whether the line that was written last on a terminal is not whole.
        self._is_open = False
        self._on_terminal = sys.stdout.isatty()
        self._is_same = self._on_terminal and os.path.sameopenfile(
            sys.stdout.fileno(), sys.stderr.fileno()
        )
        self._signals: list[int] = []
        self._handling = contextlib.ExitStack()
        # rich takes a pipe for a terminal if the environment says so.
        if sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
            self._progress = _InOrder(
                # It may be anything.
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
                # Both are written by `write` and `complain`.
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._signals = heeded((signal.SIGINT, signal.SIGTERM))
            self._handling.enter_context(handled(self._signals, self._on_signal))
            self._progress.start()
            if self._has_total:
                self._total = self._progress.add_task("total", total=None, place=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._ignore_signals()
            self._progress.stop()
            self._handling.close()
        begun, self._begun = self._begun, b""
        write(begun)
        if begun or self._is_open:
            write(b"\n")
        flush()

    def _on_signal(self, number: int) -> None:
        self._ignore_signals()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise exits.Exit(exits.SIGNALLED + number)

    def _ignore_signals(self) -> None:
        """Let nothing interrupt the end of this: the terminal is to be as it was."""
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)

    @property
    def are_drawn(self) -> bool:
        """Whether there is a terminal for them."""
        return self._progress is not None

    def report(
        self, job: object, name: str, numerator: int, denominator: int, *, place: int = 1
    ) -> None:
        """A job has reported how far it is. Bars are in the order of their `place`s, from 1."""
        progress = self._progress
        if progress is None:
            return
        task = self._tasks.get(job)
        if task is None:
            if len(self._tasks) >= max(self._console.height - _RESERVED, 1):
                return
            task = self._tasks[job] = progress.add_task(shown(name), total=None, place=place)
        progress.update(task, completed=numerator, total=denominator or None)

    def end(self, job: object) -> None:
        """A job has ended: its place is free."""
        task = self._tasks.pop(job, None)
        if task is not None and self._progress is not None:
            self._progress.remove_task(task)

    def count(self, done: int, total: int | None) -> None:
        """So many jobs are done, of so many, if that is known."""
        if self._progress is not None and self._total is not None:
            self._progress.update(self._total, completed=done, total=total)

    def write(self, data: bytes) -> None:
        """Write to standard output."""
        if self._progress is None or not self._is_same:
            write(data)
            if data:
                self._is_open = self._on_terminal and not data.endswith(b"\n")
            return
        lines, end, rest = data.rpartition(b"\n")
        if end:
            text = (self._begun + lines).decode("utf-8", "replace")
            self._console.print(Text(text), soft_wrap=True, highlight=False)
            self._begun = b""
        self._begun += rest

    def complain(self, message: str) -> None:
        """Write a line to standard error."""
        line = shown(message)
        if self._progress is None:
            write_errors(f"{line}\n".encode())
        else:
            self._console.print(Text(line), soft_wrap=True, highlight=False)

    def warn(self, warning: bytes) -> None:
        """Write a job's warning to standard error, as one line."""
        self.complain(" ".join(to_text(warning).split()))
