"""A node of a simulated network: a driver that runs one engine in virtual time.

The simulation has no other driver. A node can run any engine that has the transport side of
`Engine`. It does not build on `BaseDriver`, which keeps a program alive after a bug. In a
simulation, an exception raised by an engine is a finding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.address import parse_host_list
from gearman_proto.checks import check_callable
from gearman_proto.engines.base import Close, Connect
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError

from .books import Place
from .wires import ACCEPT, EOF, RESET, TIMEOUT, End

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from gearman_proto.address import ServerAddress

    from .simulation import Simulation

# Names that are valid in faults and in addresses.
_NAME: Final = re.compile(r"[\w.-]+")
# The error that a system reports for each kind of lost connection.
_ERRORS: Final[dict[str, Callable[[], Exception]]] = {
    RESET: lambda: ConnectionResetError("Connection reset by peer"),
    TIMEOUT: lambda: TimeoutError("Connection timed out"),
}
# Maximum number of consecutive calls of `handle_timeout` at the same virtual time. More of them
# count as a busy loop. (A server with a backlog is called again at once. Each call processes 250
# packets.)
_SPINS: Final = 2000
# Maximum number of attempts to connect per second and server. Attempts for the application's calls
# don't count.
_ATTEMPTS: Final = 40


def check_servers(net: Simulation, servers: Iterable[Any]) -> list[Node]:
    """Return `servers` as a list, after a check that they are nodes of `net`.

    Raises:
        TypeError: `servers` is not an iterable of nodes.
        ValueError: A node belongs to another network.
    """
    if isinstance(servers, (Node, str)) or not isinstance(servers, Iterable):
        raise ArgumentTypeError(f"servers is a list of nodes, not {servers!r}")
    nodes = list(servers)
    for server in nodes:
        if not isinstance(server, Node):
            raise ArgumentTypeError(f"{server!r} is no node of the network")
        if server.net is not net:
            raise ArgumentValueError(f"{server!r} is a node of another network")
    return nodes


class Node(Place):
    """A process of the network, which runs one engine.

    Args:
        net: The network.
        name: The name in the trace and in faults.
        make: Makes the engine, at first and after each restart. Called with the node, whose
            `wall_clock` and `rng` the engine uses.
        servers: The nodes that it can connect to. Links of the engine have an `address`, whose
            `host` is the name of one of these nodes.

    Raises:
        TypeError, ValueError: An argument has an invalid type or value.

    Attributes:
        engine: The engine.
        is_reachable: True while the host runs. Without it, attempts to connect are not even
            refused.
        frozen_until: End of the last freeze. A frozen node does nothing, as after SIGSTOP.
        flaky_until: Time until which the node closes accepted connections at once.
        is_listening: True if the node accepts connections. Its engine then has an `accept` method
            like that of ServerEngine.
        backlog: The ends of connections that the node's system has made and its engine has not
            accepted yet.
        measures: True if the driver calls `measured`, which is optional. The seed decides.
        ends: The ends of the node's connections, by the engine's links.
    """

    servers: dict[str, Node]
    # pyright wants the types of attributes that methods of a subclass assign.
    is_up: bool
    life: int
    last_loss: float
    last_refusal: float

    def __init__(
        self, net: Simulation, name: str, make: Callable[[Any], Any], servers: Sequence[Node] = ()
    ) -> None:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ArgumentValueError(f"name is {name!r}: it must be of letters, digits, . - and _")
        super().__init__(name, {server.name: server for server in check_servers(net, servers)})
        self.net = net
        self.rng: random.Random = net.rng_of(name)
        self.is_reachable: bool = True
        self.is_listening: bool = False
        self.frozen_until: float = 0.0
        self.flaky_until: float = 0.0
        self._frozen: list[tuple[float, float]] = []
        self.wall_offset: float = 0.0
        self.measures: bool = net.rng_of(f"driver of {name}").random() < 0.5
        self.ends: dict[Any, End] = {}
        self.held: list[End] = []
        self.backlog: list[End] = []
        self._make = check_callable("make", make, "of the node that makes its engine")
        self._timer_at = math.inf
        self._spins = 0
        self._spun_at = -1.0
        self._is_pumping = False
        self._attempts = 0
        self._attempts_since = 0.0
        self.engine: Any = make(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def addresses(self) -> list[ServerAddress]:
        """The addresses of `servers`."""
        return parse_host_list(list(self.servers))

    def wall_clock(self) -> float:
        """Return seconds since 1970, by the node's own clock. Faults change it."""
        return self.net.epoch + self.net.now + self.wall_offset

    def note(self, what: str, detail: str | bytes = "", *, steps: int = 0) -> None:
        """Add a line to the trace, and count `steps` calls of the engine."""
        self.net.steps += steps
        self.net.trace.add(self.net.now, self.name, what, detail)

    # Calls to the engine.

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the engine for the application, and then run the actions that the engine wants.

        Args:
            function: A method of `engine`, or a function that calls some of them.
            args: Its arguments.

        Returns:
            The return value of `function`.
        """
        self.net.steps += 1
        self._attempts -= len(self.servers)
        value = function(*args)
        self.pump()
        return value

    def receive(self, end: End, data: bytes) -> None:
        """Pass `data`, received at `end`, to the engine."""
        self.note(f"< {end.peer.node.name}", data, steps=1)
        self.engine.receive_data(end.link, data, self.net.now)
        self.pump()

    def ended(self, end: End, mark: str) -> None:
        """Report to the engine that the connection of `end` was lost or half-closed (`mark`)."""
        engine, link, now = self.engine, end.link, self.net.now
        self.note(f"< {end.peer.node.name}", mark, steps=1)
        if mark is EOF:
            engine.receive_eof(link, now)
        else:
            self._forget(end)
            engine.connection_lost(link, _ERRORS[mark](), now)
            self._tell_late(link)
        self.pump()

    def _tell_late(self, link: Any) -> None:
        """Check that late reports about a dead link have no effect."""
        engine, now = self.engine, self.net.now
        engine.receive_data(link, b"garbage\r\n\0RES", now)
        engine.connected(link, now)
        engine.connection_lost(link, OSError("late"), now)
        if engine.data_to_send(link, now):
            self.net.fail(f"{self.name} writes on {link!r}, which is no more")

    def _on_timer(self, at: float) -> None:
        if at != self._timer_at or not self.is_up:
            return
        now = self.net.now
        if self.frozen_until > now:
            self._timer_at = self.frozen_until
            self.net.schedule(self.frozen_until, self._on_timer, self.frozen_until)
            return
        self._timer_at = math.inf
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline <= now:
            self._count_spins(now)
            self.note("time", steps=1)
            self._measure(now)
            self.engine.handle_timeout(now)
            held, self.held = self.held, []
            for end in held:
                end.arrive()
        self.pump()

    def _measure(self, now: float) -> None:
        """Report the unacknowledged bytes of each link that the engine wants to be measured."""
        # Measuring is optional on both sides: some drivers do not measure, and some engines do not
        # ask. A local tunnel acknowledges everything at once, so no driver measures through one.
        links_to_measure = getattr(self.engine, "links_to_measure", None)
        if self.measures and not self.net.faults.tunnel and links_to_measure is not None:
            for link in list(links_to_measure(now)):
                self.net.books.counts["measurements"] += 1
                self.engine.measured(link, self.ends[link].unacknowledged)

    def _count_spins(self, now: float) -> None:
        self._spins = self._spins + 1 if now == self._spun_at else 0
        self._spun_at = now
        if self._spins > _SPINS:
            self.net.fail(f"{self.name} spins: it wants to be called again and again, at once")

    # Actions of the engine.

    def pump(self) -> None:
        """Run the engine's actions: connect, close, write, set the timer, and wake callers."""
        if self._is_pumping:
            return  # The outer call handles the new actions as well.
        self._is_pumping = True
        engine, ends, now = self.engine, self.ends, self.net.now
        next_action = engine.next_action
        is_done = False
        while not is_done:
            is_done = True
            while (action := next_action()) is not None:
                self._act(action)
            for link in list(engine.links_to_write()):
                if link in ends and self._write(ends[link]):
                    is_done = False
            if (action := next_action()) is not None:  # Writing can cause actions, too.
                self._act(action)
                is_done = False
            if self._wake():
                is_done = False
            if not self.is_up or engine is not self.engine:
                return  # The node has died meanwhile, and was perhaps restarted.
        self._is_pumping = False
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline < self._timer_at:
            deadline = self._timer_at = max(deadline, now)
            self.net.schedule(deadline, self._on_timer, deadline)

    def _wake(self) -> bool:
        """Pass the engine's news to the application. Return whether it has called the engine."""
        return False

    def write_more(self, end: End) -> None:
        """Write more of the pending bytes, as the connection of `end` has room again."""
        self._write(end)
        self.pump()

    def _write(self, end: End) -> bool:
        """Write the engine's pending bytes. Return whether there were any."""
        engine, link, net = self.engine, end.link, self.net
        wrote = False
        while not end.is_blocked:
            net.steps += 1
            data = engine.data_to_send(link, net.now)
            if not data:
                return wrote
            wrote = True
            end.write(data)
        return wrote

    def _act(self, action: Any) -> None:
        if isinstance(action, Connect):
            self._connect(action.link)
        elif isinstance(action, Close):
            end = self.ends.get(action.link)
            if end is None:
                problem = f"closes {action.link!r}, which it has closed, or was lost"
                self.net.fail(f"{self.name} {problem}")
            self.note(f"closes {end.peer.node.name}")
            self._forget(end, closes=True)
        else:
            self.is_listening = False
            self.note("stops listening")

    def _forget(self, end: End, *, closes: bool = False) -> None:
        self.ends.pop(end.link, None)
        if closes:
            if end.is_healthy() and not self._may_leave(end):
                self.net.fail(
                    f"{self.name} gives up {end.peer.node.name} although it is healthy: it was "
                    f"last heard at {end.heard_at:.6f}, it last acknowledged something at "
                    f"{end.moved_at:.6f}, and {end.unacknowledged} bytes are on their way to it"
                )
            end.close()
        else:
            end.leave()
        self.last_loss = self.net.now
        if not end.is_connected:
            self.last_refusal = self.net.now

    def _may_leave(self, end: End) -> bool:  # noqa: ARG002 - for ClientNode
        """Return whether the engine may close the healthy connection of `end` now."""
        return True

    # Connections.

    def _connect(self, link: Any) -> None:
        net, now = self.net, self.net.now
        server = self.servers[link.address.host]
        if now - self._attempts_since >= 1.0:
            self._attempts, self._attempts_since = 0, now
        self._attempts += 1
        if self._attempts > _ATTEMPTS * len(self.servers):
            net.fail(f"{self.name} tries to connect again and again, without a pause")
        self.note(f"connects to {server.name}")
        end = End(net, self, link)
        end.peer = End(net, server, None)
        end.peer.peer = end
        self.ends[link] = end
        end.stalled_until = net.cut_until(self.name, server.name)
        net.schedule(now + net.latency(), self._try, end)

    def _try(self, end: End) -> None:
        """Process the connection request at the server."""
        net, now = self.net, self.net.now
        server = self.servers[end.peer.node.name]
        if end.gone or end.silent or not server.is_reachable or not self.is_up:
            return
        later = max(self.frozen_until, end.stalled_until)
        if later > now:
            net.schedule(later, self._try, end)
        elif not server.is_listening:
            self._forget(end)
            self.note(f"is refused by {server.name}", steps=1)
            error = ConnectionRefusedError("Connection refused")
            self.engine.connect_failed(end.link, error, now)
            self.pump()
        else:
            end.is_connected = end.peer.is_connected = True
            server.backlog.append(end.peer)
            end.peer.expect(ACCEPT)
            self.note(f"is connected to {server.name}", steps=1)
            self.engine.connected(end.link, now)
            self.pump()

    def accept(self, end: End) -> None:
        """Pass the new connection of `end` to the engine, or close it if the node is flaky."""
        net = self.net
        self.backlog.remove(end)
        if self.flaky_until > net.now:
            self.note(f"takes a connection of {end.peer.node.name}, and closes it")
            end.close()
            return
        net.accepted += 1
        self.note(f"accepts {end.peer.node.name}", steps=1)
        end.link = self.engine.accept(end.peer.node.name, net.accepted, net.now)
        self.ends[end.link] = end
        self.pump()

    def freeze(self, until: float) -> None:
        """Do nothing until `until`, like a stopped process."""
        self._frozen.append((self.net.now, until))
        self.frozen_until = max(self.frozen_until, until)

    def was_frozen(self, since: float, until: float | None = None) -> bool:
        """Return whether it was frozen at `since`, or at any time from then to `until`."""
        last = since if until is None else until
        return any(begun <= last and since <= ended for begun, ended in self._frozen)

    def all_ends(self) -> list[End]:
        """Return the node's ends of all connections, including those in the backlog."""
        return [*self.ends.values(), *self.backlog]

    # Dying.

    def die(self, *, quietly: bool) -> None:
        """Die at once. The system closes all connections, or, with `quietly`, sends nothing."""
        self.is_up = self.is_listening = False
        self.is_reachable = not quietly
        for end in self.all_ends():
            if quietly:
                end.fall_silent()
                end.leave()
            else:
                end.close()
        self.ends.clear()
        self.held.clear()
        self.backlog.clear()
        self._timer_at = math.inf
        self.deaths.append(self.net.now)
        self.died()

    def died(self) -> None:
        """Drop the state of the application, as its process has died."""

    def start(self) -> None:
        """Restart with a new engine, which has no state."""
        self.life += 1
        self.is_up = self.is_reachable = True
        self.frozen_until = 0.0
        self._is_pumping = False
        self.engine = self._make(self)
        self.begin()
        self.pump()

    def begin(self) -> None:
        """Begin the work of the node."""
