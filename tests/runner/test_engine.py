"""The supervisor's decisions, in simulated time."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from gearman_sync.runner.engine import (
    GRACE,
    ChildState,
    Exit,
    Log,
    Notify,
    Signal,
    Spawn,
    Supervisor,
)

TERM, INT, QUIT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
HUP, USR1, USR2 = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2


class World:
    """A supervisor, and processes that do as they are told."""

    def __init__(self, processes: int = 1, **options: Any) -> None:
        self.now = 100.0
        self.engine = Supervisor(processes=processes, rng=random.Random(1), **options)
        self.count = processes
        self.pid = 0
        self.log: list[str] = []
        self.notified: list[str] = []
        self.signals: list[tuple[int, int]] = []
        self.status: int | None = None
        self.carry_out()

    def carry_out(self) -> None:
        while (action := self.engine.next_action()) is not None:
            assert self.status is None, action
            match action:
                case Spawn(slot):
                    self.pid += 1
                    self.engine.spawned(self.now, slot, self.pid)
                case Signal(pid, number):
                    assert pid in self.engine.children
                    self.signals.append((pid, number))
                case Notify(state):
                    self.notified.append(state)
                case Log(message):
                    self.log.append(message)
                case Exit(status):
                    assert not self.engine.children
                    self.status = status

    def say(self, *pids: int, **message: Any) -> None:
        for pid in pids:
            self.engine.said(self.now, pid, message)
            self.carry_out()

    def exit(self, *pids: int, status: int = 0) -> None:
        for pid in pids:
            self.engine.exited(self.now, pid, status)
            self.carry_out()

    def signal(self, *numbers: int) -> list[tuple[int, int]]:
        """Send signals to the supervisor. Return the signals that it has sent to its children."""
        self.signals.clear()
        for number in numbers:
            self.engine.signal(self.now, number)
            self.carry_out()
        return self.signals

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.engine.handle_timeout(self.now)
        self.carry_out()

    def states(self) -> dict[int, str]:
        return {pid: child.state.name.lower() for pid, child in self.engine.children.items()}


def ready(processes: int = 1, **options: Any) -> World:
    world = World(processes, **options)
    world.say(*range(1, processes + 1), ready=1)
    return world


def test_first_start_is_ready_when_all_processes_are() -> None:
    world = World(2)
    world.say(1, ready=1)
    assert not world.notified
    world.say(2, ready=1, unknown="key of a later version")
    assert world.notified == ["READY"]
    assert world.engine.next_deadline() is None  # An idle supervisor has no wake-up.


def test_failure_in_the_first_start_ends_everything() -> None:
    world = World(3)
    world.say(1, ready=1)
    for pid in (2, 3):
        world.say(pid, failed="Traceback of an error", status=3)
        world.exit(pid, status=1)
    assert world.status is None
    assert world.signals == [(1, TERM), (3, TERM)]
    world.exit(1)
    assert world.status == 3
    assert sum("Traceback" in line for line in world.log) == 1


def test_refused_first_process_ends_the_supervisor() -> None:
    engine = Supervisor(rng=random.Random(1))
    assert engine.next_action() == Spawn(0)
    engine.spawn_failed(0.0, 0, "no memory")
    actions = list(iter(engine.next_action, None))
    assert actions[0] == Log("no process could be started: no memory", is_error=True)
    assert actions[-1] == Exit(1)


def test_process_that_is_not_ready_in_time_is_killed() -> None:
    world = World(start_timeout=60.0)
    world.pass_time(59)
    assert not world.signals
    world.pass_time(1)
    assert world.signals == [(1, KILL)]
    world.exit(1, status=-9)
    assert world.status == 1


def test_dead_process_is_replaced_after_a_growing_pause() -> None:
    world = ready()
    pauses = []
    for pid in range(1, 9):
        world.exit(pid, status=-9)
        deadline = world.engine.next_deadline()
        assert deadline is not None
        pauses.append(deadline - world.now)
        world.pass_time(pauses[-1])
        world.say(pid + 1, ready=1)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    world.pass_time(10)
    world.exit(9, status=-9)
    assert world.states() == {10: "starting"}  # After a stable time, it is replaced at once.


def test_reload_starts_new_processes_before_it_drains_old_ones() -> None:
    world = ready(2)
    world.signal(HUP)
    assert world.states() == {1: "ready", 2: "ready", 3: "starting"}
    world.say(3, ready=1)
    assert world.signals == [(1, TERM)]
    assert world.states() == {1: "draining", 2: "ready", 3: "ready", 4: "starting"}
    world.say(4, ready=1)
    assert world.signals == [(1, TERM), (2, TERM)]
    assert world.notified == ["READY", "RELOADING", "READY"]
    world.exit(1, 2)
    assert world.states() == {3: "ready", 4: "ready"}


def test_failed_reload_keeps_the_old_processes() -> None:
    world = ready(2)
    world.signal(HUP)
    world.say(3, failed="SyntaxError")
    world.exit(3, status=1)
    assert world.states() == {1: "ready", 2: "ready"}
    assert world.log[-1] == "the new processes do not start: the old ones continue"
    assert world.notified == ["READY", "RELOADING", "READY"]
    world.pass_time(3600)
    assert not world.signals
    world.signal(HUP)
    world.say(4, 5, ready=1)
    assert world.states() == {1: "draining", 2: "draining", 4: "ready", 5: "ready"}


def test_reload_during_a_reload_is_remembered_once() -> None:
    world = World()
    world.signal(HUP, HUP)  # The first start counts as one.
    world.say(1, ready=1)
    world.signal(HUP, HUP)
    world.say(2, ready=1)
    world.exit(1)
    assert world.states() == {2: "ready", 3: "starting"}
    world.say(3, ready=1)
    world.exit(2)
    assert world.states() == {3: "ready"}


def test_long_job_delays_only_the_second_reload() -> None:
    world = ready()
    world.signal(HUP)
    world.say(2, ready=1)
    world.signal(HUP)
    world.pass_time(7200)
    assert world.states() == {1: "draining", 2: "ready"}
    world.exit(1)
    assert world.states() == {2: "ready", 3: "starting"}


def test_predecessor_that_dies_is_not_replaced_twice() -> None:
    world = ready()
    world.signal(HUP)
    world.exit(1, status=-9)
    world.pass_time(60)
    world.say(2, ready=1)
    world.pass_time(60)
    assert (world.states(), world.signals) == ({2: "ready"}, [(2, KILL)])


def test_pause_lasts_for_new_processes() -> None:
    world = ready(2)
    assert world.signal(USR1) == [(1, USR1), (2, USR1)]
    assert world.signal(USR1) == []
    world.signal(HUP)
    world.say(3, ready=1)
    assert world.signals == [(3, USR1), (1, TERM)]
    world.say(4, ready=1)
    assert world.signal(USR2) == [(3, USR2), (4, USR2)]
    assert world.states() == {1: "draining", 2: "draining", 3: "ready", 4: "ready"}


@pytest.mark.parametrize("number", [TERM, INT])
def test_first_signal_drains_and_second_ends_at_once(number: int) -> None:
    world = ready(2)
    assert world.signal(number) == [(1, TERM), (2, TERM)]
    world.exit(1)
    assert world.signal(number) == [(2, QUIT)]
    assert world.engine.next_deadline() == world.now + GRACE
    world.pass_time(GRACE)
    assert world.signals == [(2, QUIT), (2, KILL)]
    world.exit(2, status=-9)
    assert world.status == 128 + number
    assert world.notified[-1] == "STOPPING"


def test_drained_supervisor_has_status_zero() -> None:
    world = ready()
    world.signal(TERM, HUP, USR1)
    world.exit(1)
    assert world.status == 0


def test_quit_ends_at_once() -> None:
    world = ready(2)
    world.signal(HUP)
    assert world.signal(QUIT) == [(1, TERM), (2, TERM), (3, TERM), (1, QUIT), (2, QUIT), (3, KILL)]
    assert world.signal(INT) == [(1, KILL), (2, KILL), (3, KILL)]
    world.exit(1, 2, 3)
    assert world.status == 128 + INT


def test_shutdown_timeout_ends_it() -> None:
    world = ready(shutdown_timeout=30.0)
    world.signal(TERM)
    world.pass_time(29)
    assert world.signals == [(1, TERM)]
    world.pass_time(1)
    assert world.signals == [(1, TERM), (1, QUIT)]
    world.exit(1)
    assert world.status == 128 + TERM


def test_stopped_process_that_gets_ready_may_drain() -> None:
    world = World(start_timeout=60.0)
    world.signal(TERM)
    world.say(1, ready=1)
    world.pass_time(3600)
    assert world.signals == [(1, TERM)]
    world.exit(1)
    assert world.status == 0


def test_stop_cancels_starts() -> None:
    world = ready()
    world.exit(1, status=-9)
    world.signal(TERM)
    assert (world.status, world.states()) == (0, {})
    engine = Supervisor(rng=random.Random(1))
    engine.signal(0.0, TERM)
    assert isinstance(list(iter(engine.next_action, None))[-1], Exit)


def test_recycled_processes_are_replaced_one_at_a_time() -> None:
    world = ready(2)
    world.say(1, 2, 1, recycle="500 jobs")
    assert world.states() == {1: "ready", 2: "ready", 3: "starting"}
    world.exit(3, status=1)  # The slot's pause is followed by the next attempt.
    assert world.states() == {1: "ready", 2: "ready", 4: "starting"}
    world.say(4, ready=1)
    world.pass_time(1)
    world.say(5, ready=1)
    assert world.states() == {1: "draining", 2: "draining", 4: "ready", 5: "ready"}


def test_old_processes_are_replaced_at_different_times() -> None:
    world = ready(2, max_lifetime=1000.0)
    world.pass_time(999)
    assert world.states() == {1: "ready", 2: "ready"}
    deadlines = {world.engine._timers.deadline(("age", pid)) for pid in (1, 2)}
    assert len(deadlines) == 2
    world.pass_time(101)
    world.say(3, ready=1)
    world.say(4, ready=1)
    assert world.states() == {1: "draining", 2: "draining", 3: "ready", 4: "ready"}


def test_unknown_process_is_ignored() -> None:
    world = ready()
    world.exit(99)
    world.say(99, ready=1)
    assert world.states() == {1: "ready"}


def step(world: World, rng: random.Random) -> None:
    """Let something happen that a machine allows at this time."""
    children = world.engine.children
    alive = [*children]
    serving = [pid for pid in alive if children[pid].state is not ChildState.STARTING]
    starting = [pid for pid in alive if children[pid].state is ChildState.STARTING]
    match rng.randrange(7):
        case 0 | 1 if starting:
            world.say(rng.choice(starting), ready=1)
        case 2 if alive:
            world.exit(rng.choice(alive), status=rng.choice([0, 1, -9]))
        case 3 if serving:
            world.say(rng.choice(serving), recycle="old")
        case 4:
            world.signal(rng.choice([HUP, USR1, USR2]))
        case 5:
            world.pass_time(rng.choice([0.5, 1.0, 40.0, 90.0]))
        case _:
            killed = [pid for pid, number in world.signals if number == KILL and pid in children]
            world.exit(*killed, status=-9)


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_random_scripts_keep_the_limits(first: int) -> None:
    """At most N ready, one starting in addition, N draining; and no slot is forgotten."""
    for seed in range(first, first + 100):
        rng = random.Random(seed)
        count = rng.randint(1, 3)
        world = ready(count)
        for _ in range(40):
            had, before = serving_of(world), {*world.engine.children}
            step(world, rng)
            states = [*world.states().values()]
            assert states.count("draining") <= count
            assert len(states) - states.count("draining") <= count + 1, states
            slots = {
                c.slot for c in world.engine.children.values() if c.state is not ChildState.DRAINING
            }
            waiting = sum(("slot", slot) in world.engine._timers for slot in range(count))
            assert len(slots) + waiting >= count
            # Without a death, a process serves if one has served before.
            assert serving_of(world) or not had or before - {*world.engine.children}
        world.signal(TERM)
        world.exit(*world.engine.children)
        assert world.status == 0


def serving_of(world: World) -> int:
    return sum(state in ("ready", "paused") for state in world.states().values())
