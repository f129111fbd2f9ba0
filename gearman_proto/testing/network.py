"""A network in which nothing is real but the engines: simulation of a whole system, from a seed.

Theory of operation
    There is one thread and no time. What is to happen is in a heap, by virtual time and then by the
    order in which it was planned; the network takes the first, sets its clock, and does it. All
    that is left to chance comes from sources that are made of the seed: one for the network, one
    for each node, one for the faults. Nothing comes from a hash, an address in memory or a clock,
    so the same seed is the same run, byte for byte.

    A `Node` runs one engine and does what the engine wants. Two nodes share nothing but connections
    (`wires`), and what one writes is an event of the future for the other; so the order in which
    nodes are called is the network's to choose.

    The `Books` are kept beside the engines. What is wrong is found in the step that did it: `fail`
    raises SimulationError, which has the seed, the faults and the last steps in its message. That
    goes for an exception out of an engine, too.

    `check` is the end: nothing breaks any more, what is broken is mended, and then all that has
    been begun has to come to its end, and all engines have to be as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gearman_proto.arguments import FOR_EVER, check_seconds, check_type
from gearman_proto.errors import ArgumentValueError

from .audit import audit, audit_idle, audit_quiet
from .clients import AdminNode, ClientNode
from .faults import Fault, Faults, draw
from .nodes import Node, check_servers
from .servers import ServerNode
from .simulation import Simulation, SimulationError
from .wires import EOF, RESET
from .workers import WorkerNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .workers import Callback

N = TypeVar("N", bound=Node)

# Seconds of virtual time between two looks whether everything has ended.
_A_WHILE: Final = 0.5
# Seconds in which what a node says of itself arrives.
_A_LONG_WHILE: Final = 8.0
#: Seconds of virtual time after the last fault until all must have come to its end: a server may be
#: left alone for 30 seconds, a connection be noticed as dead after 60, and so on.
PATIENCE: Final = 400.0


def _check_fault(fault: Fault) -> Fault:
    return check_type("a fault", fault, Fault, "a Fault, which Fault.parse makes of its text")


class Network(Simulation):
    """Nodes that speak Gearman with each other, in virtual time.

    Args:
        make_rng: Makes a source of chance out of a text, the same of the same: `random.Random`.
        seed: What all chance comes from: the same seed is the same run.
        faults: How bad the network is; by default nothing breaks.
        replay: The faults that happen, in place of such as `faults.rate` draws.
        epoch: What wall clocks show at the beginning, in seconds since 1970.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.

    What it has beside `nodes`, the nodes by name, is in `Simulation`: `now`, `steps`, `trace`,
    `books`, `happened`. A node that is given no `name` is ``server1``, ``client1`` and so on.
    """

    def __init__(
        self,
        make_rng: Callable[[str], random.Random],
        seed: int = 0,
        faults: Faults | None = None,
        *,
        replay: Iterable[Fault] | None = None,
        epoch: float = 1_700_000_000.0,
    ) -> None:
        faults = Faults() if faults is None else check_type("faults", faults, Faults, "a Faults")
        super().__init__(make_rng, seed, faults, epoch)
        self.nodes: dict[str, Node] = {}
        self._replay: Iterator[Fault] | None = None
        if replay is not None:
            check_type("replay", replay, Iterable, "a list of faults")
            self._replay = iter([_check_fault(fault) for fault in replay])
        self._planned: Iterator[Fault] = iter(())
        # Whether the first fault was planned, once all nodes were there; whether none comes again.
        self._is_planned = False
        self._is_ending = self._is_over = False
        # When the last of what lasts is over, and what it has kept back has arrived.
        self._mended_at = 0.0

    # Making it.

    def server(self, name: str | None = None, **options: Any) -> ServerNode:
        """Add a job server. `options` are for ServerEngine; see ServerNode."""
        return self.add(ServerNode(self, self._name(name, "server", ServerNode), **options))

    def worker(
        self,
        servers: Sequence[Node],
        callbacks: Mapping[str, Callback],
        name: str | None = None,
        **options: Any,
    ) -> WorkerNode:
        """Add a worker of `servers`. `options` are for WorkerEngine; see WorkerNode."""
        name = self._name(name, "worker", WorkerNode)
        return self.add(WorkerNode(self, name, servers, callbacks, **options))

    def client(
        self, servers: Sequence[Node], name: str | None = None, **options: Any
    ) -> ClientNode:
        """Add a client of `servers`. `options` are for ClientEngine; see ClientNode."""
        return self.add(
            ClientNode(self, self._name(name, "client", ClientNode), servers, **options)
        )

    def admin(self, server: Node, name: str | None = None, **options: Any) -> AdminNode:
        """Add an admin client of `server`. `options` are for AdminEngine."""
        return self.add(AdminNode(self, self._name(name, "admin", AdminNode), server, **options))

    def add(self, node: N) -> N:
        """Add `node`, which was made by hand, as one with another engine is.

        Raises:
            TypeError: It is no node.
            ValueError: There is one of this name; or it is of another network.
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
        """Return a name for a new node, checked before that is made, as nodes start at once."""
        count = 1 + sum(isinstance(node, kind) for node in self.nodes.values())
        return self._check_new(name or f"{what}{count}")

    def _check_goes_on(self) -> None:
        if self._is_over:
            raise RuntimeError("this network is over, as check() was called: make a new one")

    # Running it.

    def run(self, until: float | None = None) -> None:
        """Let time pass until `until`, in virtual seconds; by default until nothing is left to do.

        A worker that works looks for jobs for ever, and `Faults` with a rate never end: then there
        must be an `until`.

        Raises:
            SimulationError: Something was found that must not be; or something that the network
                calls has called this.
            TypeError, ValueError: `until` is no number of seconds from 0 on; or there is none, and
                there will always be something to do.
            RuntimeError: The network is over.
        """
        self._check_goes_on()
        if until is not None:
            check_seconds("until", until, 0, FOR_EVER)
        elif self.faults.rate and self._replay is None:
            raise ArgumentValueError("until is None, and with a rate faults never end: give a time")
        else:
            for node in self.nodes.values():
                if isinstance(node, WorkerNode) and node.stream is not None:
                    raise ArgumentValueError(
                        f"until is None, and {node.name} looks for jobs for ever: give a time"
                    )
        if not self._is_planned:
            self._is_planned = True
            self._plan()
        self._run(until)

    def _audit(self) -> int:
        """Look at all nodes, and return how many jobs that were."""
        return sum(audit(node) for node in self.nodes.values() if node.is_up)

    # What goes wrong.

    def _plan(self) -> None:
        """Plan the next fault."""
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
        """Let `fault` happen now, whatever its time is.

        One of a connection that is not there changes nothing.

        Raises:
            TypeError: It is no fault.
            ValueError: There is no such node.
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
        """Have everything come to its end, and look whether all is as it must be.

        No fault happens any more. When all calls are over and all jobs done, workers are told to
        stop and clients to end, and nothing may be left in any engine. The network is over then.

        Args:
            patience: Seconds of virtual time that this may take.

        Raises:
            SimulationError: Something was found that must not be, or something never ends; or
                something that the network calls has called this.
            TypeError, ValueError: `patience` is no number of seconds from 0 on.
            RuntimeError: The network is over.
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
        workers = [node for node in self.nodes.values() if isinstance(node, WorkerNode)]
        callers = [n for n in self.nodes.values() if isinstance(n, (ClientNode, AdminNode))]
        servers = {n.name: n for n in self.nodes.values() if isinstance(n, ServerNode)}
        until = self.now + patience

        def is_idle() -> bool:
            return self.now > self._mended_at + _A_WHILE and not (
                any(not node.is_up for node in self.nodes.values())
                or any(node.is_busy() for node in callers)
                or any(worker.runs for worker in workers)
                or any(server.has_jobs() for server in servers.values())
                or any(True for _ in self._open_entries())
                or self._is_transferring()
            )

        while not is_idle():
            if self.now >= until:
                self.fail(f"not everything ends: {self._what_is_left(callers, workers, servers)}")
            self._run(self.now + _A_WHILE)
        self._look()
        self.books.check(servers)
        for node in callers:
            audit_quiet(node)
        self._close(workers, callers)
        self._is_over = True

    def _is_transferring(self) -> bool:
        """Return whether a slow link still carries anything, such as a job that was given up."""
        ends = (end for node in self.nodes.values() for end in node.all_ends())
        return self.faults.bandwidth is not None and any(
            end.unacknowledged for end in ends if not end.silent
        )

    def _open_entries(self) -> Iterator[Any]:
        for entry in list(self.books.open):
            self.books.told(entry)
            if not entry.is_held:
                self.books.open.pop(entry, None)
            elif entry.outcome is None:
                yield entry

    def _what_is_left(self, callers: Any, workers: Any, servers: Any) -> str:
        calls = [call for node in callers for call in node.calls]
        runs = [f"{run.job!r} at {node.name}" for node in workers for run in node.runs]
        jobs = [name for name, server in servers.items() if server.has_jobs()]
        busy = [node.name for node in callers if node.is_busy()]
        entries = list(self._open_entries())
        return f"{calls} and {entries} of {busy}, executions {runs}, jobs at {jobs}"

    def _close(self, workers: Any, callers: Any) -> None:
        self._run(self.now + _A_LONG_WHILE)
        for worker in workers:
            worker.check_looks()
            worker.check_abilities(self.now - _A_LONG_WHILE)
            worker.stop()
        # The answer to what was sent last is waited for, for a second at most; a grab, as long.
        self._run(self.now + 70.0)
        for worker in workers:
            if worker.stream is not None:
                self.fail(f"{worker.name} does not stop, and has nothing to do")
        for node in callers:
            node.close()
        self._run(self.now + 2 * self.faults.keepalive + 60.0)
        for node in self.nodes.values():
            audit_idle(node)
