"""Tables: what a measure returns, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .rounds import Results, median, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_FORMATS: dict[str, Callable[[float], str]] = {
    "n": lambda value: f"{value:,.0f}",
    "us": lambda value: f"{value * 1e6:,.2f} us",
    "ms": lambda value: f"{value * 1e3:,.1f} ms",
    "B": lambda value: f"{value:,.0f} B",
    "x": lambda value: f"{value:.2f} x",
    "": lambda value: f"{value:,.2f}",
    "GB/s": lambda value: f"{value / 1e9:.2f} GB/s",
}


@dataclass
class Table:
    """What was measured.

    Attributes:
        title: What it is about.
        columns: The heading of each, and its unit: a key of _FORMATS. Values are in seconds, bytes
            or numbers.
        rows: The name of each, and its values; None is none.
        drawn: The heading of the column that the plot shows, or nothing.
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[float | None]]] = field(default_factory=list)
    drawn: str = ""

    def add(self, name: str, *values: float | None) -> None:
        self.rows.append((name, list(values)))

    def column(self, heading: str) -> list[tuple[str, float]]:
        """The names and values of a column, where there are any."""
        at = [name for name, _ in self.columns].index(heading)
        return [(name, found) for name, row in self.rows if (found := row[at]) is not None]

    def text(self) -> str:
        cells = [[heading for heading, _ in self.columns]]
        for _, values in self.rows:
            cells.append([_cell(value, unit) for value, (_, unit) in zip(values, self.columns)])
        widths = [max(map(len, column)) for column in zip(*cells)]
        first = max(len(name) for name, _ in self.rows) if self.rows else 0
        lines = [self.title]
        for name, row in zip(["", *(name for name, _ in self.rows)], cells):
            line = "".join(f"  {cell:>{width}}" for cell, width in zip(row, widths))
            lines.append(f"{name:{first}}{line}")
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        columns = [{"heading": heading, "unit": unit} for heading, unit in self.columns]
        rows = [{"name": name, "values": values} for name, values in self.rows]
        return {"title": self.title, "columns": columns, "rows": rows, "drawn": self.drawn}


def _cell(value: float | None, unit: str) -> str:
    return "-" if value is None else _FORMATS[unit](value)


class Beside(NamedTuple):
    """A column of ratios to other subjects.

    Attributes:
        heading: Its heading.
        what: "wall", "cpu", or "rate": how many times as many jobs in the same time.
        floors: For each subject the one that it is put beside; those without one have no ratio.
    """

    heading: str
    what: str
    floors: Mapping[str, str]

    def of(self, name: str, results: Results) -> float | None:
        floor = self.floors.get(name)
        if floor not in results:
            return None
        if self.what == "rate":
            return ratio(results[floor], results[name], "wall")
        return ratio(results[name], results[floor], self.what)


def compared(
    title: str,
    results: Results,
    besides: Iterable[Beside],
    *,
    more: Iterable[tuple[str, str, str]] = (),
) -> Table:
    """A table of wall and CPU time by the job, beside those of other subjects.

    Args:
        title: Its title.
        results: What was measured, with `wall` and `cpu` in seconds by the job, and `jobs`.
        besides: Its last columns.
        more: Columns before these: the heading, the unit and the key of each.
    """
    besides, more = list(besides), list(more)
    columns = [("jobs", "n"), ("jobs/s", "n"), ("wall", "us"), ("CPU", "us")]
    columns += [(heading, unit) for heading, unit, _ in more]
    table = Table(title, [*columns, *((each.heading, "x") for each in besides)], drawn="jobs/s")
    for name, found in results.items():
        wall = median(found, "wall")
        table.add(
            name,
            median(found, "jobs"),
            1 / wall,
            wall,
            median(found, "cpu"),
            *(median(found, key) if key in found[0] else None for _, _, key in more),
            *(each.of(name, results) for each in besides),
        )
    return table


def growing(title: str, unit: str, results: Mapping[str, Results]) -> Table:
    """A table of what a job costs at several levels, by subject, and how much more at the last.

    Args:
        title: Its title.
        unit: What the levels count.
        results: By subject, what was measured at each level, with `wall` and `cpu`.
    """
    table = Table(title, [(unit, "n"), ("wall", "us"), ("CPU", "us"), ("growth", "x")])
    for name, levels in results.items():
        first = next(iter(levels.values()))
        for level, found in levels.items():
            growth = ratio(found, first, "cpu")
            table.add(name, float(level), median(found, "wall"), median(found, "cpu"), growth)
    return table
