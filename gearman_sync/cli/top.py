"""``gearmanctl top``: what servers have to do, as it changes.

    a thread for each server: GearmanAdminClient.get_status -> reports
    main thread:              reports, keys -> Board -> the screen

A server that does not answer delays nobody. All that is decided about the lists is in `Board`, and
all that is decided about keys in `View`.
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

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gearman_proto.errors import GearmanError

from . import exits
from .board import Board, Order, Site, sparkline
from .keys import END, raw_keys, read_keys
from .output import complain, printable
from .servers import Servers, for_servers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from gearman_proto import FunctionStatus, ServerAddress
    from gearman_sync import GearmanAdminClient

# Columns of the screen that a queue's history takes, at most and of so many columns of the screen.
_SPARK, _SPARK_SHARE = 40, 4
# Lines for servers at most.
_SITES: Final = 6
# Seconds to wait for an answer before a server counts as down.
_PATIENCE: Final = 5.0

_ORDERS: Final = {
    "f": Order.FUNCTION,
    "j": Order.QUEUED,
    "r": Order.RUNNING,
    "w": Order.WORKERS,
    "s": Order.RATE,
}


@dataclass
class View:
    """What of the board is seen, as keys have it."""

    order: Order = Order.QUEUED
    upside_down: bool = False
    #: The number of the first row.
    first: int = 0
    is_over: bool = False

    def press(self, key: str, page: int) -> None:
        """A key was pressed; a page has so many rows."""
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
        if key in ("q", "Q", END):
            self.is_over = True
        elif key in steps:
            self.first = max(self.first + steps[key], 0)
        elif key in _ORDERS:
            order = _ORDERS[key]
            self.upside_down = order is self.order and not self.upside_down
            self.order = order
            self.first = 0


@for_servers
def top(
    servers: Servers,
    *,
    interval: Annotated[
        float, typer.Option("--interval", "-i", metavar="SECONDS", min=0.1, help="Between looks.")
    ] = 0.5,
) -> int:
    """Show what servers have to do, as it changes.

    Keys: f, j, r, w and s sort by function, jobs, running, workers and jobs/s, and once more the
    other way round; the arrows scroll; q and Ctrl-C quit.

    jobs/s is by how much queues shrink: servers do not count what is done. What comes and goes
    between two looks is not seen.

    Example:
      gearmanctl top -s one:4730 -s two:4730
    """
    if not sys.stdout.isatty():
        raise exits.Exit(exits.USAGE, "top needs a terminal; status does not")
    board = Board(servers.addresses)
    answers = servers.ask_all(lambda client: client.get_status(), _PATIENCE)
    failures = [error for _, error in answers if isinstance(error, GearmanError)]
    if len(failures) == len(answers):
        for error in failures:
            complain(str(error))
        return exits.status_of(failures[0])
    watch = _Watch(servers, interval)
    for address, answer in answers:
        watch.report(address, answer)
    try:
        return _run(board, watch, interval)
    except KeyboardInterrupt:
        return exits.DONE
    finally:
        watch.stop()


class _Watch:
    """Looks at the servers, each in a thread of its own."""

    def __init__(self, servers: Servers, interval: float) -> None:
        #: What was seen, and when.
        self.reports: queue.SimpleQueue[
            tuple[ServerAddress, float, Sequence[FunctionStatus] | GearmanError]
        ] = queue.SimpleQueue()
        #: Readable when there are reports.
        self.bell, self._ringer = os.pipe()
        self._interval = interval
        self._over = threading.Event()
        self._clients = [
            (address, servers.admin_client(address, _PATIENCE)) for address in servers.addresses
        ]
        self._threads = [
            threading.Thread(target=self._look, args=client, daemon=True)
            for client in self._clients
        ]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        for _, client in self._clients:
            client.shutdown()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        os.close(self.bell)
        os.close(self._ringer)

    def report(
        self, address: ServerAddress, answer: Sequence[FunctionStatus] | GearmanError
    ) -> None:
        """Pass on an answer."""
        self.reports.put((address, time.monotonic(), answer))
        os.write(self._ringer, b"\0")

    def _look(self, address: ServerAddress, client: GearmanAdminClient) -> None:
        while not self._over.wait(self._interval):
            answer: Sequence[FunctionStatus] | GearmanError
            try:
                answer = client.get_status()
            except GearmanError as error:
                answer = error
            if not self._over.is_set():
                self.report(address, answer)


def _run(board: Board, watch: _Watch, interval: float) -> int:
    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt  # The terminal is to be left as it was.

    view = View()
    console = Console()
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        with (
            raw_keys() as keys,
            selectors.DefaultSelector() as selector,
            Live(
                console=console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live,
        ):
            watch.start()
            selector.register(watch.bell, selectors.EVENT_READ)
            if keys is not None:
                selector.register(keys, selectors.EVENT_READ)
            remembered = float("-inf")
            while not view.is_over:
                for key, _ in selector.select(interval):
                    if key.fd == watch.bell:
                        os.read(watch.bell, 4096)
                        _take(board, watch)
                    else:
                        for pressed in read_keys(key.fd):
                            view.press(pressed, max(console.height // 2, 1))
                if time.monotonic() >= remembered + interval:
                    remembered = time.monotonic()
                    board.remember()
                live.update(screen(board, view, console.width, console.height), refresh=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    return exits.DONE


def _take(board: Board, watch: _Watch) -> None:
    while not watch.reports.empty():
        address, now, answer = watch.reports.get()
        if isinstance(answer, GearmanError):
            board.failed(address, str(answer))
        else:
            board.answered(address, answer, now)


# The screen.


def screen(board: Board, view: View, width: int, height: int) -> Group:
    """The board as a screen of so many columns and lines."""
    rows = board.rows(view.order, upside_down=view.upside_down)
    head = _head(board)
    # Beside the rows: their heading, and the keys.
    room = max(height - len(head) - 2, 1)
    view.first = max(min(view.first, len(rows) - room), 0)
    spark = min(width // _SPARK_SHARE, _SPARK)
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False)
    arrow = "▴" if view.upside_down != (view.order is Order.FUNCTION) else "▾"
    for order, title in (
        (Order.FUNCTION, "function"),
        (Order.QUEUED, "jobs"),
        (Order.RUNNING, "running"),
        (Order.WORKERS, "workers"),
        (Order.RATE, "jobs/s"),
    ):
        is_name = order is Order.FUNCTION
        table.add_column(
            Text(f"{title}{arrow if order is view.order else ''}"),
            justify="left" if is_name else "right",
            ratio=1 if is_name else None,
            min_width=None if is_name else 8,
            no_wrap=True,
            overflow="ellipsis",
            header_style="reverse" if order is view.order else "bold",
        )
    table.add_column("queue", width=spark, no_wrap=True, header_style="bold")
    for row in rows[view.first : view.first + room]:
        table.add_row(
            Text(printable(row.task)),
            f"{row.queued:,}",
            f"{row.running:,}",
            Text(f"{row.workers:,}", style="" if row.workers or not row.queued else "red"),
            f"{row.rate:,.1f}",
            Text(sparkline(board.history.get(row.task, ()), spark).rjust(spark), style="cyan"),
        )
    lines = [_line(text) for text in head]
    blank = [Text("")] * (room - min(len(rows) - view.first, room))
    more = len(rows) - view.first - room
    keys = "sort: f j r w s   scroll: ↑ ↓   quit: q"
    foot = _line(Text(f"{keys}{f'   {more:,} more' if more > 0 else ''}", style="dim"))
    return Group(*lines, table, *blank, foot)


def _head(board: Board) -> list[Text]:
    """What there is to say of the servers."""
    sites = list(board.sites.items())
    if len(sites) > _SITES:
        # Those that do not answer are the ones to see.
        sites.sort(key=lambda item: not item[1].error)
    shown = sites if len(sites) <= _SITES else sites[: _SITES - 1]
    texts = [_site_text(str(name), site) for name, site in shown]
    if len(shown) < len(sites):
        texts.append(Text(f"and {len(sites) - len(shown)} more servers"))
    return texts


def _site_text(name: str, site: Site) -> Text:
    if site.error:
        return Text(f"{name}  {printable(site.error)}", style="red")
    if site.looked is None:
        return Text(f"{name}  …")
    functions = site.functions.values()
    queued, running = (sum(getattr(f, what) for f in functions) for what in ("queued", "running"))
    return Text(f"{name}  functions: {len(functions):,}  jobs: {queued:,}  running: {running:,}")


def _line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
