"""`gearmanctl top` in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyte")
pytest.importorskip("rich")
pytest.importorskip("typer")

from gearman_proto.address import parse_address
from gearman_sync import GearmanClient
from gearman_sync.cli import top as top_module
from gearman_sync.cli.options import Servers
from gearman_sync.cli.top import _Poller
from gearman_sync.testing import Peer, ScriptedServer, ScriptedWorker
from tests.support import PATIENCE, Gearmand, eventually, free_port, spawn

from .support import PROGRAM, address_of
from .terminal import CTRL_C, DOWN, PAGE_DOWN, UP, Terminal, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gearman_sync.testing import ScriptedJob

    from .support import Server

HEADING = "function"
ENDS = [pytest.param("q", id="q"), pytest.param(CTRL_C, id="Ctrl-C")]


@pytest.fixture
def server(launch: Callable[[], Server]) -> Server:
    """A server for one test."""
    return launch()


@pytest.fixture
def gearmand() -> Iterator[Gearmand]:
    """A gearmand for one test."""
    server = Gearmand()
    yield server
    server.kill()


def submit(server: Server, **counts: int) -> None:
    """Queue this many jobs of each function."""
    with GearmanClient([server.address]) as client:
        client.submit_multiple_jobs(
            [{"task": task, "data": b""} for task, count in counts.items() for _ in range(count)],
            background=True,
        )


def top(*servers: Server, interval: float = 0.1, **kwargs: object) -> Terminal:
    options = [option for server in servers for option in ("--server", address_of(server))]
    command = (*PROGRAM, "top", "--interval", str(interval), *options)
    return Terminal(*command, **kwargs)  # type: ignore[arg-type]


def rows_of(terminal: Terminal) -> dict[str, list[str]]:
    """Return the cells of each function on the screen, in order.

    The last cell is the queue's history.
    """
    lines = terminal.lines
    begin = next((n for n, line in enumerate(lines) if line.startswith(HEADING)), len(lines))
    rows = (line.split() for line in lines[begin + 1 : -1] if line)
    return {name: rest for name, *rest in rows}


def wait_for_row(terminal: Terminal, name: str, *cells: str) -> None:
    """Wait until a function's row has these cells."""
    terminal.wait_until(
        lambda: rows_of(terminal).get(name, [])[: len(cells)] == list(cells), f"{name} {cells}"
    )


def wait_for_order(terminal: Terminal, title: str, names: str) -> None:
    """Wait until the rows have this order and the heading shows it."""
    terminal.wait_until(
        lambda: title in terminal.text.split() and " ".join(rows_of(terminal)) == names,
        f"{title}: {names}",
    )


class Brake:
    """A worker's function that does as many jobs as the test allows."""

    def __init__(self) -> None:
        self._jobs = threading.Semaphore(0)

    def release(self, count: int) -> None:
        self._jobs.release(count)

    def __call__(self, job: ScriptedJob) -> bytes:
        assert self._jobs.acquire(timeout=PATIENCE)
        return b""


@pytest.fixture
def brake() -> Iterator[Brake]:
    brake = Brake()
    yield brake
    brake.release(100000)


@pytest.fixture
def work(brake: Brake) -> Iterator[Callable[..., None]]:
    """Start a worker for `slow` and other functions."""
    with contextlib.ExitStack() as stack:

        def work(server: Server, *functions: str) -> None:
            names = dict.fromkeys(("slow", *functions), brake)
            stack.callback(ScriptedWorker(server.address, names).stop)

        yield work
        brake.release(100000)


# The screen.


def test_screen_shows_functions_and_servers(server: Server, work: Callable[..., None]) -> None:
    submit(server, resize=3, slow=1200)
    work(server, "idle")
    with top(server) as terminal:
        wait_for_row(terminal, "slow", "1,200", "1", "1", "0.0")
        wait_for_row(terminal, "resize", "3", "0", "0", "0.0")
        wait_for_row(terminal, "idle", "0", "0", "1", "0.0")
        terminal.wait_for("sort: f j r w s   scroll: ↑ ↓   quit: q")
        assert terminal.is_alternate
        lines = terminal.lines
        assert len(lines) == 24
        assert lines[0] == f"{address_of(server)}  functions: 3  jobs: 1,203  running: 1"
        assert lines[1].split() == ["function", "jobs▾", "running", "workers", "jobs/s", "queue"]
        assert list(rows_of(terminal)) == ["slow", "resize", "idle"]
        assert lines[-1] == "sort: f j r w s   scroll: ↑ ↓   quit: q"


def test_rows_add_up_two_servers(launch: Callable[[], Server], work: Callable[..., None]) -> None:
    one, two = launch(), launch()
    submit(one, slow=5)
    submit(two, slow=20, other=1)
    work(two)
    with top(one, two) as terminal:
        wait_for_row(terminal, "slow", "25", "1", "1")
        wait_for_row(terminal, "other", "1", "0", "0")
        assert terminal.lines[:2] == [
            f"{address_of(one)}  functions: 1  jobs: 5  running: 0",
            f"{address_of(two)}  functions: 2  jobs: 21  running: 1",
        ]


def test_environment_names_the_servers(server: Server) -> None:
    submit(server, resize=3)
    env = environment(GEARMAN_SERVERS=address_of(server))
    with Terminal(*PROGRAM, "top", env=env) as terminal:
        wait_for_row(terminal, "resize", "3")


def test_shrinking_queue_has_a_rate_and_a_history(
    server: Server, work: Callable[..., None], brake: Brake
) -> None:
    submit(server, slow=800)
    work(server)
    with top(server, interval=0.2) as terminal:
        wait_for_row(terminal, "slow", "800", "1", "1", "0.0")
        wait_for_sparkline(terminal, "slow", "██$")
        brake.release(400)
        wait_for_row(terminal, "slow", "400", "1", "1")
        # The rate covers the last five seconds at most.
        terminal.wait_until(lambda: rate_of(terminal, "slow") > 0, "jobs/s")
        wait_for_sparkline(terminal, "slow", "█.*▅▅$")
        brake.release(400)
        wait_for_row(terminal, "slow", "0", "0", "1")
        wait_for_sparkline(terminal, "slow", "▅.*▁▁$")


def rate_of(terminal: Terminal, name: str) -> float:
    return float(rows_of(terminal)[name][3].replace(",", ""))


def wait_for_sparkline(terminal: Terminal, name: str, pattern: str) -> None:
    terminal.wait_until(
        lambda: re.search(pattern, rows_of(terminal)[name][-1]), f"{pattern} of {name}"
    )


def test_new_function_appears(server: Server) -> None:
    with top(server) as terminal:
        terminal.wait_for("functions: 0")
        submit(server, resize=2)
        wait_for_row(terminal, "resize", "2")


# Keys.


def test_keys_change_the_order(server: Server, work: Callable[..., None]) -> None:
    # a: the most jobs; slow: the only one that runs; m and slow: with a worker.
    submit(server, a=5, m=1, slow=3)
    work(server, "m", "z")
    running = "m" if server.counts("m")[1] else "slow"
    other = "slow" if running == "m" else "m"
    with top(server) as terminal:
        wait_for_order(terminal, "jobs▾", "a slow m z")
        for key, title, names in [
            ("j", "jobs▴", "z m slow a"),
            ("f", "function▴", "a m slow z"),
            ("f", "function▾", "z slow m a"),
            ("r", "running▾", " ".join([running, *sorted({"a", "z", other})])),
            ("r", "running▴", " ".join([*sorted({"a", "z", other}), running])),
            ("w", "workers▾", "m slow z a"),
            ("w", "workers▴", "a m slow z"),
            ("s", "jobs/s▾", "a m slow z"),
            ("j", "jobs▾", "a slow m z"),
        ]:
            terminal.type(key)
            wait_for_order(terminal, title, names)


def test_sorting_by_jobs_per_second(
    server: Server, work: Callable[..., None], brake: Brake
) -> None:
    submit(server, resize=90, slow=20)
    work(server)
    with top(server) as terminal:
        terminal.type("s")
        wait_for_order(terminal, "jobs/s▾", "resize slow")
        brake.release(10)
        wait_for_order(terminal, "jobs/s▾", "slow resize")


def test_forty_functions_are_scrolled(server: Server) -> None:
    submit(server, **{f"task-{number:02}": 1 for number in range(40)})
    names = [f"task-{number:02}" for number in range(40)]

    def wait_for_rows(first: int, last: int, foot: str) -> None:
        terminal.wait_until(
            lambda: (
                list(rows_of(terminal)) == names[first:last] and terminal.lines[-1].endswith(foot)
            ),
            f"rows {first} to {last}",
        )

    with top(server) as terminal:
        wait_for_rows(0, 21, "   19 more")
        terminal.type(DOWN * 3)
        wait_for_rows(3, 24, "   16 more")
        terminal.type(UP)
        wait_for_rows(2, 23, "   17 more")
        terminal.type(PAGE_DOWN)
        wait_for_rows(14, 35, "   5 more")
        terminal.type(PAGE_DOWN)
        wait_for_rows(19, 40, "quit: q")
        terminal.type(UP)
        wait_for_rows(18, 39, "   1 more")
        terminal.type("f")
        wait_for_rows(0, 21, "   19 more")


def test_other_keys_do_nothing(server: Server) -> None:
    submit(server, a=1, b=2)
    with top(server) as terminal:
        wait_for_order(terminal, "jobs▾", "b a")
        terminal.type("xy\t\n\x1b[1;5A\x1bOP\x1b[15~é")
        terminal.type("f")
        wait_for_order(terminal, "function▴", "a b")


def test_resizing(server: Server) -> None:
    submit(server, **{f"task-{number:02}": 1 for number in range(40)})
    # Only the change of the window's size triggers drawing.
    with top(server, interval=60) as terminal:
        terminal.wait_until(lambda: len(rows_of(terminal)) == 21, "21 rows")
        terminal.resize(100, 40)
        terminal.wait_until(
            lambda: len(rows_of(terminal)) == 37 and terminal.lines[-1].startswith("sort:"),
            "37 rows",
        )
        terminal.resize(50, 10)
        terminal.wait_until(
            lambda: (
                len(rows_of(terminal)) == 7
                and "jobs/s" not in terminal.text
                and terminal.lines[-1].startswith("sort:")
            ),
            "a small screen",
        )


# The end.


@pytest.mark.parametrize("key", ENDS)
def test_key_ends_top_and_restores_the_terminal(server: Server, key: str) -> None:
    command = ("sh", "-c", 'echo before; "$@"; echo "status $?"', "sh", *PROGRAM, "top")
    # The shell must survive Ctrl-C.
    if key == CTRL_C:
        command = ("sh", "-c", f"trap : INT; {command[2]}", *command[3:])
    with Terminal(*command, "--server", address_of(server)) as terminal:
        terminal.wait_for("functions: 0", "quit: q")
        assert "before" not in terminal.text
        assert set(terminal.changes) == {"termios", "modes", "screen", "cursor"}
        terminal.type(key)
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []
        assert terminal.text == "before\nstatus 0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_top_and_restores_the_terminal(server: Server, number: signal.Signals) -> None:
    with top(server, interval=60) as terminal:
        terminal.wait_for("functions: 0")
        terminal.process.send_signal(number)
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []
        assert terminal.text == ""


def test_top_ends_after_a_signal_that_does_not_end_its_sleep(server: Server) -> None:
    """A signal that arrives just before `top` sleeps has the same effect, but can't be timed."""
    program = """if True:
        import signal, threading, time
        from gearman_sync.cli import main, top

        def look(self, address, client):
            time.sleep(1)  # By now, the main thread probably sleeps.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        top._Poller._poll = look
        main()
    """
    command = (sys.executable, "-c", program, "top", "--interval", "3600")
    with Terminal(*command, "--server", address_of(server)) as terminal:
        assert terminal.wait_for_end() == 0


def test_many_signals_end_top_as_one_does(server: Server) -> None:
    with top(server) as terminal:
        terminal.wait_for("functions: 0")
        terminal.signal_until_the_end(signal.SIGINT)
        assert terminal.changes == []


def test_keys_typed_ahead_do_not_reach_the_shell(server: Server) -> None:
    command = ("sh", "-c", '"$@"; read -r line; echo "got $line"', "sh", *PROGRAM, "top")
    with Terminal(*command, "--server", address_of(server)) as terminal:
        terminal.wait_for("functions: 0")
        terminal.type("qrm -rf\n")
        terminal.wait_until(lambda: not terminal.changes, "its end")
        terminal.type("this\n")
        assert terminal.wait_for_end() == 0
        assert "got this" in terminal.text


def test_ctrl_z_gives_the_terminal_to_the_shell_until_fg(server: Server) -> None:
    # An interactive shell with job control.
    env = environment(PS1="% ", ENV="", GEARMAN_SERVERS=address_of(server))
    with Terminal("sh", "-i", env=env) as terminal:
        terminal.wait_for("%")
        terminal.type(f"{' '.join(PROGRAM)} top\n")
        terminal.wait_for("functions: 0")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        assert not terminal.is_alternate
        assert "cursor" not in terminal.changes
        terminal.type("echo $((6 * 7))\n")
        terminal.wait_for("42")
        terminal.type("fg\n")
        terminal.wait_for("functions: 0", "quit: q")
        submit(server, resize=3)
        wait_for_row(terminal, "resize", "3")
        terminal.type("q")
        # The shell can discard keys typed before it has the terminal again.
        terminal.wait_until(
            lambda: not terminal.is_alternate and terminal.text.rstrip().endswith("%"), "the shell"
        )
        terminal.type("exit\n")
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []


def test_ctrl_z_without_a_shell_does_nothing(server: Server) -> None:
    with top(server) as terminal:
        terminal.wait_for("functions: 0")
        terminal.type("\x1a")
        # top has left the alternate screen and entered it again.
        terminal.wait_until(lambda: terminal.raw.count(b"\x1b[?1049h") == 2, "the screen")
        submit(server, resize=3)
        wait_for_row(terminal, "resize", "3")
        terminal.type("q")
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []


# Servers that disconnect.


def test_dead_server_is_shown(server: Server) -> None:
    submit(server, resize=3)
    with top(server) as terminal:
        wait_for_row(terminal, "resize", "3")
        server.kill()
        # A pending query first reports that the connection was lost.
        terminal.wait_for(f"{address_of(server)}  no server could be reached")
        assert not rows_of(terminal)
        terminal.type("q")
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []
        assert terminal.text == ""


def test_restarted_server_is_shown_again(server: Server) -> None:
    submit(server, resize=3)
    with top(server) as terminal:
        wait_for_row(terminal, "resize", "3")
        server.kill()
        terminal.wait_for("no server could be reached")
        server.start()
        terminal.wait_for("functions: 0")
        submit(server, other=2)
        wait_for_row(terminal, "other", "2", "0", "0", "0.0")
        assert terminal.process.poll() is None


def test_one_dead_server_of_two_is_shown(launch: Callable[[], Server]) -> None:
    one, two = launch(), launch()
    submit(one, a=10)
    submit(two, a=1, b=1)
    with top(one, two) as terminal:
        wait_for_row(terminal, "a", "11")
        one.kill()
        terminal.wait_for(f"{address_of(one)}  no server")
        wait_for_row(terminal, "a", "1", "0", "0", "0.0")
        assert terminal.lines[1] == f"{address_of(two)}  functions: 2  jobs: 2  running: 0"


def test_server_down_at_the_start_does_not_affect_others(
    server: Server,
) -> None:
    submit(server, a=1)
    down = f"127.0.0.1:{free_port()}"
    options = ("--server", down, "--server", address_of(server))
    with Terminal(*PROGRAM, "top", *options) as terminal:
        wait_for_row(terminal, "a", "1")
        assert terminal.lines[0].startswith(f"{down}  no server could be reached")


def test_keys_work_while_a_server_hangs(gearmand: Gearmand) -> None:
    submit(gearmand, a=1, b=2)
    assert gearmand.process is not None
    with top(gearmand) as terminal:
        wait_for_order(terminal, "jobs▾", "b a")
        gearmand.process.send_signal(signal.SIGSTOP)
        try:
            terminal.type("f")
            wait_for_order(terminal, "function▴", "a b")
            terminal.type("q")
            assert terminal.wait_for_end() == 0
        finally:
            gearmand.process.send_signal(signal.SIGCONT)
        assert terminal.changes == []


def test_end_does_not_wait_for_answers(
    start_server: Callable[..., ScriptedServer], monkeypatch: pytest.MonkeyPatch, no_leak: None
) -> None:
    monkeypatch.setattr(top_module, "_PATIENCE", 3600)
    server = start_server(Peer.hold)
    poller = _Poller(Servers([parse_address(server.address)]), 0.001)
    poller.start()
    eventually(lambda: any(peer.events for peer in server.peers), "a question")
    call = spawn(poller.stop)
    call.result(PATIENCE)


def test_hanging_server_counts_as_down(gearmand: Gearmand) -> None:
    submit(gearmand, a=1)
    assert gearmand.process is not None
    # Shorten the timeout of five seconds.
    program = "from gearman_sync.cli import main, top; top._PATIENCE = 1; main()"
    command = (sys.executable, "-c", program, "top", "--interval", "0.1")
    with Terminal(*command, "--server", address_of(gearmand)) as terminal:
        wait_for_row(terminal, "a", "1")
        gearmand.process.send_signal(signal.SIGSTOP)
        try:
            terminal.wait_until(lambda: not rows_of(terminal), "no rows")
            assert re.match(rf"{address_of(gearmand)}  .*(time|answer)", terminal.lines[0])
        finally:
            gearmand.process.send_signal(signal.SIGCONT)
        wait_for_row(terminal, "a", "1")


# Conditions that prevent the start.


def test_unreachable_server_leaves_the_screen_alone() -> None:
    address = f"127.0.0.1:{free_port()}"
    with Terminal(*PROGRAM, "top", "--server", address) as terminal:
        assert terminal.wait_for_end() == 3
        assert terminal.text.startswith(f"gearmanctl: no server could be reached: {address}")
        assert terminal.raw.count(b"\n") == 1
        assert b"\x1b" not in terminal.raw


def test_two_unreachable_servers_are_reported_each() -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    options = [option for address in addresses for option in ("--server", address)]
    with Terminal(*PROGRAM, "top", *options, columns=200) as terminal:
        assert terminal.wait_for_end() == 3
        assert [address in line for address, line in zip(addresses, terminal.lines)] == [True] * 2


def test_output_without_a_terminal_is_a_usage_error(server: Server) -> None:
    with top(server, stdout=subprocess.PIPE) as terminal:
        assert terminal.wait_for_end() == 2
        assert terminal.text == "gearmanctl: top needs a terminal; status does not"
        assert terminal.process.stdout is not None
        assert terminal.process.stdout.read() == b""


def test_terminal_without_a_cursor_is_a_usage_error(server: Server) -> None:
    with top(server, env=environment(TERM="dumb")) as terminal:
        assert terminal.wait_for_end() == 2
        assert terminal.text == "gearmanctl: top needs a terminal; status does not"


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
def test_input_without_a_terminal_is_accepted(server: Server, end: str) -> None:
    with top(server, stdin=subprocess.DEVNULL) as terminal:
        terminal.wait_for("functions: 0")
        submit(server, resize=3)
        wait_for_row(terminal, "resize", "3")
        if end == "Ctrl-C":
            terminal.type(CTRL_C)
        else:
            terminal.process.terminate()
        assert terminal.wait_for_end() == 0
        assert terminal.changes == []


# Closed windows.


@pytest.mark.parametrize(
    ("ignored", "has_input"),
    [(False, True), (True, True), (True, False)],
    ids=["SIGHUP", "SIGHUP ignored", "SIGHUP ignored, output only"],
)
def test_closed_window_ends_top(
    server: Server, tmp_path: Path, ignored: bool, has_input: bool
) -> None:
    command = [*PROGRAM, "top", "--interval", "0.1", "--server", address_of(server)]
    if ignored:
        command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
    streams: dict[str, Any] = {} if has_input else {"stdin": subprocess.DEVNULL}
    with (tmp_path / "errors").open("w+b") as errors:
        with Terminal(*command, stderr=errors, **streams) as terminal:
            terminal.wait_for("functions: 0")
            terminal.hang_up()
        errors.seek(0)
        assert b"Traceback" not in errors.read()
