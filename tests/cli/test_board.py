"""The model, the key handling and the drawing of `gearmanctl top`, without a terminal."""

from __future__ import annotations

import io
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
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

LEVELS = "▁▂▃▄▅▆▇█"


def function(task: str, queued: int = 0, running: int = 0, workers: int = 0) -> FunctionStatus:
    return FunctionStatus(task=task, queued=queued, running=running, workers=workers)


def board_of(*functions: FunctionStatus) -> Board:
    board = Board(["one"])
    board.answered("one", functions, 0.0)
    return board


def tasks(board: Board, order: Order, *, is_reversed: bool = False) -> str:
    return " ".join(row.task for row in board.rows(order, is_reversed=is_reversed))


def rate(board: Board, task: str) -> float:
    return {row.task: row.rate for row in board.rows(Order.FUNCTION)}[task]


# The order of rows.


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.FUNCTION, "a b c d"),
        (Order.QUEUED, "c a d b"),
        (Order.RUNNING, "b d a c"),
        (Order.WORKERS, "d c b a"),
    ],
)
def test_rows_are_sorted_by_name_or_the_largest_first(order: Order, expected: str) -> None:
    board = board_of(
        function("b", 1, 9, 2),
        function("d", 2, 8, 9),
        function("a", 3, 2, 1),
        function("c", 9, 1, 3),
    )
    assert tasks(board, order) == expected
    assert tasks(board, order, is_reversed=True) == expected[::-1]


def test_rows_are_sorted_by_rate() -> None:
    board = board_of(function("a", 10), function("b", 10), function("c", 10))
    board.answered("one", [function("a", 9), function("b", 2), function("c", 10)], 1.0)
    assert tasks(board, Order.RATE) == "b a c"
    assert tasks(board, Order.RATE, is_reversed=True) == "c a b"


@pytest.mark.parametrize("order", [Order.QUEUED, Order.RUNNING, Order.WORKERS, Order.RATE])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_equal_rows_are_sorted_by_name(order: Order, is_reversed: bool) -> None:
    board = board_of(*(function(task, 1, 1, 1) for task in "bdac"))
    assert tasks(board, order, is_reversed=is_reversed) == "a b c d"


def test_rows_add_up_servers() -> None:
    board = Board(["one", "two", "three"])
    board.answered("one", [function("a", 3, 2, 1), function("b", 1)], 0.0)
    board.answered("two", [function("a", 10, 20, 30)], 0.0)
    a, b = board.rows(Order.FUNCTION)
    assert (a.task, a.queued, a.running, a.workers) == ("a", 13, 22, 31)
    assert (b.task, b.queued, b.running, b.workers) == ("b", 1, 0, 0)


def test_board_without_answers_has_no_rows() -> None:
    assert Board(["one"]).rows(Order.QUEUED) == []


# Jobs per second.


def feed(board: Board, name: str, sizes: Iterable[int], start: float = 0.0) -> None:
    """Sample the queue of `a` once per second."""
    for now, size in enumerate(sizes):
        board.answered(name, [function("a", size)], start + now)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10], 0),  # There is no earlier sample.
        ([10, 10], 0),
        ([10, 7], 3),
        ([10, 7, 7], 1.5),
        ([0, 10, 20], 0),  # Submitted jobs do not count as done.
        ([10, 4, 12, 2], (6 + 10) / 3),
        ([60, 50, 40, 30, 20, 10], 10),
        ([100, 60, 50, 40, 30, 20, 10], 10),  # The first sample is older than the window.
        ([100, 0, 0, 0, 0, 0], 100 / 5),
        ([100, 0, 0, 0, 0, 0, 0], 0),
    ],
)
def test_jobs_per_second_is_the_decrease_of_the_queue(sizes: list[int], expected: float) -> None:
    board = Board(["one"])
    feed(board, "one", sizes)
    assert rate(board, "a") == pytest.approx(expected)


def test_rates_add_up_servers() -> None:
    board = Board(["one", "two"])
    feed(board, "one", [10, 7])
    feed(board, "two", [100, 80, 60], start=50.0)
    assert rate(board, "a") == pytest.approx(3 + 20)


def test_jobs_of_a_failed_server_are_not_counted_as_done() -> None:
    board = Board(["one", "two"])
    feed(board, "one", [10, 7])
    feed(board, "two", [100, 80])
    board.failed("two", "refused")
    [row] = board.rows(Order.QUEUED)
    assert row.queued == 7
    assert row.rate == pytest.approx(3)
    assert board.sites["two"].error == "refused"


def test_rate_of_a_restarted_server_starts_again() -> None:
    board = Board(["one"])
    feed(board, "one", [100, 80])
    board.failed("one", "refused")
    assert board.rows(Order.QUEUED) == []
    feed(board, "one", [50], start=10.0)
    assert rate(board, "a") == 0
    assert board.sites["one"].error == ""
    feed(board, "one", [45], start=11.0)
    assert rate(board, "a") == pytest.approx(5)


def test_vanished_function_has_no_row() -> None:
    board = board_of(function("a", 10), function("b", 10))
    board.answered("one", [function("b", 8)], 1.0)
    [row] = board.rows(Order.QUEUED)
    assert row.task == "b"
    assert row.rate == pytest.approx(2)


def test_simultaneous_samples_do_not_divide_by_zero() -> None:
    board = board_of(function("a", 10))
    board.answered("one", [function("a", 5)], 0.0)
    assert rate(board, "a") == 0


def test_samples_older_than_the_window_are_dropped() -> None:
    board = Board(["one"])
    feed(board, "one", range(1000, 0, -1))
    assert len(board.sites["one"].done) <= WINDOW


# The queues' history.


def test_history_adds_up_servers() -> None:
    board = Board(["one", "two"])
    for size in (1, 2, 3):
        board.answered("one", [function("a", size)], float(size))
        board.answered("two", [function("a", 10), function("b")], float(size))
        board.remember()
    assert {task: list(sizes) for task, sizes in board.history.items()} == {
        "a": [11, 12, 13],
        "b": [0, 0, 0],
    }


def test_history_of_a_vanished_function_is_dropped() -> None:
    board = board_of(function("a", 1), function("b", 2))
    board.remember()
    board.answered("one", [function("b", 3)], 1.0)
    board.remember()
    assert {task: list(sizes) for task, sizes in board.history.items()} == {"b": [2, 3]}


def test_history_is_bounded() -> None:
    board = board_of(function("a", 1))
    for _ in range(HISTORY + 10):
        board.remember()
    assert len(board.history["a"]) == HISTORY


@pytest.mark.parametrize(
    ("sizes", "width", "expected"),
    [
        ([], 5, ""),
        ([0, 0], 5, "▁▁"),
        ([7], 5, "█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, LEVELS),
        ([0, 1, 1000], 5, "▁▂█"),
        ([1000, 0, 1, 2], 3, "▁▅█"),
        ([1, 2], 0, ""),
    ],
)
def test_sparkline_scales_to_the_largest_size(sizes: list[int], width: int, expected: str) -> None:
    assert sparkline(sizes, width) == expected


@given(st.lists(st.integers(0, 10**20)), st.integers(-5, 300))
def test_any_sparkline_marks_empty_and_largest_sizes(sizes: list[int], width: int) -> None:
    line = sparkline(sizes, width)
    shown = sizes[-width:] if width > 0 else []
    assert len(line) == len(shown)
    for size, level in zip(shown, line):
        assert (level == LEVELS[0]) == (size == 0)
        assert (level == LEVELS[-1]) or size < max(shown) or size == 0
    for (size, level), (other, its_level) in itertools.pairwise(sorted(zip(shown, line))):
        assert size <= other
        assert LEVELS.index(level) <= LEVELS.index(its_level)


# Keys.


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"fjr", ["f", "j", "r"]),
        (b"\x1b[A\x1b[B\x1b[5~\x1b[6~", ["up", "down", "page up", "page down"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),  # The keypad is in application mode.
        (b"j\x1b[Bq", ["j", "down", "q"]),
        (b"\x1b[1;5A", []),  # Ctrl-Up has no name.
        (b"\x1b[15~\x1bOP\x1b[3~", []),
        (b"\x1b[<0;1;1Mw", ["w"]),
        (b"\x1bq", ["\x1b", "q"]),  # Escape, then q.
        (b"\x1b\x1b[A", ["\x1b", "up"]),
        (b"\xff\x00", ["\xff", "\x00"]),
    ],
)
def test_bytes_are_parsed_as_keys(data: bytes, keys: list[str]) -> None:
    assert Keys(0).parse(data) == keys


@pytest.mark.parametrize(
    ("chunks", "keys"),
    [
        ([b"\x1b[", b"A"], ["up"]),
        ([b"\x1b[5", b"~q"], ["page up", "q"]),
        ([b"j\x1bO", b"B"], ["j", "down"]),
        ([b"\x1b[1;", b"5", b"Q"], []),  # This is not the key Q.
        ([b"\x1b", b"q"], ["\x1b", "q"]),  # Escape is a key too, and is not held back.
    ],
)
def test_key_sequence_in_pieces_is_one_key(chunks: list[bytes], keys: list[str]) -> None:
    parser = Keys(0)
    assert [key for chunk in chunks for key in parser.parse(chunk)] == keys


@given(st.lists(st.binary()))
def test_any_bytes_are_handled_without_an_error(chunks: list[bytes]) -> None:
    keys = Keys(0)
    view = View()
    for chunk in chunks:
        for key in keys.parse(chunk):
            view.press(key, 10)


def test_end_of_input_is_a_key() -> None:
    reader, writer = os.pipe()
    keys = Keys(reader)
    os.write(writer, b"r")
    assert keys.read() == ["r"]
    os.close(writer)
    assert keys.read() == [END]
    os.close(reader)
    assert keys.read() == [END]  # A closed terminal raises EIO.


@pytest.mark.parametrize("key", ["q", "Q", END])
def test_key_finishes_the_view(key: str) -> None:
    view = View()
    view.press(key, 10)
    assert view.is_finished


def test_sort_key_pressed_again_reverses_the_order() -> None:
    view = View()
    seen = []
    for key in "jjfffw":
        view.press(key, 10)
        seen.append((view.order, view.is_reversed))
    assert seen == [
        (Order.QUEUED, True),  # The initial order is by queue size.
        (Order.QUEUED, False),
        (Order.FUNCTION, False),
        (Order.FUNCTION, True),
        (Order.FUNCTION, False),
        (Order.WORKERS, False),
    ]


def test_change_of_the_order_scrolls_to_the_top() -> None:
    view = View()
    for key in ("down", "down", "page down", "up", "x", "\x1b"):
        view.press(key, 10)
    assert view.first == 11
    view.press("page up", 10)
    view.press("page up", 10)
    assert view.first == 0
    view.press("down", 10)
    view.press("r", 10)
    assert view.first == 0


# The screen.


def draw(board: Board, view: View, width: int, height: int) -> list[list[Segment]]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    lines = console.render_lines(screen(board, view, width, height), pad=False)
    assert len(lines) <= height, lines
    assert all(Segment.get_line_length(line) <= width for line in lines), lines
    return lines


def text_of(lines: list[list[Segment]]) -> list[str]:
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def shown(board: Board, view: View, width: int = 80, height: int = 24) -> list[str]:
    return text_of(draw(board, view, width, height))


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


def test_foot_counts_the_rows_below() -> None:
    board = board_of(*(function(f"task-{number:02}", 100 - number) for number in range(40)))
    view = View()
    lines = shown(board, view, height=13)
    assert [line.split()[0] for line in lines[2:-1]] == [f"task-{n:02}" for n in range(10)]
    assert lines[-1].endswith("   30 more")
    for _ in range(50):
        view.press("down", 10)
    lines = shown(board, view, height=13)
    assert [line.split()[0] for line in lines[2:-1]] == [f"task-{n:02}" for n in range(30, 40)]
    assert "more" not in lines[-1]
    # Scrolling has stopped at the end.
    view.press("up", 10)
    assert shown(board, view, height=13)[2].split()[0] == "task-29"


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ("", "jobs▾"),
        ("j", "jobs▴"),
        ("f", "function▴"),
        ("ff", "function▾"),
        ("r", "running▾"),
        ("w", "workers▾"),
        ("s", "jobs/s▾"),
        ("ss", "jobs/s▴"),
    ],
)
def test_heading_marks_the_sort_column(keys: str, title: str) -> None:
    view = View()
    for key in keys:
        view.press(key, 10)
    heading = shown(board_of(function("a")), view)[1].split()
    assert [word for word in heading if word[-1] in "▾▴"] == [title]


def test_jobs_without_a_worker_are_marked() -> None:
    board = board_of(function("idle"), function("stuck", 1), function("fine", 1, 0, 1))
    marked = {
        row[0].text.split()[0]
        for row in draw(board, View(), 80, 24)[2:5]
        if any(
            segment.style and segment.style.color and "red" in str(segment.style) for segment in row
        )
    }
    assert marked == {"stuck"}


def test_failing_servers_are_shown_first() -> None:
    board = Board([f"host{number}" for number in range(20)])
    for number in range(20):
        if number == 13:
            board.failed("host13", "refused")
        else:
            board.answered(f"host{number}", [], 0.0)
    lines = shown(board, View())
    assert lines[0] == "host13  refused"
    assert lines[4].startswith("host3 ")
    assert lines[5] == "and 15 more servers"


def test_name_with_control_characters_is_escaped() -> None:
    board = board_of(function("\x1b[2J\x07\r\n\x9b0m\u202e[bold]x[/]\udcff"))
    board.failed("one", "\x1b[31mno\n")
    assert shown(board, View())[0] == r"one  \x1b[31mno\n"
    board.answered("one", [function("\x1b[2J\r\n[bold]x[/]\udcff")], 0.0)
    assert shown(board, View(), 120)[2].startswith(r"\x1b[2J\r\n[bold]x[/]\xff ")


def test_wide_characters_take_two_columns() -> None:
    lines = draw(board_of(function("仕事" * 60), function("e\u0301" * 200)), View(), 80, 24)
    assert [Segment.get_line_length(line) for line in lines[2:4]] == [80, 80]
    assert "…" in text_of(lines)[2]


@pytest.mark.parametrize(
    ("width", "heading"),
    [
        (70, "function jobs▾ running workers jobs/s queue"),
        (53, "function jobs▾ running workers jobs/s"),
        (51, "function jobs▾ running workers"),
        (40, "function jobs▾ running"),
        (20, "function jobs▾"),
    ],
)
def test_narrow_terminal_keeps_the_name(width: int, heading: str) -> None:
    lines = shown(board_of(function("resize")), View(), width)
    assert " ".join(lines[1].split()) == heading
    assert lines[2].startswith("resize")


names = st.one_of(
    st.text(min_size=1, max_size=20),
    st.text(st.characters(), min_size=1, max_size=5).map(lambda text: text * 40),
    st.text("仕事e\u0301\u200d👩🏽\u202e\x1b[\t\n\x7f\x9b\udc80a ", min_size=1, max_size=200),
)
functions = st.builds(function, names, *(st.integers(0, 10**12) for _ in range(3)))
sites = st.dictionaries(
    names, st.one_of(st.none(), names, st.lists(functions, max_size=70)), min_size=1, max_size=9
)


# The test draws many screens, and the time for that depends on the machine's load.
@settings(deadline=None)
@given(
    sites,
    st.integers(20, 200),
    st.integers(4, 60),
    st.lists(st.sampled_from(["up", "down", "page down", *"fjrws"]), max_size=5),
)
def test_any_screen_is_no_larger_than_the_terminal(
    sites: dict[str, Any], width: int, height: int, keys: list[str]
) -> None:
    board = Board(sites)
    for now in (0.0, 0.7):
        for name, what in sites.items():
            if isinstance(what, str):
                board.failed(name, what)
            elif what is not None:
                board.answered(name, what, now)
        board.remember()
    view = View()
    for key in keys:
        view.press(key, 10)
        lines = draw(board, view, width, height)
        for line in lines:
            text = "".join(segment.text for segment in line)
            assert text.isprintable(), text
