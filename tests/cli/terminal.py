"""A program in a pseudo-terminal, and the contents of its screen."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Any, Final

import pyte

from tests.support import PATIENCE

from . import support
from .support import start_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

#: The prompt of a `Shell`.
PROMPT: Final = "$ "
#: Maximum seconds for pip.
INSTALLS: Final = 300.0
#: Keys of a terminal.
CTRL_C, UP, DOWN, PAGE_DOWN = "\x03", "\x1b[A", "\x1b[B", "\x1b[6~"

# The terminal mode that switches to the alternate screen.
_ALTERNATE: Final = 1049
# An incomplete escape sequence, and one that another sequence interrupts. (At Ctrl-C, the kernel
# can discard a program's output.) Real terminals then start with the new sequence, but pyte does
# not.
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]*)?\Z")
_CUT_OFF: Final = re.compile(rb"\x1b(?:\[[0-?]*)?(?=\x1b)")
# Sets the window's title, which is not visible.
_MARK: Final = b"\x1b]2;the end\x07"
# An invisible part of the prompt.
_PROMPT_MARK: Final = "\x1b]2;prompt\x07"
# Variables that change how programs write on terminals, set by users.
_TASTES: Final = (
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "CLICOLOR_FORCE"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONWARNINGS"),
)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user without such preferences."""
    kept = {name: value for name, value in support.environment().items() if name not in _TASTES}
    common = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    return {**kept, **common, **changes}


class _Screen(pyte.Screen):
    """A terminal with a main and an alternate screen. pyte has only one screen."""

    _main: Any = None

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        super().set_mode(*modes, **kwargs)
        if _ALTERNATE in modes and kwargs.get("private") and self._main is None:
            self._main = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        super().reset_mode(*modes, **kwargs)
        if _ALTERNATE in modes and kwargs.get("private") and self._main is not None:
            hidden = self.cursor.hidden
            self.buffer, self.cursor = self._main
            self.cursor.hidden = hidden
            self._main = None

    @property
    def is_alternate(self) -> bool:
        return self._main is not None


class Terminal:
    """A program in its own terminal. The end of the ``with`` block kills it.

    Args:
        command: The program and its arguments.
        columns: The width of the screen.
        lines: The height of the screen.
        env: The environment; None for `environment`.
        cwd: The working directory.
        streams: ``stdin``, ``stdout`` or ``stderr``, if not the terminal.
    """

    def __init__(
        self,
        *command: str,
        columns: int = 80,
        lines: int = 24,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **streams: Any,
    ) -> None:
        self._screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, self._slave = pty.openpty()
        self._set_size()
        self._before = self._state()
        #: The program's whole output.
        self.raw = b""
        self._begun = b""
        self.process = start_process(
            [*command],
            env=environment() if env is None else env,
            cwd=cwd,
            terminal=self._slave,
            **{**dict.fromkeys(("stdin", "stdout", "stderr"), self._slave), **streams},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            groups = {self.process.pid}
            with contextlib.suppress(OSError):  # The terminal has hung up.
                # A shell's programs run in their own process groups.
                groups.add(os.tcgetpgrp(self._master))
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self._hang_up()
        os.close(self._slave)

    @property
    def device(self) -> int:
        """The descriptor of the terminal, for another program's output."""
        return self._slave

    # The screen.

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without trailing blanks."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The screen, without trailing empty lines."""
        return "\n".join(self.lines).rstrip("\n")

    @property
    def is_alternate(self) -> bool:
        """True if the alternate screen is visible."""
        return self._screen.is_alternate

    @property
    def changes(self) -> list[str]:
        """The properties of the terminal that differ from the beginning."""
        return [name for name, value in self._state().items() if value != self._before[name]]

    def _state(self) -> dict[str, object]:
        return {
            "termios": termios.tcgetattr(self._slave),
            "modes": set(self._screen.mode),
            "screen": self._screen.is_alternate,
            "cursor": self._screen.cursor.hidden,
            "colours": self._screen.cursor.attrs,
        }

    # The user's actions.

    def type(self, keys: str) -> None:
        """Press keys."""
        data = keys.encode()
        while data:
            data = data[os.write(self._master, data) :]

    def signal_until_the_end(self, number: int) -> None:
        """Send a signal repeatedly until the program has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self.process.send_signal(number)
            self._pump(0)
        self.wait_for_end()

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window, which sends SIGWINCH to the program."""
        self._screen.resize(lines, columns)
        self._set_size()

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self._screen.lines, self._screen.columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def hang_up(self) -> int:
        """Close the window. Return the program's exit status."""
        self._hang_up()
        return self.process.wait(PATIENCE)

    def _hang_up(self) -> None:
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    # Waiting.

    def wait_until(
        self,
        condition: Callable[[], object],
        what: str = "condition",
        patience: float = PATIENCE,
    ) -> None:
        """Wait until `condition`, which can inspect the screen, is true."""
        deadline = time.monotonic() + patience
        # One write can arrive in pieces, so read on until the program pauses. A program that writes
        # faster than this terminal reads never does.
        busy = time.monotonic() + 1.0
        while (self._pump(0) and time.monotonic() < busy) or not condition():
            if self.process.poll() is not None:
                status = self.wait_for_end()
                assert condition(), f"{what} did not come true (status {status}):\n{self.text}"
                return
            if not self._pump(0.02) and time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come true:\n{self.text}")

    def wait_for(self, *texts: str) -> None:
        """Wait until all of `texts` are on the screen."""
        self.wait_until(lambda: all(text in self.text for text in texts), f"{texts}")

    def wait_for_end(self) -> int:
        """Wait until the program has ended and its screen is complete. Return the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if not self._pump(0.02) and time.monotonic() > deadline:
                raise AssertionError(f"{self.process.args!r} does not end:\n{self.text}")
        # The terminal delivers the program's whole output before this mark.
        os.write(self._slave, _MARK)
        while not self.raw.endswith(_MARK):
            assert self._pump(PATIENCE), f"nothing comes after {self.raw[-100:]!r}"
        self.raw = self.raw[: -len(_MARK)]
        return self.process.wait()

    def _pump(self, timeout: float) -> bool:
        """Read the output of up to `timeout` seconds. Return True if there was any."""
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        data = os.read(self._master, 65536)
        self.raw += data
        data = _CUT_OFF.sub(b"", self._begun + data)
        begun = _BEGUN.search(data)
        self._begun = begun[0] if begun else b""
        self._stream.feed(data.removesuffix(self._begun))
        return True


class Shell(Terminal):
    """A shell in a terminal.

    `options` are those of Terminal, and `env` is the shell's environment.
    """

    def __init__(self, env: dict[str, str], **options: Any) -> None:
        env = {**env, "PS1": f"{_PROMPT_MARK}{PROMPT}", "ENV": ""}
        super().__init__("sh", "-i", env=env, **options)
        self._commands = 0
        self.wait_for_prompt()

    @property
    def is_ready(self) -> bool:
        """True if the shell waits for a command."""
        return self.raw.count(_PROMPT_MARK.encode()) > self._commands

    @property
    def shown(self) -> str:
        """The text on the screen, without the prompt for the next command."""
        return self.text.removesuffix(PROMPT.rstrip()) if self.is_ready else f"{self.text}\n"

    def run(self, command: str) -> None:
        """Type a command."""
        self.type(f"{command}\n")
        self._commands += 1

    def wait_for_prompt(self, patience: float = PATIENCE) -> None:
        """Wait until the command has ended."""
        self.wait_until(lambda: self.is_ready, "a prompt", patience)

    def type_block(self, text: str, places: Mapping[str, str], *, runs: bool) -> None:
        """Type the commands of a page's console block.

        Args:
            text: The block.
            places: The real names and ports by those on the page.
            runs: True if the last command keeps running.
        """
        commands = commands_of(text)
        for number, command in enumerate(commands, 1):
            self.run(replaced(command, places))
            if not runs or number < len(commands):
                self.wait_for_prompt(INSTALLS if command.startswith("pip ") else PATIENCE)

    def expect(
        self, text: str, places: Mapping[str, str], matches: Callable[[str, str], bool]
    ) -> None:
        """Wait until the screen matches a page's console block."""
        back = {real: written for written, real in places.items()}
        with contextlib.suppress(AssertionError):
            self.wait_until(lambda: matches(text, replaced(self.shown, back)))
        screen = replaced(self.shown, back)
        assert matches(text, screen), f"the page shows\n{text}\nand the terminal\n{screen}"

    def leave(self) -> None:
        """End a running command and the shell, and check that the terminal is restored."""
        if not self.is_ready:
            self.type(CTRL_C)
            self.wait_for_prompt()
        self.type("exit\n")
        self.wait_for_end()
        assert self.changes == []


def commands_of(text: str) -> list[str]:
    """Return the commands in a page's console block."""
    return [line.removeprefix(PROMPT) for line in text.splitlines() if line.startswith(PROMPT)]


def replaced(text: str, places: Mapping[str, str]) -> str:
    """Return `text` with the keys of `places` replaced by their values."""
    for before, after in places.items():
        text = text.replace(before, after)
    return text
