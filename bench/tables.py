"""Tables, the result of a benchmark, as text and as JSON."""

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
    "MB": lambda value: f"{value / 1e6:,.1f} MB",
    "x": lambda value: f"{value:.2f} x",
    "": lambda value: f"{value:,.2f}",
    "GB/s": lambda value: f"{value / 1e9:.2f} GB/s",
}


@dataclass
class Table:
    """A table of results.

    Attributes:
        title: The title.
        columns: The heading and the unit of each column. The unit is a key of _FORMATS. Values are
            seconds, bytes or numbers.
        rows: The name and the values of each row. None means no value.
        drawn: The heading of the column to plot, or "".
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[float | None]]] = field(default_factory=list)
    drawn: str = ""

    def add(self, name: str, *values: float | None) -> None:
        self.rows.append((name, list(values)))

    def column(self, heading: str) -> list[tuple[str, float]]:
        """Return the names and values of a column, without rows that have no value there."""
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


class RatioColumn(NamedTuple):
    """A column of ratios to other subjects.

    Attributes:
        heading: The heading.
        what: "wall", "cpu", or "rate" (jobs in the same time).
        baselines: The baseline of each subject. A subject without a baseline has no ratio.
    """

    heading: str
    what: str
    baselines: Mapping[str, str]

    def of(self, name: str, results: Results) -> float | None:
        baseline = self.baselines.get(name)
        if baseline not in results:
            return None
        if self.what == "rate":
            return ratio(results[baseline], results[name], "wall")
        return ratio(results[name], results[baseline], self.what)


def compared(
    title: str,
    results: Results,
    ratio_columns: Iterable[RatioColumn],
    *,
    more: Iterable[tuple[str, str, str]] = (),
) -> Table:
    """Return a table of wall and CPU time per job, with ratios to other subjects.

    Args:
        title: The title.
        results: The figures, with `wall` and `cpu` in seconds per job, and `jobs`.
        ratio_columns: The last columns.
        more: The columns before these: heading, unit and key of each.
    """
    ratio_columns, more = list(ratio_columns), list(more)
    columns = [("jobs", "n"), ("jobs/s", "n"), ("wall", "us"), ("CPU", "us")]
    columns += [(heading, unit) for heading, unit, _ in more]
    table = Table(
        title, [*columns, *((each.heading, "x") for each in ratio_columns)], drawn="jobs/s"
    )
    for name, found in results.items():
        wall = median(found, "wall")
        table.add(
            name,
            median(found, "jobs"),
            1 / wall,
            wall,
            median(found, "cpu"),
            *(median(found, key) if key in found[0] else None for _, _, key in more),
            *(each.of(name, results) for each in ratio_columns),
        )
    return table


def growing(title: str, unit: str, results: Mapping[str, Results]) -> Table:
    """Return a table of the cost of a job at several levels, with its growth to the last level.

    Args:
        title: The title.
        unit: The unit of the levels.
        results: The figures of each subject at each level, with `wall` and `cpu`.
    """
    table = Table(title, [(unit, "n"), ("wall", "us"), ("CPU", "us"), ("growth", "x")])
    for name, levels in results.items():
        first = next(iter(levels.values()))
        for level, found in levels.items():
            growth = ratio(found, first, "cpu")
            table.add(name, float(level), median(found, "wall"), median(found, "cpu"), growth)
    return table
