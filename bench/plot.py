"""Draws tables as bar charts, in an SVG that is readable on light and dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tables import Table

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 13px; font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.page { fill: #ffffff; stroke: #d1d9e0 }
.ours { fill: #1f6feb }
.other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .page { fill: #0d1117; stroke: #3d444d }
  .ours { fill: #4493f8 }
  .other { fill: #59626d }
}
"""
_COLUMN = 510
_MARGIN = 20
_NAMES = 226
_BARS = 180
_ROW = 20
_TITLE = 26
_GAP = 16
_HEAD = 44


def drawn(tables: Sequence[Table], caption: str) -> str:
    """Return an SVG with two columns of panels, one for each table with a column to draw."""
    heights = [_HEAD, _HEAD]
    panels = []
    for table in tables:
        if table.drawn:
            column = heights.index(min(heights))
            panels += _panel(table, _MARGIN + column * _COLUMN, heights[column])
            heights[column] += _TITLE + _ROW * len(table.rows) + _GAP
    width, height = 2 * _COLUMN + _MARGIN, max(heights)
    size = f'width="{width}" height="{height}"'
    page = f'class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size}>',
            "<title>Jobs per second</title>",
            f"<style>{_STYLE}</style>",
            f"<rect {page}/>",
            _text(_MARGIN, 26, "Jobs per second; longer is better", "title"),
            _text(width - _MARGIN, 26, caption, "small", anchor="end"),
            *panels,
            "</svg>\n",
        ]
    )


def _panel(table: Table, left: int, top: int) -> list[str]:
    found = table.column(table.drawn)
    most = max(value for _, value in found)
    parts = [_text(left, top + 16, table.title, "title")]
    for number, (name, value) in enumerate(found):
        y = top + _TITLE + number * _ROW
        size = max(value / most * _BARS, 1)
        # Our own subjects are named after a package or are the server.
        kind = "ours" if name.startswith(("gearman_", "JobServer")) else "other"
        place = f'x="{left + _NAMES}" y="{y + 2}" width="{size:.1f}" height="{_ROW - 5}" rx="2"'
        parts += [
            _text(left + _NAMES - 8, y + 13, name, anchor="end"),
            f'<rect class="{kind}" {place}/>',
            _text(left + _NAMES + size + 6, y + 13, f"{value:,.0f}", "small"),
        ]
    return parts


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{style} text-anchor="{anchor}">{escape(text)}</text>'
