"""Misuse raises at once; the message names the argument, its value and the valid ones."""

# mypy: disable-error-code="arg-type,list-item,return-value,type-var,union-attr"
from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.testing import (
    MAGIC_REQUEST,
    ConnectionParser,
    Fault,
    Faults,
    Network,
    Node,
    SimulationError,
    check_chunking,
    check_exceptions,
    check_meaning,
    check_round_trip,
    check_time,
    chunkings,
    pack,
    pack_event,
    parse,
    shrink,
)
from gearman_proto.testing.strategies import (
    admin_replies,
    chunked,
    hostile_streams,
    packets,
    payloads,
    sessions,
    streams,
)
from gearman_proto.wire.packets import BY_NAME

from .cast import Cast, reverse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.jobs.job import WorkerJob

ECHO = BY_NAME["ECHO_REQ"]


class Bytes:
    """A parser that yields single bytes."""

    def receive(self, data: bytes) -> Iterator[int]:
        yield from data


def network(**options: Any) -> Network:
    return Network(random.Random, 1, **options)


def on_a_server(name: str, *args: Any, **options: Any) -> Callable[[], object]:
    """Add a node for a server."""

    def add() -> None:
        net = network()
        getattr(net, name)([net.server()], *args, **options)

    return add


def for_a_client(method: str, *args: Any, **options: Any) -> Callable[[], object]:
    """Call a method of a client."""

    def call() -> None:
        net = network()
        getattr(net.client([net.server()]), method)(*args, **options)

    return call


def ask_without_a_command() -> None:
    net = network()
    net.admin(net.server()).ask("status")


# Arguments.


BAD_VALUES: list[tuple[Callable[[], object], str]] = [
    (lambda: Faults(rate=math.inf), "rate is inf"),
    (lambda: Faults(cut=1.5), "cut is 1.5"),
    (lambda: Faults(keepalive=-1), "keepalive is -1"),
    (lambda: Faults(capacity=0), "capacity is 0: it must be at least 1"),
    (lambda: Faults(receive_buffer=-1), "receive_buffer is -1"),
    (lambda: Faults(tunnel=-1), "tunnel is -1"),
    (lambda: Faults(kinds=("earthquake",)), "there is no fault 'earthquake'; there are reset"),
    (lambda: Faults(rate=1.0, kinds=()), "kinds is empty"),
    (lambda: Faults(latency=(-0.1, 1.0)), "latency is -0.1"),
    (lambda: Faults(latency=(1.0, 0.5)), "the highest latency is 0.5: it must be at least 1"),
    (lambda: Faults(latency=(0.1,)), r"latency is \(0.1,\): it must be two numbers"),
    (lambda: Faults(bandwidth=(1, 2, 3)), r"bandwidth is \(1, 2, 3\): it must be two numbers"),
    (lambda: Faults(bandwidth=(0, 1)), "the lowest bandwidth is 0"),
    (lambda: Faults(bandwidth=(1, math.inf)), "the highest bandwidth is inf"),
    (lambda: Faults(bandwidth=(2, 1)), "the highest bandwidth is 1: it must be at least 2"),
    (lambda: Faults(bandwidth=(math.nan, 1)), "the lowest bandwidth is nan"),
    (lambda: Fault(math.nan, "crash", "s"), "at is nan"),
    (lambda: Fault(1, "crash", "s", -1), "seconds is -1"),
    (lambda: Fault(1, "clock", "s", math.inf), "seconds is inf"),
    (lambda: Fault(1, "reset", "server1"), "target is 'server1': for 'reset' it must be like 'cli"),
    (lambda: Fault(1, "crash", "a>b"), "target is 'a>b': for 'crash' it must be like 'server1'"),
    (lambda: Fault.parse("1.0 crash"), "'1.0 crash' is no fault: it must be like"),
    (lambda: Fault.parse("soon crash server1 0"), "'soon crash server1 0' is no fault"),
    (lambda: Fault.parse("1.0 earthquake server1 0"), "there is no fault 'earthquake'"),
    (lambda: network().server("two words"), "name is 'two words': it must be of letters"),
    (lambda: network().client([network().server()]), "<ServerNode server1> is a node of another"),
    (lambda: network().admin(network().server()), "<ServerNode server1> is a node of another"),
    (lambda: network().worker([network().server()], {}), "is a node of another network"),
    (lambda: network().add(network().server()), "is a node of another network"),
    (on_a_server("worker", {"f": reverse}, limit=-1), "timeout is not more than 0"),
    (on_a_server("worker", {"f": reverse}, hook_time=math.nan), "hook_time is nan"),
    (lambda: network().run(until=-1), "until is -1"),
    (lambda: network().check(math.inf), "patience is inf"),
    (lambda: network().schedule(math.nan, print), "at is nan"),
    (lambda: network().break_(Fault(1, "crash", "s1")), "there is no node 's1'; there are none"),
    (for_a_client("submit", [{"task": "f", "data": b""}], timeout=-1), "timeout is -1"),
    (for_a_client("wait", [GearmanJobRequest.from_unique("u")]), "no request that client1 has sub"),
    (for_a_client("updates", GearmanJobRequest.from_unique("u")), "no request that client1 has"),
    (lambda: shrink([], bool, most=-1), "most is -1"),
    (lambda: parse(Bytes, [b"a", b""]), "a chunk is empty"),
    (lambda: pack(ECHO, [b""], b"REQ"), "magic is b'REQ': it must have four bytes"),
    (lambda: check_time(Bytes, bytes, float, size=0), "size is 0"),
    (lambda: check_time(Bytes, bytes, float, factor=1), "factor is 1"),
    (lambda: check_time(Bytes, bytes, float, slack=math.nan), "slack is nan"),
    (lambda: check_time(Bytes, bytes, float, tries=0), "tries is 0"),
    (lambda: payloads(-1), "max_size is -1"),
]
BAD_TYPES: list[tuple[Callable[[], object], str]] = [
    (lambda: Faults(kinds="crash"), "kinds is a tuple of kinds of faults, not 'crash'"),
    (lambda: Faults(latency=0.1), "latency is two numbers of seconds, not 0.1"),
    (lambda: Faults(latency=("a", 1)), "the lowest latency is a number, not 'a'"),
    (lambda: Faults(bandwidth=9), "two numbers of bytes per second, or None for no limit, not 9"),
    (lambda: Faults(capacity=1.5), "capacity is a whole number, not 1.5"),
    (lambda: Fault(1, "crash", 5), "target is the name of a node"),
    (lambda: Network(5), "make_rng is a function of a text, such as random.Random, not 5"),
    (lambda: Network(lambda text: None), "make_rng has made None and no random.Random"),
    (lambda: network(faults={"rate": 1.0}), "faults is a Faults, not"),
    (lambda: network(replay=5), "replay is a list of faults, not 5"),
    (lambda: network(replay=["1.0 crash server1 0.0"]), "a fault is a Fault, which Fault.parse"),
    (lambda: network().client("server1"), "servers is a list of nodes, not 'server1'"),
    (lambda: network().client(["server1"]), "'server1' is no node of the network"),
    (lambda: network().add(5), "5 is no node of the network"),
    (lambda: Node(network(), "node", 5), "make is a function of the node that makes its engine"),
    (on_a_server("worker", [reverse]), "callbacks is a dict of callbacks by function"),
    (on_a_server("worker", {"f": b"result"}), "the callback of 'f' is a function of a job"),
    (ask_without_a_command, "command is one of those in gearman_proto.text, not 'st"),
    (lambda: shrink([], None), "fails is a function of a list of decisions, not None"),
    (lambda: parse(Bytes(), [b"a"]), "make is a function that makes a parser, not <"),
    (lambda: parse(bytes, [b"a"]), "make has made b'', which has no method receive"),
    (lambda: parse(Bytes, "abc"), "a chunk is bytes, not 'a'"),
    (lambda: ConnectionParser(5), "role must be a Role, not 5"),
    (lambda: pack_event(5, MAGIC_REQUEST), "event is an event, not 5"),
    (lambda: chunkings("abc"), "data is bytes, not 'abc'"),
    (lambda: check_chunking(Bytes, "abc"), "data is bytes, not 'abc'"),
    (lambda: check_chunking(Bytes, b"abc", ["abc"]), "a chunk is bytes, not 'abc'"),
    (lambda: check_exceptions(Bytes, b"abc", "ValueError"), "isinstance"),
    (lambda: check_exceptions(Bytes, 5, ValueError), "data is bytes, not 5"),
    (lambda: check_meaning(Bytes, None, []), "data is bytes, not None"),
    (lambda: check_round_trip(Bytes, b"abc", None), "pack is a function of an event that"),
    (lambda: check_time(Bytes, None, float), "grow is a function of a number of bytes that ret"),
    (lambda: check_time(Bytes, bytes, 5), "clock is a function that returns seconds, not 5"),
    *(
        (lambda draw=draw: draw("server"), "role is a Role: the receiver's, not 'server'")
        for draw in (hostile_streams, packets, sessions, streams)
    ),
    (lambda: admin_replies(b"status"), "command is one of those in gearman_proto.text"),
    (lambda: chunked("abc"), "data is bytes, not 'abc'"),
]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *((make, ValueError, message) for make, message in BAD_VALUES),
        *((make, TypeError, message) for make, message in BAD_TYPES),
    ],
)
def test_argument_that_can_not_be_is_an_error_at_once(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


# Call order, and calls from callbacks.


def test_run_without_a_limit_is_refused_with_endless_events() -> None:
    cast = Cast()
    with pytest.raises(ValueError, match="until is None, and worker1 looks for jobs for ever"):
        cast.net.run()
    cast.run(1.0)
    cast.worker.stop()
    cast.net.run()
    with pytest.raises(ValueError, match="until is None, and with a rate faults never end"):
        network(faults=Faults(rate=1.0)).run()


def test_run_without_a_limit_fails_with_endless_events() -> None:
    net = network()

    def again() -> None:
        net.schedule(net.now + 1000.0, again)

    again()
    with pytest.raises(SimulationError, match=r"left to do after 1e\+06 seconds: give `until`"):
        net.run()


def test_duplicate_name_is_refused_before_the_node_starts() -> None:
    cast = Cast()
    with pytest.raises(ValueError, match="there is a node 'worker1' already"):
        cast.net.worker([cast.server], {"reverse": reverse}, "worker1")
    assert cast.net.nodes["worker1"] is cast.worker
    cast.run(1.0)
    assert cast.net.accepted == 1


def test_finished_network_refuses_calls() -> None:
    net = network()
    net.check()
    for call in (net.run, net.check, net.server):
        with pytest.raises(RuntimeError, match=r"is over, as check\(\) was called: make a new"):
            call()


def test_fault_of_an_unknown_node_raises_and_names_the_known() -> None:
    cast = Cast("0.5 crash worker2 1.0")
    cast.fails("no node 'worker2'; there are server1, worker1, client1", 1.0)


@pytest.mark.parametrize("method", ["run", "check"])
def test_callback_that_runs_the_network_fails_the_simulation(method: str) -> None:
    cast = Cast()
    cast.worker.callbacks["slowly"] = lambda job: getattr(cast.net, method)(10.0)
    cast.submit()
    cast.fails(r"what it calls can't call run\(\) or check\(\)", 5.0)


@pytest.mark.parametrize("value", [math.nan, "soon"])
def test_callback_that_yields_an_invalid_step_fails_the_simulation(value: Any) -> None:
    def work(job: WorkerJob) -> Iterator[Any]:
        yield value

    cast = Cast()
    cast.worker.callbacks["slowly"] = work
    cast.submit()
    cast.fails("what a callback yields is", 5.0)
