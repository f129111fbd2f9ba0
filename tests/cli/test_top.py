"""`gearmanctl top` in a pseudo-terminal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
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
from gearman_sync.testing import Gate, Peer, ScriptedServer, ScriptedWorker
from tests.support import PATIENCE, Gearmand, eventually, free_port, spawn, wait_for

from .support import PROGRAM, address_of, command_line
from .terminal import CTRL_C, DOWN, PAGE_DOWN, Terminal, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import Server


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


def top(*servers: Server, interval: float = 0.1, **options: Any) -> Terminal:
    return Terminal(*command_line("top", "--interval", str(interval), at=servers), **options)


def rows_of(terminal: Terminal) -> dict[str, list[str]]:
    """Return the cells of each function on the screen, in order."""
    lines = terminal.lines
    begin = next((n for n, line in enumerate(lines) if line.startswith("function")), len(lines))
    rows = (line.split() for line in lines[begin + 1 : -1] if line)
    return {name: rest for name, *rest in rows}


def wait_for_row(terminal: Terminal, name: str, *cells: str) -> None:
    """Wait until a function's row begins with these cells."""
    terminal.wait_until(
        lambda: rows_of(terminal).get(name, [])[: len(cells)] == list(cells), f"{name} {cells}"
    )


# The screen.


def test_screen_shows_servers_functions_rates_and_history(server: Server) -> None:
    gate = Gate()
    submit(server, slow=1200, resize=3)
    worker = ScriptedWorker(server.address, {"slow": gate, "idle": gate})
    wait_for(gate.begun)
    with top(server) as terminal:
        wait_for_row(terminal, "slow", "1,200", "1", "1", "0.0")
        terminal.wait_until(lambda: rows_of(terminal)["slow"][-1].endswith("██"), "a history")
        assert terminal.is_alternate
        lines = terminal.lines
        assert len(lines) == 24
        assert lines[0] == f"{address_of(server)}  functions: 3  jobs: 1,203  running: 1"
        assert lines[1].split() == ["function", "jobs▾", "running", "workers", "jobs/s", "queue"]
        assert [*rows_of(terminal)] == ["slow", "resize", "idle"]
        assert lines[-1] == "sort: f j r w s   scroll: ↑ ↓   quit: q"
        gate.open.set()
        terminal.wait_until(lambda: float(rows_of(terminal)["slow"][3].replace(",", "")), "a rate")
        wait_for_row(terminal, "slow", "0", "0", "1")
        terminal.wait_until(lambda: re.search("█.*▁$", rows_of(terminal)["slow"][-1]), "a history")
    worker.stop()


def test_keys_and_the_size_of_the_window_change_the_screen(server: Server) -> None:
    names = [f"task-{number:02}" for number in range(40)]
    submit(server, **dict.fromkeys(names, 1))

    def wait_for_rows(first: int, last: int, foot: str) -> None:
        terminal.wait_until(
            lambda: [*rows_of(terminal)] == names[first:last] and terminal.lines[-1].endswith(foot),
            f"rows {first} to {last}",
        )

    # Only keys and the change of the window's size trigger drawing.
    with top(server, interval=60) as terminal:
        wait_for_rows(0, 21, "   19 more")
        terminal.type(DOWN * 3)
        wait_for_rows(3, 24, "   16 more")
        terminal.type(PAGE_DOWN)
        wait_for_rows(15, 36, "   4 more")
        terminal.type("xy\t\n\x1b[1;5A\x1bOP\x1b[15~éf")
        wait_for_rows(0, 21, "   19 more")
        assert "function▴" in terminal.text
        terminal.resize(100, 40)
        wait_for_rows(0, 37, "   3 more")
        terminal.resize(50, 10)
        wait_for_rows(0, 7, "   33 more")
        assert "jobs/s" not in terminal.text


# The end.


@pytest.mark.parametrize("key", [pytest.param("q", id="q"), pytest.param(CTRL_C, id="Ctrl-C")])
def test_key_ends_top_and_restores_the_terminal(server: Server, key: str) -> None:
    # The shell must survive Ctrl-C, and reads no keys that were typed ahead, not even those that
    # top has not read itself.
    script = 'trap : INT; echo before; "$@"; echo "status $?"; read -r line; echo "got $line"'
    with Terminal("sh", "-c", script, "sh", *command_line("top", at=server)) as terminal:
        terminal.wait_for("functions: 0", "quit: q")
        assert "before" not in terminal.text
        assert set(terminal.changes) == {"termios", "modes", "screen", "cursor"}
        terminal.type(f"{key}{'x' * 2000}rm -rf\n")
        terminal.wait_for("before\nstatus 0")
        assert terminal.changes == []
        terminal.type("this\n")
        assert terminal.wait_for_end() == 0
        assert terminal.text.endswith("got this")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_top_and_restores_the_terminal(server: Server, number: signal.Signals) -> None:
    # Without a terminal as its input, top accepts no keys.
    with top(server, interval=60, stdin=subprocess.DEVNULL) as terminal:
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


@pytest.mark.parametrize("streams", [{}, {"stdin": subprocess.DEVNULL}], ids=["all", "output only"])
def test_closed_window_ends_top_that_ignores_sighup(
    server: Server, streams: dict[str, Any]
) -> None:
    command = command_line("top", "--interval", "0.1", at=server)
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command)
    with Terminal(*ignoring, stderr=subprocess.PIPE, **streams) as terminal:
        terminal.wait_for("functions: 0")
        terminal.hang_up()
        assert terminal.process.stderr is not None
        assert b"Traceback" not in terminal.process.stderr.read()


# Servers that disconnect or hang.


def test_server_that_is_down_is_shown_and_affects_no_other(launch: Callable[[], Server]) -> None:
    one, two = launch(), launch()
    submit(two, a=1, b=1)
    one.kill()
    with top(one, two) as terminal:
        wait_for_row(terminal, "a", "1", "0", "0", "0.0")
        assert terminal.lines[0].startswith(f"{address_of(one)}  no server could be reached")
        assert terminal.lines[1] == f"{address_of(two)}  functions: 2  jobs: 2  running: 0"
        one.start()
        submit(one, a=10)
        wait_for_row(terminal, "a", "11")
        one.kill()
        # A pending query first reports that the connection was lost.
        terminal.wait_for(f"{address_of(one)}  no server could be reached")
        wait_for_row(terminal, "a", "1", "0", "0", "0.0")
        two.kill()
        terminal.wait_until(lambda: not rows_of(terminal), "no rows")
        assert terminal.process.poll() is None


def test_hanging_server_counts_as_down_and_keys_work(gearmand: Gearmand) -> None:
    submit(gearmand, a=1, b=2)
    assert gearmand.process is not None
    # Shorten the timeout of five seconds.
    program = "from gearman_sync.cli import main, top; top._PATIENCE = 1; main()"
    command = (sys.executable, "-c", program, "top", "--interval", "0.1")
    with Terminal(*command, "--server", address_of(gearmand)) as terminal:
        wait_for_row(terminal, "a", "1")
        gearmand.process.send_signal(signal.SIGSTOP)
        try:
            terminal.type("f")
            terminal.wait_for("function▴")
            terminal.wait_until(lambda: not rows_of(terminal), "no rows")
            assert re.match(rf"{address_of(gearmand)}  .*(time|answer)", terminal.lines[0])
        finally:
            gearmand.process.send_signal(signal.SIGCONT)
        wait_for_row(terminal, "a", "1")


def test_end_does_not_wait_for_answers(
    start_server: Callable[..., ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_module, "_PATIENCE", 3600)
    server = start_server(Peer.hold)
    poller = _Poller(Servers([str(parse_address(server.address))]), 0.001)
    poller.start()
    eventually(lambda: any(peer.events for peer in server.peers), "a question")
    spawn(poller.stop).result(PATIENCE)


# Conditions that prevent the start.


def test_unreachable_servers_leave_the_screen_alone() -> None:
    addresses = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    with Terminal(*command_line("top", at=addresses), columns=200) as terminal:
        assert terminal.wait_for_end() == 3
        for address, line in zip(addresses, terminal.text.splitlines(), strict=True):
            assert line.startswith(f"gearmanctl: no server could be reached: {address_of(address)}")
        assert b"\x1b" not in terminal.raw


@pytest.mark.parametrize(
    ("variables", "streams"),
    [({}, {"stdout": subprocess.DEVNULL}), ({"TERM": "dumb"}, {})],
    ids=["no terminal", "no cursor"],
)
def test_output_without_a_usable_terminal_is_a_usage_error(
    server: Server, variables: dict[str, str], streams: dict[str, Any]
) -> None:
    with top(server, env=environment(**variables), **streams) as terminal:
        assert terminal.wait_for_end() == 2
        assert terminal.text == "gearmanctl: top needs a terminal; status does not"
