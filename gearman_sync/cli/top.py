"""``gearmanctl top``: shows the load of servers and refreshes it continuously.

    a thread for each server: GearmanAdminClient.get_status -> reports
    main thread:              reports, keys -> Board -> the screen

A server that does not answer delays no other. `Board` contains all logic about the lists, and
`View` all logic about keys.
"""

from __future__ import annotations

import os
import queue
import selectors
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gearman_proto.errors import GearmanError
from gearman_proto.printable import printable
from gearman_proto.signals import handled
from gearman_sync import GearmanAdminClient
from gearman_sync._leader import sleep_until

from . import exits
from .board import Board, Order, Row, Site, sparkline
from .keys import END, Keys, raw_keys
from .options import Servers, seconds, with_options
from .output import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto import FunctionStatus, ServerAddress

    _Answer = Sequence[FunctionStatus] | GearmanError

# Width of a queue's history: at most this many columns, and this fraction of the screen.
_SPARK, _SPARK_SHARE = 40, 4
# Minimum width of a name and of a number. Numbers that do not fit are left out.
_NAME, _NUMBER = 16, 9
# Maximum number of lines for servers.
_SITES: Final = 6
# Seconds to wait for an answer before a server counts as down.
_PATIENCE: Final = 5.0

# Not all platforms have all of these signals.
_ENDS: Final = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_SUSPENDS: Final[signal.Signals | None] = getattr(signal, "SIGTSTP", None)
_RESIZES: Final[signal.Signals | None] = getattr(signal, "SIGWINCH", None)

_ORDERS: Final = {
    "f": Order.FUNCTION,
    "j": Order.QUEUED,
    "r": Order.RUNNING,
    "w": Order.WORKERS,
    "s": Order.RATE,
}


@dataclass
class View:
    """The visible part of the board, as selected with keys."""

    order: Order = Order.QUEUED
    is_reversed: bool = False
    #: The index of the first visible row.
    first: int = 0
    is_finished: bool = False
    #: True if the user has asked to suspend the program.
    is_suspended: bool = False

    def press(self, key: str, page: int) -> None:
        """Handle a key. A page has `page` rows."""
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
        if key in ("q", "Q", END):
            self.is_finished = True
        elif key in steps:
            self.first = max(self.first + steps[key], 0)
        elif key in _ORDERS:
            order = _ORDERS[key]
            self.is_reversed = order is self.order and not self.is_reversed
            self.order = order
            self.first = 0


@with_options
def top(
    servers: Servers,
    *,
    interval: Annotated[
        float, seconds("Time between two requests.", "--interval", "-i", least=0.1)
    ] = 0.5,
) -> int:
    """Monitor the queues of servers, as they change.

    Keys: f, j, r, w and s sort by function, jobs, running, workers and jobs/s, and once more the
    other way round; the arrows scroll; q and Ctrl-C quit.

    jobs/s is the rate at which queues shrink, because servers do not count finished jobs. Jobs
    that arrive and finish between two requests are not counted.

    Example:
      gearmanctl top -s one:4730 -s two:4730
    """
    # Forced, so that writing fails when the terminal is closed.
    console = Console(force_terminal=True)
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        raise exits.Exit(exits.USAGE, "top needs a terminal; status does not")
    board = Board(servers.addresses)
    answers = servers.ask_all(lambda client: client.get_status(), _PATIENCE)
    failures = [error for _, error in answers if isinstance(error, GearmanError)]
    if len(failures) == len(answers):
        for error in failures:
            complain(str(error))
        return exits.status_of(failures[0])
    poller = _Poller(servers, interval)
    for address, answer in answers:
        poller.report(address, answer)
    try:
        return _Screen(console, board, poller, interval).run()
    except KeyboardInterrupt:
        return exits.DONE
    finally:
        poller.stop()


class _Poller:
    """Polls each server in its own thread."""

    def __init__(self, servers: Servers, interval: float) -> None:
        #: (server, time, answer).
        self.reports: queue.SimpleQueue[tuple[ServerAddress, float, _Answer]] = queue.SimpleQueue()
        #: The read end of a pipe, readable when there are reports.
        self.bell, self._ringer = os.pipe()
        self._interval = interval
        self._stopped = threading.Event()
        self._clients = [
            (address, GearmanAdminClient([address], _PATIENCE)) for address in servers.addresses
        ]
        self._threads = [
            threading.Thread(target=self._poll, args=client, daemon=True)
            for client in self._clients
        ]

    def start(self) -> None:
        """Start polling."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()
        for _, client in self._clients:
            client.shutdown()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        os.close(self.bell)
        os.close(self._ringer)

    def report(self, address: ServerAddress, answer: _Answer) -> None:
        """Queue an answer for the main thread."""
        self.reports.put((address, time.monotonic(), answer))
        self.ring()

    def ring(self) -> None:
        """Wake the thread that waits for the bell."""
        os.write(self._ringer, b"\0")

    def _poll(self, address: ServerAddress, client: GearmanAdminClient) -> None:
        while not self._stopped.wait(self._interval):
            try:
                answer: _Answer = client.get_status()
            except GearmanError as error:
                answer = error
            if not self._stopped.is_set():
                self.report(address, answer)


class _Screen:
    """Shows a board on the terminal until the user quits."""

    def __init__(self, console: Console, board: Board, poller: _Poller, interval: float) -> None:
        self._console = console
        self._board = board
        self._poller = poller
        self._interval = interval
        self._view = View()
        # When to sample the queues again.
        self._next = time.monotonic()

    def run(self) -> int:
        """Run until the user quits, then restore the terminal. Return the exit status."""
        signals = filter(None, (*_ENDS, _SUSPENDS, _RESIZES))
        with handled(signals, self._on_signal):
            self._poller.start()
            while not self._view.is_finished:
                live = Live(
                    console=self._console,
                    screen=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                with raw_keys() as keys, live:
                    self._show(keys, live)
                if self._view.is_suspended and not self._view.is_finished:
                    self._view.is_suspended = False
                    _suspend()
        return exits.DONE

    def _show(self, keys: Keys | None, live: Live) -> None:
        view, console = self._view, self._console
        with selectors.DefaultSelector() as selector:
            selector.register(self._poller.bell, selectors.EVENT_READ)
            if keys is not None:
                selector.register(keys.descriptor, selectors.EVENT_READ)
            while not (view.is_finished or view.is_suspended):
                self._process_reports()
                if time.monotonic() >= self._next:
                    self._next = time.monotonic() + self._interval
                    self._board.remember()
                live.update(screen(self._board, view, console.width, console.height), refresh=True)
                for ready, _ in selector.select(sleep_until(self._next)):
                    if ready.fd == self._poller.bell:
                        os.read(self._poller.bell, 4096)
                    elif keys is not None:
                        for key in keys.read():
                            view.press(key, max(console.height // 2, 1))

    def _process_reports(self) -> None:
        """Process the reports of the servers."""
        while not self._poller.reports.empty():
            address, now, answer = self._poller.reports.get()
            if isinstance(answer, GearmanError):
                self._board.failed(address, str(answer))
            else:
                self._board.answered(address, answer, now)

    def _on_signal(self, number: int) -> None:
        """Let a signal end the program, but only where the terminal gets restored."""
        if number in _ENDS:
            self._view.is_finished = True
        elif number == _SUSPENDS:
            self._view.is_suspended = True
        self._poller.ring()


def _suspend() -> None:
    """Stop the process as the default handler would, until the shell continues it."""
    assert _SUSPENDS is not None
    handler = signal.signal(_SUSPENDS, signal.SIG_DFL)
    signal.raise_signal(_SUSPENDS)
    signal.signal(_SUSPENDS, handler)


# Drawing the screen.

_NUMBERS: Final = (
    (Order.QUEUED, "jobs"),
    (Order.RUNNING, "running"),
    (Order.WORKERS, "workers"),
    (Order.RATE, "jobs/s"),
)
_QUEUE: Final = "queue"


def screen(board: Board, view: View, width: int, height: int) -> Group:
    """Draw the board as a screen of `width` columns and `height` lines."""
    rows = board.rows(view.order, is_reversed=view.is_reversed)
    # The heading and the list of keys occupy the rest.
    head = _head(board)[: max(height - 3, 0)]
    room = max(height - len(head) - 2, 1)
    view.first = max(min(view.first, len(rows) - room), 0)
    numbers = _NUMBERS[: max((width - _NAME) // _NUMBER, 1)]
    spark = min(width // _SPARK_SHARE, _SPARK, width - _NAME - _NUMBER * len(_NUMBERS))
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False)
    arrow = "▴" if view.is_reversed != (view.order is Order.FUNCTION) else "▾"
    for order, title in ((Order.FUNCTION, "function"), *numbers):
        is_name = order is Order.FUNCTION
        table.add_column(
            Text(f"{title}{arrow if order is view.order else ''}"),
            justify="left" if is_name else "right",
            ratio=1 if is_name else None,
            min_width=None if is_name else _NUMBER - 1,
            no_wrap=True,
            overflow="ellipsis",
            header_style="reverse" if order is view.order else "bold",
        )
    has_spark = spark >= len(_QUEUE)
    if has_spark:
        table.add_column(_QUEUE, width=spark, no_wrap=True, header_style="bold")
    for row in rows[view.first : view.first + room]:
        cells = [Text(printable(row.task)), *(_number(row, order) for order, _ in numbers)]
        if has_spark:
            line = sparkline(board.history.get(row.task, ()), spark)
            cells.append(Text(line.rjust(spark), style="cyan"))
        table.add_row(*cells)
    lines = [_line(text) for text in head]
    blank = [Text("")] * (room - min(len(rows) - view.first, room))
    more = len(rows) - view.first - room
    keys = "sort: f j r w s   scroll: ↑ ↓   quit: q"
    foot = _line(Text(f"{keys}{f'   {more:,} more' if more > 0 else ''}", style="dim"))
    return Group(*lines, table, *blank, foot)


def _number(row: Row, order: Order) -> Text:
    if order is Order.RATE:
        return Text(f"{row.rate:,.1f}")
    is_stuck = order is Order.WORKERS and row.queued and not row.workers
    return Text(f"{getattr(row, order.value):,}", style="red" if is_stuck else "")


def _head(board: Board) -> list[Text]:
    """Return the lines about the servers."""
    sites = list(board.sites.items())
    if len(sites) > _SITES:
        # Show failing servers first.
        sites.sort(key=lambda item: not item[1].error)
    seen = sites if len(sites) <= _SITES else sites[: _SITES - 1]
    texts = [_site_text(printable(str(name)), site) for name, site in seen]
    if len(seen) < len(sites):
        texts.append(Text(f"and {len(sites) - len(seen)} more servers"))
    return texts


def _site_text(name: str, site: Site) -> Text:
    if site.error:
        return Text(f"{name}  {printable(site.error)}", style="red")
    if site.last_answer is None:
        return Text(f"{name}  …")
    functions = site.functions.values()
    queued, running = (sum(getattr(f, what) for f in functions) for what in ("queued", "running"))
    return Text(f"{name}  functions: {len(functions):,}  jobs: {queued:,}  running: {running:,}")


def _line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
