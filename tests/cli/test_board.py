"""The model, the key handling and the drawing of `gearmanctl top`, without a terminal."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gearman_proto import FunctionStatus

pytest.importorskip("rich")
pytest.importorskip("typer")

from rich.console import Console
from rich.segment import Segment

from gearman_sync.cli.board import HISTORY, WINDOW, Board, Order, sparkline
from gearman_sync.cli.keys import END, Keys
from gearman_sync.cli.top import View, screen

if TYPE_CHECKING:
    from collections.abc import Iterable


def function(task: str, queued: int = 0, running: int = 0, workers: int = 0) -> FunctionStatus:
    return FunctionStatus(task=task, queued=queued, running=running, workers=workers)


def board_of(*functions: FunctionStatus) -> Board:
    board = Board(["one"])
    board.answered("one", functions, 0.0)
    return board


def feed(board: Board, name: str, sizes: Iterable[int], start: float = 0.0) -> None:
    """Sample the queue of `a` once per second."""
    for now, size in enumerate(sizes):
        board.answered(name, [function("a", size)], start + now)


def rate(board: Board, task: str = "a") -> float:
    return {row.task: row.rate for row in board.rows(Order.FUNCTION)}[task]


@pytest.mark.parametrize(
    ("order", "expected", "backwards"),
    [
        (Order.FUNCTION, "abcd", "dcba"),
        (Order.QUEUED, "cadb", "bdac"),
        (Order.RUNNING, "bdac", "cadb"),
        (Order.WORKERS, "dcab", "abcd"),  # a and b are equal, so their names decide.
        (Order.RATE, "bacd", "cdab"),
    ],
)
def test_rows_are_sorted_by_name_or_the_largest_first(
    order: Order, expected: str, backwards: str
) -> None:
    board = board_of(function("a", 4), function("b", 5), function("c", 9))
    functions = [("b", 1, 9, 1), ("d", 2, 8, 9), ("a", 3, 2, 1), ("c", 9, 1, 3)]
    board.answered("one", [function(*values) for values in functions], 1.0)
    assert "".join(row.task for row in board.rows(order)) == expected
    assert "".join(row.task for row in board.rows(order, is_reversed=True)) == backwards


# Jobs per second.


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10], 0),  # There is no earlier sample.
        ([10, 10], 0),
        ([10, 7], 3),
        ([10, 7, 7], 1.5),
        ([0, 10, 20], 0),  # Submitted jobs do not count as done.
        ([10, 4, 12, 2], (6 + 10) / 3),
        ([100, 60, 50, 40, 30, 20, 10], 10),  # The first sample is older than the window.
        ([100, 0, 0, 0, 0, 0], 100 / 5),
        ([100, 0, 0, 0, 0, 0, 0], 0),
    ],
)
def test_jobs_per_second_is_the_decrease_of_the_queue(sizes: list[int], expected: float) -> None:
    board = Board(["one"])
    feed(board, "one", sizes)
    assert rate(board) == pytest.approx(expected)


def test_rows_and_rates_add_up_servers_without_those_that_failed() -> None:
    board = Board(["one", "two", "three"])
    feed(board, "one", [10, 7])
    feed(board, "two", [100, 80, 60], start=50.0)
    assert rate(board) == pytest.approx(3 + 20)
    board.answered("two", [function("a", 60, 5, 9), function("b", 1)], 53.0)
    a, b = board.rows(Order.FUNCTION)
    assert (a.queued, a.running, a.workers, b.queued) == (67, 5, 9, 1)
    board.failed("two", "refused")
    assert board.sites["two"].error == "refused"
    (row,) = board.rows(Order.QUEUED)
    assert row.queued == 7
    assert row.rate == pytest.approx(3)
    # The rate of a restarted server starts again.
    feed(board, "two", [50], start=60.0)
    assert rate(board) == pytest.approx(3)
    assert board.sites["two"].error == ""
    feed(board, "two", [45], start=61.0)
    assert rate(board) == pytest.approx(3 + 5)


def test_vanished_function_has_neither_row_nor_history() -> None:
    board = board_of(function("a", 10), function("b", 10))
    board.remember()
    board.answered("one", [function("b", 8)], 1.0)
    (row,) = board.rows(Order.QUEUED)
    assert row.task == "b"
    assert row.rate == pytest.approx(2)
    board.remember()
    assert {task: [*sizes] for task, sizes in board.history.items()} == {"b": [10, 8]}


def test_samples_and_history_are_bounded() -> None:
    board = Board(["one"])
    for size in range(1000, 0, -1):
        feed(board, "one", [size], start=1000.0 - size)
        board.remember()
    assert len(board.sites["one"].done) <= WINDOW
    assert list(board.history["a"]) == list(range(HISTORY, 0, -1))


@pytest.mark.parametrize(
    ("sizes", "width", "expected"),
    [
        ([], 5, ""),
        ([0, 0], 5, "▁▁"),
        ([7], 5, "█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 1, 10**20], 5, "▁▂█"),
        ([1000, 0, 1, 2], 3, "▁▅█"),
        ([1, 2], 0, ""),
    ],
)
def test_sparkline_scales_to_the_largest_size(sizes: list[int], width: int, expected: str) -> None:
    assert sparkline(sizes, width) == expected


# Keys.


@pytest.mark.parametrize(
    ("chunks", "keys"),
    [
        ([b"fjr"], ["f", "j", "r"]),
        ([b"\x1b[A\x1b[B\x1b[5~\x1b[6~"], ["up", "down", "page up", "page down"]),
        ([b"\x1bOA\x1bOB"], ["up", "down"]),  # The keypad is in application mode.
        ([b"j\x1b[Bq"], ["j", "down", "q"]),
        ([b"\x1b[1;5A\x1b[15~\x1bOP\x1b[3~"], []),  # Ctrl-Up, for example, has no name.
        ([b"\x1b[<0;1;1Mw"], ["w"]),
        ([b"\x1bq", b"\x1b", b"q"], ["\x1b", "q"] * 2),  # Escape is a key, and is not held back.
        ([b"\x1b\x1b[A"], ["\x1b", "up"]),
        ([b"\xff\x00"], ["\xff", "\x00"]),
        ([b"\x1b[", b"A", b"\x1b[5", b"~q"], ["up", "page up", "q"]),
        ([b"\x1b[1;", b"5", b"Q"], []),  # This is not the key Q.
    ],
)
def test_bytes_are_parsed_as_keys(chunks: list[bytes], keys: list[str]) -> None:
    parser = Keys(0)
    assert [key for chunk in chunks for key in parser.parse(chunk)] == keys


def test_end_of_input_is_a_key_that_finishes() -> None:
    reader, writer = os.pipe()
    keys = Keys(reader)
    os.write(writer, b"r")
    assert keys.read() == ["r"]
    os.close(writer)
    assert keys.read() == [END]
    os.close(reader)
    assert keys.read() == [END]  # A closed terminal raises EIO.
    for key in ("q", "Q", END):
        assert pressed(key).is_finished


def pressed(*keys: str) -> View:
    view = View()
    for key in keys:
        view.press(key, 10)
    return view


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ("", "jobs▾"),
        ("j", "jobs▴"),
        ("jj", "jobs▾"),
        ("f", "function▴"),
        ("ff", "function▾"),
        ("fj", "jobs▾"),
        ("r", "running▾"),
        ("w", "workers▾"),
        ("ss", "jobs/s▴"),
    ],
)
def test_sort_keys_choose_the_column_and_reverse_it(keys: str, title: str) -> None:
    heading = shown(board_of(function("a")), pressed(*keys))[1].split()
    assert [word for word in heading if word[-1] in "▾▴"] == [title]


@pytest.mark.parametrize(
    ("keys", "first", "foot"),
    [
        ([], 0, "   30 more"),
        (["down", "down", "page down", "up", "x", "\x1b"], 11, "   19 more"),
        (["down", "page up"], 0, "   30 more"),
        (["down"] * 50, 30, "quit: q"),  # Scrolling stops at the end.
        (["down", "r"], 0, "   30 more"),  # Another order starts at the top.
    ],
)
def test_keys_scroll(keys: list[str], first: int, foot: str) -> None:
    board = board_of(*(function(f"task-{number:02}", 100 - number) for number in range(40)))
    lines = shown(board, pressed(*keys), height=13)
    names = [f"task-{number:02}" for number in range(first, first + 10)]
    assert [line.split()[0] for line in lines[2:-1]] == names
    assert lines[-1].endswith(foot)


# The screen.


def draw(board: Board, view: View, width: int, height: int) -> list[list[Segment]]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    lines = console.render_lines(screen(board, view, width, height), pad=False)
    assert len(lines) <= height, lines
    assert all(Segment.get_line_length(line) <= width for line in lines), lines
    return lines


def shown(board: Board, view: View, width: int = 80, height: int = 24) -> list[str]:
    lines = draw(board, view, width, height)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def test_screen_shows_servers_rows_and_keys() -> None:
    board = Board(["one:4730", "two:4730", "three:4730"])
    board.answered("one:4730", [function("resize", 1500, 4, 4), function("mail", 3)], 0.0)
    board.failed("two:4730", "no server could be reached")
    board.remember()
    board.answered("one:4730", [function("resize", 1200, 4, 4), function("mail", 3)], 2.0)
    board.remember()
    assert shown(board, View(), height=10) == [
        "one:4730  functions: 2  jobs: 1,203  running: 4",
        "two:4730  no server could be reached",
        "three:4730  …",
        "function                   jobs▾  running  workers   jobs/s queue",
        "resize                     1,200        4        4    150.0                   █▇",
        "mail                           3        0        0      0.0                   ██",
        "",
        "",
        "",
        "sort: f j r w s   scroll: ↑ ↓   quit: q",
    ]


def test_jobs_without_a_worker_are_marked() -> None:
    board = board_of(function("idle"), function("stuck", 1), function("fine", 1, 0, 1))
    rows = draw(board, View(), 80, 24)[2:5]
    styles = {row[0].text.split()[0]: str([segment.style for segment in row]) for row in rows}
    assert {name for name, style in styles.items() if "red" in style} == {"stuck"}


def test_failing_servers_are_shown_first() -> None:
    board = Board([f"host{number}" for number in range(20)])
    board.failed("host13", "refused")
    lines = shown(board, View())
    assert lines[0] == "host13  refused"
    assert lines[5] == "and 15 more servers"


names = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text("仕事e\u0301\u200d👩🏽\u202e\x1b[\t\n\x7f\x9b\udc80a ", min_size=1, max_size=200),
)
functions = st.builds(function, names, *(st.integers(0, 10**12) for _ in range(3)))
sites = st.dictionaries(
    names, st.one_of(st.none(), names, st.lists(functions, max_size=30)), min_size=1, max_size=9
)
keys = st.lists(st.sampled_from(["up", "down", "page down", *"fjrws"]), max_size=5)


# The test draws many screens, and the time for that depends on the machine's load.
@settings(deadline=None)
@given(sites, st.integers(20, 200), st.integers(4, 60), keys)
# rich 14.3.2 hangs when it shortens a text that begins with a combining character.
@example({"s": [function("\u0301" + 99 * "x")]}, 20, 9, [])
def test_any_screen_is_no_larger_than_the_terminal(
    sites: dict[str, Any], width: int, height: int, keys: list[str]
) -> None:
    board = Board(sites)
    for now in (0.0, 0.0, 0.7):
        for name, what in sites.items():
            if isinstance(what, str):
                board.failed(name, what)
            elif what is not None:
                board.answered(name, what, now)
        board.remember()
    for line in shown(board, pressed(*keys), width, height):
        assert line.isprintable(), line
