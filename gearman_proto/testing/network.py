"""A simulated network of real engines: a whole system, run deterministically from a seed.

Theory of operation
    The simulation runs in one thread and in virtual time. Pending events are kept in a heap, sorted
    by virtual time and then by a sequence number. The network takes the first event, advances its
    clock, and runs it. All random numbers are drawn from generators that are derived from the seed:
    one for the network, one for each node, one for the faults. Nothing depends on a hash, a memory
    address or a real clock, so equal seeds give identical runs, byte for byte.

    A `Node` drives one engine. Nodes share nothing but connections (`wires`). Bytes that one node
    writes become a future event of the other, so the network controls the order of all calls.

    The `Books` are kept independently of the engines. A violation is detected in the step that
    causes it: `fail` raises SimulationError, whose message contains the seed, the faults and the
    last steps. An exception raised by an engine becomes a SimulationError as well.

    `check` ends a run. It stops all faults, repairs the network, and waits until all calls and jobs
    have ended. Then no engine may hold any state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gearman_proto.checks import FOR_EVER, check_seconds, check_type
from gearman_proto.errors import ArgumentValueError

from .audit import audit, audit_idle, audit_quiet
from .clients import AdminNode, CallingNode, ClientNode
from .faults import Fault, Faults, draw
from .nodes import Node, check_servers
from .pulling import PullingNode
from .servers import ServerNode
from .simulation import Simulation, SimulationError
from .wires import EOF, RESET
from .workers import WorkerNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .books import Entry
    from .workers import Callback

N = TypeVar("N", bound=Node)

# Interval in seconds of virtual time at which `check` tests whether everything has ended.
_A_WHILE: Final = 0.5
# Seconds of virtual time until servers have received the last registrations of workers.
_A_LONG_WHILE: Final = 8.0
#: Seconds of virtual time, after the last fault, within which everything must end. For example,
#: a client can avoid a failed server for 30 seconds, and keepalive takes 60 to detect a dead peer.
PATIENCE: Final = 400.0


def _check_fault(fault: Fault) -> Fault:
    return check_type("a fault", fault, Fault, "a Fault, which Fault.parse makes of its text")


class Network(Simulation):
    """Nodes that speak Gearman with each other, in virtual time.

    Args:
        make_rng: Makes a random number generator from a text: `random.Random`. Equal texts must
            give equal generators.
        seed: The source of all randomness. Equal seeds give identical runs.
        faults: The quality of the network. By default, nothing breaks.
        replay: The faults to apply. By default, they are drawn at random, at `faults.rate`.

    Raises:
        TypeError, ValueError: An argument has an invalid type or value.

    `nodes` holds the nodes by name. The other attributes are those of `Simulation`: `now`, `steps`,
    `trace`, `books`, `happened`. The default names of nodes are ``server1``, ``client1`` and so on.
    """

    def __init__(
        self,
        make_rng: Callable[[str], random.Random],
        seed: int = 0,
        faults: Faults | None = None,
        *,
        replay: Iterable[Fault] | None = None,
    ) -> None:
        faults = Faults() if faults is None else check_type("faults", faults, Faults, "a Faults")
        super().__init__(make_rng, seed, faults)
        self.nodes: dict[str, Node] = {}
        self._replay: Iterator[Fault] | None = None
        if replay is not None:
            check_type("replay", replay, Iterable, "a list of faults")
            self._replay = iter([_check_fault(fault) for fault in replay])
        self._planned: Iterator[Fault] = iter(())
        # True once the first fault was scheduled. Faults are drawn from the nodes that exist then.
        self._is_planned = False
        # True once `check` has stopped all faults, and once it has passed.
        self._is_ending = self._is_finished = False
        # Time at which the last lasting fault ends, and the bytes that it has delayed arrive.
        self._mended_at = 0.0

    # Nodes.

    def server(self, name: str | None = None, **options: Any) -> ServerNode:
        """Add a job server. `options` are passed to ServerEngine; see ServerNode."""
        return self.add(ServerNode(self, self._name(name, "server", ServerNode), **options))

    def worker(
        self,
        servers: Sequence[Node],
        callbacks: Mapping[str, Callback],
        name: str | None = None,
        *,
        pull: bool = False,
        **options: Any,
    ) -> WorkerNode:
        """Add a worker for `servers`. `options` are passed to WorkerEngine; see WorkerNode.

        With `pull`, the worker uses `grab` in place of `work`; see PullingNode.
        """
        name = self._name(name, "worker", WorkerNode)
        kind = PullingNode if pull else WorkerNode
        return self.add(kind(self, name, servers, callbacks, **options))

    def client(
        self, servers: Sequence[Node], name: str | None = None, **options: Any
    ) -> ClientNode:
        """Add a client of `servers`. `options` are passed to ClientEngine; see ClientNode."""
        return self.add(
            ClientNode(self, self._name(name, "client", ClientNode), servers, **options)
        )

    def admin(self, server: Node, name: str | None = None, **options: Any) -> AdminNode:
        """Add an admin client of `server`. `options` are passed to AdminEngine."""
        return self.add(AdminNode(self, self._name(name, "admin", AdminNode), server, **options))

    def add(self, node: N) -> N:
        """Add a node that was constructed directly, such as one with a custom engine.

        Raises:
            TypeError: `node` is not a Node.
            ValueError: A node with this name exists, or `node` belongs to another network.
        """
        check_servers(self, [node])
        self._check_goes_on()
        self._check_new(node.name)
        self.nodes[node.name] = node
        return node

    def _check_new(self, name: str) -> str:
        if name in self.nodes:
            raise ArgumentValueError(f"there is a node {name!r} already")
        return name

    def _name(self, name: str | None, what: str, kind: type[Node]) -> str:
        """Return a name for a new node. Check it first, because nodes start when they are made."""
        return self._check_new(name or f"{what}{1 + len(self._nodes_of(kind))}")

    def _check_goes_on(self) -> None:
        if self._is_finished:
            raise RuntimeError("this network is over, as check() was called: make a new one")

    # Running.

    def run(self, until: float | None = None) -> None:
        """Run until the virtual time is `until`, or by default until no event is pending.

        A running worker polls for jobs forever, and `Faults` with a rate never end. In both cases,
        `until` is required.

        Raises:
            SimulationError: An invariant was violated; or code that the network runs, such as a
                callback, has called this method.
            TypeError, ValueError: `until` is not a number of seconds from 0 on; or it is None and
                the run would never end.
            RuntimeError: `check` has ended this network.
        """
        self._check_goes_on()
        if until is not None:
            check_seconds("until", until, 0, FOR_EVER)
        elif self.faults.rate and self._replay is None:
            raise ArgumentValueError("until is None, and with a rate faults never end: give a time")
        else:
            for node in self._nodes_of(WorkerNode):
                if node.subscription is not None:
                    raise ArgumentValueError(
                        f"until is None, and {node.name} looks for jobs for ever: give a time"
                    )
        if not self._is_planned:
            self._is_planned = True
            self._plan()
        self._run(until)

    def _audit(self) -> int:
        """Audit all running nodes, and return the number of jobs that were checked."""
        return sum(audit(node) for node in self.nodes.values() if node.is_up)

    # Faults.

    def _plan(self) -> None:
        """Choose the faults of this run, and schedule the first one."""
        if self._replay is not None:
            self._planned = self._replay
        elif self.faults.rate:
            pairs = [f"{node.name}>{name}" for node in self.nodes.values() for name in node.servers]
            self._planned = draw(self.faults, self.rng_of("faults"), list(self.nodes), pairs)
        self._plan_next()

    def _plan_next(self) -> None:
        fault = next(self._planned, None)
        if fault is not None:
            self.schedule(fault.at, self._happen, fault)

    def _happen(self, fault: Fault) -> None:
        if not self._is_ending:
            self.break_(fault)
            self._plan_next()

    def break_(self, fault: Fault) -> None:
        """Apply `fault` now, whatever its `at` is.

        A fault of a connection that does not exist has no effect.

        Raises:
            TypeError: `fault` is not a Fault.
            ValueError: `fault` names an unknown node.
        """
        _check_fault(fault)
        names = fault.target.split(">")
        for name in names:
            if name not in self.nodes:
                there = ", ".join(self.nodes)
                raise ArgumentValueError(f"there is no node {name!r}; there are {there or 'none'}")
        self.happened.append(fault)
        self.trace.add(self.now, "FAULT", str(fault))
        until = self.now + fault.seconds
        if fault.kind != "clock":
            self._mended_at = max(self._mended_at, until)
        node = self.nodes[names[0]]
        if len(names) == 2:
            self._break_wires(fault, node, self.nodes[names[1]], until)
        else:
            self._break_node(fault, node, until)

    def _break_wires(self, fault: Fault, near: Node, far: Node, until: float) -> None:
        ends = [
            end for end in near.all_ends() if end.peer.node is far and end.peer.link is not None
        ]
        if fault.kind == "partition":
            self._cuts[frozenset((near.name, far.name))] = until
        for end in ends:
            if fault.kind == "reset":
                end.break_off(RESET)
            elif fault.kind == "hang-up":
                end.break_off(EOF)
            elif fault.kind == "half-open":
                end.fall_silent()
            elif fault.kind == "throttle":
                end.line.throttled_until = end.peer.line.throttled_until = until
            else:
                end.stalled_until = end.peer.stalled_until = until

    def _break_node(self, fault: Fault, node: Node, until: float) -> None:
        if fault.kind == "clock":
            node.wall_offset += fault.seconds
        elif fault.kind == "flaky":
            node.flaky_until = until
            for end in node.all_ends():
                end.break_off(EOF)
        elif fault.kind == "freeze":
            node.freeze(until)
        elif node.is_up:
            node.die(quietly=fault.kind == "vanish")
            self.schedule(until, self._restart, node)

    def _restart(self, node: Node) -> None:
        self.trace.add(self.now, node.name, "starts again")
        node.start()

    # The end.

    def check(self, patience: float = PATIENCE) -> None:
        """Wait until everything has ended, and verify the final state.

        All faults stop. When all calls and jobs have ended, workers are stopped and clients are
        closed, and no engine may hold any state. The network can't be used afterwards.

        Args:
            patience: Maximum duration in seconds of virtual time.

        Raises:
            SimulationError: An invariant was violated, or something does not end; or code that the
                network runs, such as a callback, has called this method.
            TypeError, ValueError: `patience` is not a number of seconds from 0 on.
            RuntimeError: `check` has ended this network before.
        """
        self._check_goes_on()
        check_seconds("patience", patience, 0, FOR_EVER)
        try:
            self._check(patience)
        except SimulationError:
            raise
        except AssertionError as error:
            raise SimulationError(f"at the end: {error!r}", self) from error

    def _check(self, patience: float) -> None:
        self._is_planned = self._is_ending = True
        for node in self.nodes.values():
            node.flaky_until = node.wall_offset = 0.0
        until = self.now + patience
        while (left := self._unfinished()) or self.now <= self._mended_at + _A_WHILE:
            if self.now >= until:
                self.fail(f"not everything ends: {', '.join(left)}")
            self._run(self.now + _A_WHILE)
        self._look()
        self.books.check({node.name: node for node in self._nodes_of(ServerNode)})
        for node in self._nodes_of(CallingNode):
            audit_quiet(node)
        self._close()
        self._is_finished = True

    def _nodes_of(self, kind: type[N]) -> list[N]:
        return [node for node in self.nodes.values() if isinstance(node, kind)]

    def _unfinished(self) -> list[str]:
        """Describe the calls, jobs and transfers that have not ended."""
        left = [f"{node.name} is down" for node in self.nodes.values() if not node.is_up]
        left += [f"{[*n.calls]} of {n.name}" for n in self._nodes_of(CallingNode) if n.is_busy()]
        left += [f"{run.job!r} at {n.name}" for n in self._nodes_of(WorkerNode) for run in n.runs]
        left += [f"jobs at {n.name}" for n in self._nodes_of(ServerNode) if n.has_jobs()]
        left += map(repr, self._open_entries())
        if self.faults.bandwidth is not None:
            # A slow link still carries bytes, such as those of an abandoned job.
            ends = (end for node in self.nodes.values() for end in node.all_ends())
            left += [f"bytes of {e.node.name}" for e in ends if e.unacknowledged and not e.silent]
        return left

    def _open_entries(self) -> Iterator[Entry]:
        for entry in list(self.books.open):
            self.books.told(entry)
            if not entry.is_held:
                self.books.open.pop(entry, None)
            elif entry.outcome is None:
                yield entry

    def _close(self) -> None:
        self._run(self.now + _A_LONG_WHILE)
        workers = self._nodes_of(WorkerNode)
        for worker in workers:
            worker.check_looks()
            worker.check_abilities(self.now - _A_LONG_WHILE)
            worker.stop()
        # A stopping worker waits at most a second for the reply to its last request, and as long
        # for the reply to a grab.
        self._run(self.now + 70.0)
        for worker in workers:
            if worker.subscription is not None:
                self.fail(f"{worker.name} does not stop, and has nothing to do")
        for node in self._nodes_of(CallingNode):
            node.close()
        self._run(self.now + 2 * self.faults.keepalive + 60.0)
        for each in self.nodes.values():
            audit_idle(each)
