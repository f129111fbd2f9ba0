"""One run: the servers, the proxies, the clients and workers, the faults, and the final check."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import WorkerJob
from gearman_sync.testing.proxy import FaultyProxy
from gearman_sync.testing.toxics import Corrupt, Direction, LimitData
from tests.support import eventually

from . import servers
from .books import Books
from .payloads import TASK
from .people import AwaitedSurface, BlockingSurface, Boom, Client, Surface, Worker, World
from .plan import SERVERS, SIDES, Plan, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Numbers of clients and workers of each surface.
_CLIENTS: Final = 4
_WORKERS: Final = 2
# The interpreter's switch interval in seconds.
_SWITCH: Final = 0.0005
# Seconds after the last call's timeout after which a client counts as hung.
_PATIENCE: Final = 60.0
# Seconds that servers can take to finish all jobs after the last fault.
_DRAIN: Final = 30.0
# Bytes of the kernel's buffers at the proxies.
_BUFFER: Final = 4096


class Chaos:
    """A run of a plan.

    Args:
        plan: The faults.
        say: Called with lines of text.
    """

    def __init__(self, plan: Plan, say: Callable[[str], Any]) -> None:
        self._plan = plan
        self._say = say
        self._books = Books("dirty")
        self._world = World(plan.seed, self._books)
        self._servers: dict[str, servers.ServerProcess] = {}
        self._proxies: dict[tuple[str, str], FaultyProxy] = {}
        self._done: list[tuple[float, Step]] = []
        self._begun = 0.0

    def run(self) -> bool:
        """Run the plan. Return True if there was no violation."""
        # About thirty threads compete for the interpreter, and each system call releases it. With
        # the default of 5 ms, an event loop would wait for the interpreter longer than it runs.
        sys.setswitchinterval(_SWITCH)
        descriptors, threads = _descriptors(), set(threading.enumerate())
        with contextlib.ExitStack() as stack:
            stack.enter_context(_watched(self._world))
            stack.callback(self._world.metronome.stop)
            self._start(stack)
            self._play()
        gc.collect()
        self._check_for_leaks(descriptors, threads)
        self._books.check(self._sizes_changed())
        self._report()
        return not self._books.problems

    def _start(self, stack: contextlib.ExitStack) -> None:
        plan = self._plan
        made = {
            "gearmand": servers.gearmand("gearmand"),
            "blocking": servers.job_server("blocking", "sync"),
            "awaited": servers.job_server("awaited", plan.awaited_on),
            "dirty": self._either("dirty", plan.dirty_is_gearmand),
            "slow": self._either("slow", plan.slow_is_gearmand),
        }
        # A changed type or size can end a gearmand.
        dirty = made["dirty"]
        assert dirty is not None
        dirty.may_die = dirty.kind == "gearmand"
        for name in SERVERS:
            server = made[name]
            if server is None:
                self._say("gearmand is not installed; without it, this is half of it")
                continue
            stack.callback(server.end)
            server.start()
            self._servers[name] = server
            for side in SIDES:
                proxy = FaultyProxy(server.address, self._faults_of(name, side), buffer=_BUFFER)
                stack.enter_context(proxy)
                self._proxies[name, side] = proxy
                self._world.names[proxy.address[1]] = name
                self._world.addresses[side].append(proxy.address)
        kinds = {name: server.kind for name, server in self._servers.items()}
        self._say(", ".join(f"{name} ({kind})" for name, kind in kinds.items()))

    def _either(self, name: str, is_gearmand: bool) -> servers.ServerProcess:
        made = servers.gearmand(name) if is_gearmand else None
        return made or servers.job_server(name, "sync")

    def _faults_of(self, server: str, side: str) -> Any:
        return lambda number: self._plan.faults(server, side, number)

    # The course of the run.

    def _play(self) -> None:
        surfaces: list[Surface] = [
            BlockingSurface(),
            AwaitedSurface("asyncio"),
            AwaitedSurface("trio"),
        ]
        clients = self._threads(surfaces, Client, _CLIENTS)
        workers = self._threads(surfaces, Worker, _WORKERS)
        self._begun = time.monotonic()
        for thread in (*clients, *workers):
            thread.start()
        self._apply_faults()
        self._heal()
        self._world.ending.set()
        everybody = len(surfaces) * _CLIENTS
        self._wait_for(lambda: self._world.waited >= everybody, "the clients' last calls")
        self._cut_all()
        self._world.cut.set()
        self._end(clients)
        self._drain()
        self._world.finished_at = time.monotonic()
        self._world.finished.set()
        self._end(workers)
        for server in self._servers.values():
            # gearmand's leaks are its own problem.
            if server.kind != "gearmand" and (leaks := server.leaks()):
                self._books.problem("leaks", leaks)

    def _threads(self, surfaces: list[Surface], kind: Any, count: int) -> list[threading.Thread]:
        """Return a thread for each surface, which runs `count` clients or workers."""
        threads = []
        for surface in surfaces:
            scripts = [kind(self._world, surface, number).play for number in range(count)]
            if kind is Worker and surface.name != "sync":
                # These use plain callbacks, which run in threads of the event loop.
                scripts.append(Worker(self._world, surface, count, plain=True).play)
            threads.append(
                threading.Thread(
                    target=surface.run,
                    args=(self._world, scripts),
                    name=f"{surface.name} {kind.__name__}",
                    daemon=True,
                )
            )
        return threads

    def _apply_faults(self) -> None:
        """Cause the faults of the plan."""
        #: The ends of current faults, each with its time.
        endings: list[tuple[float, Callable[[], None]]] = []
        steps = [step for step in self._plan.steps() if step.server in self._servers]
        while (now := time.monotonic() - self._begun) < self._plan.seconds or endings:
            for ending in [ending for ending in endings if ending[0] <= now]:
                endings.remove(ending)
                ending[1]()
            while steps and steps[0].at <= now:
                step = steps.pop(0)
                self._done.append((now, step))
                undo = self._apply(step)
                if undo is not None:
                    endings.append((now + step.seconds, undo))
            self._restart_dead_servers()
            time.sleep(0.01)

    def _apply(self, step: Step) -> Callable[[], None] | None:
        server = self._servers[step.server]
        if step.what == "kill":
            server.kill()
            self._books.killed(step.server)
            return server.start
        if step.what == "stop":
            server.signal(signal.SIGSTOP)
            return lambda: server.signal(signal.SIGCONT)
        proxy = self._proxies[step.server, step.side]
        if step.what == "inject":
            assert step.fault is not None
            proxy.inject(step.fault)
            return None
        (proxy.refuse if step.what == "refuse" else proxy.ignore)()
        return proxy.up

    def _restart_dead_servers(self) -> None:
        for name, server in self._servers.items():
            if server.died:
                self._books.killed(name)
                if server.may_die:
                    self._books.count("ends of a gearmand by a changed byte")
                else:
                    self._books.problem("unexpected", f"{name} died: {server.output[-2000:]}")
                server.kill()
                server.start()

    def _heal(self) -> None:
        """End all faults, and let no peer keep jobs unknowingly."""
        self._world.healing.set()
        for proxy in self._proxies.values():
            proxy.reset()
        self._restart_dead_servers()
        for (_, side), proxy in self._proxies.items():
            if side == "workers":
                proxy.inject(LimitData(direction=Direction.UP))

    def _cut_all(self) -> None:
        for proxy in self._proxies.values():
            proxy.inject(LimitData(direction=Direction.UP))

    def _drain(self) -> None:
        """Wait until all jobs are done that any worker can do."""
        self._restart_dead_servers()
        deadline = time.monotonic() + _DRAIN
        for name, server in self._servers.items():
            while (left := server.jobs()) and time.monotonic() < deadline:
                time.sleep(0.05)
            if left and name != "dirty":
                self._books.problem("hung", f"{left} jobs of {name} are not done")

    def _end(self, threads: list[threading.Thread]) -> None:
        self._wait_for(
            lambda: not any(thread.is_alive() for thread in threads),
            f"the end of {', '.join(thread.name for thread in threads)}",
        )

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self._books.problem("hung", what)
                self._report()
                faulthandler.dump_traceback(all_threads=True)
                # A hung thread would keep the process alive.
                for server in self._servers.values():
                    server.kill()
                sys.stdout.flush()
                os._exit(1)
            self._restart_dead_servers()
            time.sleep(0.02)

    # The final check.

    def _check_for_leaks(self, descriptors: set[str], threads: set[threading.Thread]) -> None:
        try:
            eventually(lambda: not _new_threads(threads), "the end of threads")
        except AssertionError:
            self._books.problem("leaks", f"threads: {_new_threads(threads)}")
        left = _descriptors() - descriptors
        if left:
            self._books.problem("leaks", f"descriptors: {sorted(left)}")

    def _sizes_changed(self) -> list[float]:
        """Return the times at which the proxies of clients changed a byte of a size."""
        return [
            event.when
            for event in self._proxies["dirty", "clients"].journal
            if isinstance(event.what, Corrupt) and is_of_size(event.before)
        ]

    def _report(self) -> None:
        lines = [(at, str(step)) for at, step in self._done]
        for (server, side), proxy in self._proxies.items():
            for event in proxy.journal:
                if event.what not in ("accept", "end", "unreachable"):
                    text = f"{server}, {side}' connection {event.connection}: {event.what}"
                    lines.append((event.when - self._begun, text))
        connections = sum(proxy.accepted for proxy in self._proxies.values())
        self._say(
            f"{connections:,} connections, {len(lines):,} faults; "
            f"the latest call came {self._world.latest:.2f} s after its time; "
            f"the machine itself was late by up to {self._world.metronome.worst:.2f} s"
        )
        self._say(self._books.report())
        if self._books.problems:
            self._say(f"0 s is {self._begun:.3f} of the clock")
            for at, text in sorted(lines):
                self._say(f"{at:9.3f} s {text}")
            for name, process in self._servers.items():
                with contextlib.suppress(ValueError):
                    if output := process.output[-4000:]:
                        self._say(f"{name} said: {output}")


def is_of_size(before: bytes) -> bool:
    """Return True if the byte after these is one of a packet's size: bytes 8 to 11 of a header."""
    return any(before[-at:].startswith((b"\0REQ", b"\0RES")) for at in (8, 9, 10, 11))


def _descriptors() -> set[str]:
    """Return the open descriptors of this process, if the system lists them."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def _new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    # trio keeps idle threads for ten seconds.
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith("Trio thread")
    ]


class _Listener(logging.Handler):
    """Collects the library's errors, except those of callbacks that raise on purpose."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world
        self._books = world.books

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:
            self._world.note_loss("logged", record.getMessage())
            return
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, KeyError) and isinstance(record.args, tuple):
            # The name of the function was changed, so the worker has no callback for it.
            (job,) = record.args
            if isinstance(job, WorkerJob) and job.task != TASK:
                self._books.changed(self._world.name(job.connection), f"{job!r}")
                return
        if not isinstance(error, Boom):
            self._books.problem("unexpected", f"logged: {self.format(record)}")


@contextlib.contextmanager
def _watched(world: World) -> Iterator[None]:
    """Record errors that are only logged, or raised in the background, as violations."""

    def hook(arguments: Any) -> None:
        world.books.problem("unexpected", f"raised where nobody looks: {arguments}")

    listener = _Listener(world)
    loggers = [logging.getLogger(name) for name in ("gearman", "asyncio")]
    before = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = threading.excepthook = hook
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = before
        for logger in loggers:
            logger.removeHandler(listener)
            logger.propagate = True
