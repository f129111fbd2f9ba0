"""In any network, clients, workers, servers and admin clients keep their promises.

A plan is a list of steps, which are tuples of Python literals: the nodes, the actions of their
applications, the faults, and the time of each. A plan is generated from a seed or from bytes. Any
part of a plan is a plan too, so plans can be shrunk.

`check` is for atheris and pytest. `simulate` runs plans one after the other.
"""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing.clients import AdminNode, ClientNode
from gearman_proto.testing.faults import KINDS, Fault, Faults, draw
from gearman_proto.testing.network import PATIENCE, Network
from gearman_proto.testing.simulation import SimulationError
from gearman_proto.testing.wires import HEALTHY
from gearman_proto.testing.workers import WorkerNode
from gearman_proto.wire import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.testing.clients import Call
    from gearman_proto.testing.nodes import Node
    from gearman_proto.testing.workers import Step

Plan: TypeAlias = "list[tuple[Any, ...]]"

FUNCTIONS: Final = ["f", "g", "h"]
COMMANDS: Final[dict[str, text.Command[Any]]] = {
    "status": text.status(),
    "prioritystatus": text.prioritystatus(),
    "workers": text.workers(),
    "show jobs": text.show_jobs(),
    "show unique jobs": text.show_unique_jobs(),
    "version": text.version(),
    "create": text.create_function("other"),
    "drop": text.drop_function("other"),
}
# The fraction of plans with slow links, and the maximum total size of their large payloads in
# bytes.
_SLOW: Final = 0.4
# The fraction of plans with cancelled jobs.
_CANCELLING: Final = 0.4
# The fraction of plans with workers that pull their jobs.
_PULLING: Final = 0.4
# The fraction of plans with streams of jobs.
_STREAMING: Final = 0.3
_MOST_BYTES: Final = 12_000_000
# Number of bytes for each random number. After the bytes are used up, a hash of them seeds the
# rest.
_WORD: Final = 2


class Bytes(random.Random):
    """A random generator that draws from given bytes as long as there are any.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(zlib.crc32(data))
        self._data = data
        self._at = 0

    def _take(self) -> float | None:
        word = self._data[self._at : self._at + _WORD]
        self._at += _WORD
        return int.from_bytes(word, "big") / 256 ** len(word) if word else None

    def random(self) -> float:
        """Return a number from 0.0 to 1.0."""
        number = self._take()
        return super().random() if number is None else number

    def getrandbits(self, k: int) -> int:
        """Return a number of `k` bits."""
        number = self._take()
        return super().getrandbits(k) if number is None else int(number * 2**k)


# The work of a job, as described by its data.


def work(job: WorkerJob) -> bytes | Iterator[Step]:
    """Do the work that the job's data describes."""
    number, seconds, updates, end, _ = job.data.split(b" ", 4)
    end, _, more = end.partition(b"+")
    result = b"%s by %s" % (number, job.wire_handle) + b"." * int(more or b"0")
    if updates == b"0" and float(seconds) == 0.0:
        return _finish(end, result)
    return _slowly(float(seconds), int(updates), end, result)


def _slowly(seconds: float, updates: int, end: bytes, result: bytes) -> Iterator[Step]:
    for number in range(updates):
        if seconds:
            yield seconds
        yield (
            JobData(b"%d of %s" % (number, result)),
            JobWarning(b"%d of %s" % (number, result)),
            JobProgress(number, updates),
        )[number % 3]
    if seconds:
        yield seconds
    return _finish(end, result)  # type: ignore[return-value]


def _finish(end: bytes, result: bytes) -> bytes:
    if end == b"fail":
        raise RuntimeError(result.decode())
    return result


# Plans.


def plan_of(rng: random.Random, *, size: int = 60) -> Plan:
    """Generate a plan.

    Args:
        rng: The random generator.
        size: Maximum number of actions of applications.
    """
    chance = rng.random
    calm = chance() < 0.2
    spread = rng.choice([0.0005, 0.002, 0.02, 0.3])
    network = {
        "latency": (0.0001, spread),
        "cut": rng.choice([0.0, 0.02, 0.3]),
        "capacity": rng.choice([1_000_000, 1_000_000, 20_000, 1000 if spread < 0.01 else 20_000]),
        "keepalive": rng.choice([30.0, 60.0]),
    }
    plan: Plan = [("network", rng.getrandbits(32), network)]
    servers = [f"s{number}" for number in range(rng.choice([1, 1, 1, 2, 3]))]
    # A job that always times out is retried again and again.
    limits = [1.5, 3.0] if chance() < 0.3 else [None]
    retries = [None, None, None, 10, 0] if limits == [None] else [2, 1, 0]
    for name in servers:
        options: dict[str, Any] = {"job_retries": rng.choice(retries)}
        if chance() < 0.15:
            options["max_queue_size"] = rng.randrange(1, 6)
        plan.append(("server", name, options))
    clients = [f"c{number}" for number in range(rng.randrange(1, 4))]
    for name in clients:
        options = {"exceptions": chance() < 0.8, "heartbeat": rng.choice([2.0, 10.0, 30.0, None])}
        if len(servers) > 1:
            options["routing"] = rng.choice(["random", "unique"])
        if options["heartbeat"] is None and not calm:
            options["heartbeat"] = 5.0  # Otherwise, a call on a silent connection would never end.
        plan.append(("client", name, _some(rng, servers), options))
    workers = [f"w{number}" for number in range(rng.randrange(1, 4))]
    for name in workers:
        functions = FUNCTIONS if name == "w0" else FUNCTIONS[: rng.randrange(1, 4)]
        options = {
            "max_jobs": rng.choice([1, 1, 2, 5]),
            "limit": rng.choice(limits),
            "hook_time": rng.choice([0.0, 0.0, 0.05, 0.5]),
            "defer_time": rng.choice([None, None, 0.0, 0.5]),
            "exceptions": chance() < 0.3,
            "poll_interval": rng.choice([5.0, 5.0, 60.0]),
            "max_outage": rng.choice([None, 60.0, 5.0]),
        }
        served = servers if name == "w0" else _some(rng, servers)
        plan.append(("worker", name, served, functions, options))
    admins = ["a0"] if chance() < 0.3 else []
    plan += [("admin", name, rng.choice(servers)) for name in admins]
    horizon = rng.choice([2.0, 20.0, 100.0])
    count = rng.randrange(1, rng.choice([size // 4, size, size, 5 * size]))
    burst = rng.choice([1, 2, 5])
    for _ in range(count):
        at = round(horizon * chance(), 6)
        plan += _action(rng, at, clients, workers, admins, burst)
    if not calm:
        rate = rng.choice([0.5, 2.0, 6.0]) / horizon ** rng.choice([0.5, 1.0])
        pairs = [
            f"{step[1]}>{server}"
            for step in plan
            if step[0] in ("client", "worker")
            for server in step[2]
        ]
        kinds = tuple(rng.sample(KINDS, rng.randrange(1, len(KINDS) + 1)))
        for fault in draw(Faults(rate, kinds), rng, [*servers, *clients, *workers], pairs):
            if fault.at > horizon:
                break
            plan.append(("fault", fault.at, str(fault)))
    if chance() < _SLOW:
        plan = _slowed(rng, plan, clients, workers)
    if chance() < _CANCELLING:
        plan = _cancelling(rng, plan, clients, horizon)
    if chance() < _PULLING:
        plan = [_pulling(rng, step) for step in plan]
    if chance() < _STREAMING:
        plan += [_stream(rng, clients, horizon) for _ in range(rng.randrange(1, 5))]
    return plan


def _slowed(rng: random.Random, plan: Plan, clients: list[str], workers: list[str]) -> Plan:
    """Return `plan` with links that have a rate and buffers, and with payloads of megabytes."""
    (_, seed, network), *steps = plan
    low = rng.choice([HEALTHY, HEALTHY, 50_000, 300_000, 2_000_000])
    network = {
        **network,
        "bandwidth": (low, low * rng.choice([1, 4, 100])),
        "capacity": rng.choice([16_384, 131_072, 1_000_000, 4_000_000]),
        "receive_buffer": rng.choice([65_536, 65_536, 1_000_000, 6_000_000]),
        "tunnel": rng.choice([0, 0, 0, 65_536, 2_000_000]),
    }
    if rng.random() < 0.5:
        # Only connections without faults are required to survive.
        steps = [step for step in steps if step[0] != "fault" or " throttle " in step[2]]
    horizon = rng.choice([30.0, 300.0, 1000.0])
    most = _MOST_BYTES
    for _ in range(rng.randrange(1, 8)):
        at = round(horizon * rng.random(), 6)
        job = _job(rng, "submit")
        kind = rng.choice(["data", "data", "result", "result", "both"])
        size = min(rng.choice([100_000, 600_000, 2_000_000, 4_000_000, 8_000_000]), most)
        most -= size
        if kind != "result":
            job["more"] = size
        if kind != "data":
            job["data"] = job["data"].replace(b" complete ", b" complete+%d " % size)
        options = {
            "background": rng.random() < 0.3,
            "max_retries": rng.choice([0, 0, 1, 3]),
            "timeout": rng.choice([None, None, 30.0, 300.0]),
            "accepted_only": rng.random() < 0.2,
        }
        then = rng.choice(["keep", "keep", "forget", "wait"])
        steps.append(("submit", at, rng.choice(clients), [job], options, then))
        if rng.random() < 0.4:
            at = round(at + rng.choice([1.0, 30.0, 300.0]) * rng.random(), 6)
            worker = rng.choice(workers)
            steps += [("stop", at, worker), ("work", round(at + 600.0 * rng.random(), 6), worker)]
    return [("network", seed, network), *steps]


def _cancelling(rng: random.Random, plan: Plan, clients: list[str], horizon: float) -> Plan:
    """Return `plan` with jobs that are cancelled, by a call or with their abandoned submits."""
    steps = []
    for step in plan:
        if step[0] == "submit" and rng.random() < 0.3:
            options = {**step[4], "cancel_if_abandoned": True}
            steps.append((*step[:4], options, step[5]))
        else:
            steps.append(step)
    for _ in range(rng.randrange(1, 30)):
        at = round(horizon * rng.random(), 6)
        timeout = rng.choice([None, None, 0.01, 5.0])
        steps.append(("cancel", at, rng.choice(clients), rng.random(), timeout, rng.random()))
    return steps


def _pulling(rng: random.Random, step: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return `step` of a plan. If it adds a worker, the worker might pull its jobs."""
    if step[0] != "worker" or rng.random() < 0.3:
        return step
    timeout = rng.choice([None, 0.3, 5.0])
    options = {**step[4], "defer_time": None, "pull": True, "grab_timeout": timeout}
    return (*step[:4], options)


def _stream(rng: random.Random, clients: list[str], horizon: float) -> tuple[Any, ...]:
    """Return a step that submits a stream of jobs."""
    at = round(horizon * rng.random(), 6)
    jobs = [_job(rng, "submit") for _ in range(rng.randrange(1, 20))]
    options = {
        "window": rng.choice([1, 2, 10]),
        "max_retries": rng.choice([0, 1, 3]),
        "timeout": rng.choice([None, None, 1.0, 30.0]),
    }
    return ("stream", at, rng.choice(clients), jobs, options)


def _some(rng: random.Random, names: Sequence[str]) -> list[str]:
    return sorted(rng.sample(names, rng.randrange(1, len(names) + 1)))


def _action(
    rng: random.Random,
    at: float,
    clients: list[str],
    workers: list[str],
    admins: list[str],
    burst: int,
) -> Plan:
    kind = rng.choices(
        [
            "submit",
            "later",
            "statuses",
            "give up",
            "wait",
            "worker",
            "ask",
            "find",
            "close",
            "bulk",
        ],
        [60, 10, 5, 5, 10, 8, 5, 10, 0.5, 0.2],
    )[0]
    client = rng.choice(clients)
    if kind == "find":
        return [("find", at, client, rng.choice(["a", "b"]), rng.choice([None, 5.0]))]
    if kind == "close":
        return [("close", at, client)]
    if kind == "bulk":
        return [("bulk", at, client, rng.choice([1500, 5000]))]
    if kind == "ask":
        return [("ask", at, name, rng.choice([*COMMANDS, "ping"])) for name in admins]
    if kind == "worker":
        worker = rng.choice(workers)
        if rng.random() < 0.5:
            return [("stop", at, worker), ("work", round(at + rng.uniform(0.0, 10.0), 6), worker)]
        if rng.random() < 0.5:
            paused = rng.choice([None, *FUNCTIONS])
            later = round(at + rng.uniform(0.0, 10.0), 6)
            return [("pause", at, worker, paused), ("resume", later, worker, paused)]
        # The first worker does all functions, so that no job is left over.
        function = rng.choice(FUNCTIONS)
        return [
            (
                "unregister" if worker != "w0" and rng.random() < 0.5 else "register",
                at,
                worker,
                function,
            )
        ]
    if kind in ("submit", "later"):
        options: dict[str, Any] = {
            "background": rng.random() < 0.3 or kind == "later",
            "max_retries": rng.choice([0, 0, 1, 3, 100]),
            "timeout": rng.choice([None, 0.01, 1.0, 5.0, 30.0]),
            "accepted_only": rng.random() < 0.35,
        }
        jobs = [_job(rng, kind) for _ in range(rng.randrange(1, 2 * burst))]
        if jobs[0].get("unique") == "-":
            # Use the data of one job as the unique of another. The server must not coalesce them.
            jobs.append({**jobs[0], "unique": jobs[0]["data"][:60].decode()})
        return [
            (
                "submit",
                at,
                client,
                jobs,
                options,
                rng.choice(["keep", "keep", "keep", "forget", "wait"]),
            )
        ]
    return [(kind, at, client, rng.random(), rng.choice([None, 0.5, 5.0]), rng.random())]


def _job(rng: random.Random, kind: str) -> dict[str, Any]:
    seconds = rng.choice([0.0, 0.0, 0.0, 0.01, 0.5, 2.0])
    updates = rng.choice([0, 0, 0, 1, 4])
    end = rng.choice(["complete"] * 5 + ["fail"])
    padding = rng.choice([0] * 28 + [100, 100, 5000, 30_000])
    if padding == 30_000 and rng.random() < 0.1:
        padding = 600_000
    job: dict[str, Any] = {
        "task": rng.choice(FUNCTIONS),
        "data": f"{rng.getrandbits(30)} {seconds} {updates} {end} {'x' * padding}".encode(),
    }
    if kind == "later":
        job["run_at"] = 1_700_000_000.0 + rng.choice([-5.0, 0.5, 3.0, 20.0, 90.0])
        return job
    if rng.random() < 0.35:
        job["unique"] = rng.choice(["a", "b", "-"])
    job["priority"] = rng.choice([PRIORITY_NONE, PRIORITY_NONE, PRIORITY_HIGH, PRIORITY_LOW])
    return job


def _padded(*, data: bytes, more: int = 0, **job: Any) -> dict[str, Any]:
    """Return a job of a plan with padded data.

    In the plan itself, the padding would be hard to read.
    """
    return {**job, "data": data + b"x" * more}


def _size_of(job: dict[str, Any]) -> int:
    """Return the approximate number of bytes that nodes exchange because of a job."""
    _, _, updates, end, _ = job["data"].split(b" ", 4)
    more = int(end.partition(b"+")[2] or b"0")
    size: int = len(job["data"]) + job.get("more", 0) + (1 + int(updates)) * more
    return size


# Runs.


class Run:
    """A run of a plan.

    Args:
        plan: A plan, or a part of one.
    """

    def __init__(self, plan: Plan) -> None:
        (_, seed, network) = plan[0]
        faults = [Fault.parse(step[2]) for step in plan if step[0] == "fault"]
        self.net = Network(
            random.Random,
            seed,
            Faults(**network),
            replay=sorted(faults, key=lambda each: each.at),
        )
        self.horizon = 0.0
        self._jobs = 0
        # Seconds that all payloads need on the slowest link, in each direction.
        self._transfers = 0.0
        self._calls: dict[str, list[Call]] = {}
        # Delayed actions of stopped nodes, in order.
        self._held: dict[str, list[tuple[int, str, tuple[Any, ...]]]] = {}
        for step in plan[1:]:
            self._plan(*step)

    def run(self) -> None:
        """Run the plan to its end."""
        self.net.run(self.horizon)
        for node in list(self.net.nodes.values()):
            if isinstance(node, WorkerNode):
                self._do("work", node.name)
                for function in (None, *FUNCTIONS):
                    self._do("resume", node.name, function)
        # Each job can take ten seconds, one worker might have to do all of them, and some jobs are
        # retried.
        self.net.check(PATIENCE + 10.0 * self._jobs + 20.0 * self._transfers)

    def _plan(self, kind: str, *args: Any) -> None:
        net, nodes = self.net, self.net.nodes
        if kind == "server":
            net.server(args[0], **args[1])
        elif kind == "client":
            servers = [nodes[name] for name in args[1] if name in nodes]
            if servers:
                net.client(servers, args[0], **args[2])
                self._calls[args[0]] = []
        elif kind == "worker":
            servers = [nodes[name] for name in args[1] if name in nodes]
            if servers:
                net.worker(servers, dict.fromkeys(args[2], work), args[0], **args[3])
        elif kind == "admin":
            if args[1] in nodes:
                net.admin(nodes[args[1]], args[0])
        else:
            self.horizon = max(self.horizon, args[0])
            if kind in ("submit", "bulk", "stream"):
                self._jobs += args[2] if kind == "bulk" else len(args[2])
            if kind == "submit" and net.faults.bandwidth is not None:
                self._transfers += sum(map(_size_of, args[2])) / HEALTHY
            if kind != "fault":
                net.schedule(args[0], self._do, kind, *args[1:])

    def _do(self, kind: str, name: str, *args: Any) -> None:
        node = self.net.nodes.get(name)
        if node is None or not node.is_up:
            return
        held = self._held.setdefault(name, [])
        if held or node.frozen_until > self.net.now:
            if not held:
                self.net.schedule(node.frozen_until, self._thaw, node)
            held.append((node.life, kind, args))
        else:
            self._do_now(node, kind, *args)

    def _thaw(self, node: Node) -> None:
        if node.frozen_until > self.net.now:
            self.net.schedule(node.frozen_until, self._thaw, node)
            return
        for life, kind, args in self._held.pop(node.name):
            if node.is_up and node.life == life:
                self._do_now(node, kind, *args)

    def _do_now(self, node: Node, kind: str, *args: Any) -> None:
        if isinstance(node, ClientNode):
            self._do_client(node, kind, *args)
        elif isinstance(node, AdminNode):
            if args[0] == "ping":
                node.ping()
            else:
                node.ask(COMMANDS[args[0]])
        elif isinstance(node, WorkerNode):
            getattr(node, kind)(*args)

    def _do_client(self, node: ClientNode, kind: str, *args: Any) -> None:
        calls = self._calls[node.name]
        if node.engine.closed:
            return
        if kind == "close":
            node.close()
            return
        if kind == "bulk":
            data = b"%d 0.0 0 complete "
            jobs = [{"task": "f", "data": data % number} for number in range(args[0])]
            node.submit(jobs, background=True, timeout=30.0)
            return
        if kind == "find":
            request = GearmanJobRequest.from_unique(args[0])
            node.statuses([request], timeout=args[1])
            return
        if kind == "stream":
            calls.append(node.results(args[0], **args[1]))
            return
        if kind == "submit":
            jobs, options, then = args
            jobs = [_padded(**job) for job in jobs]
            call = node.submit(jobs, then=lambda call: self._then(node, call, then), **options)
            if then != "forget":
                calls.append(call)
            return
        which, timeout, how = args
        usable = [
            call for call in calls if call.entries and all(each.is_held for each in call.entries)
        ]
        if not usable:
            return
        call = usable[int(which * len(usable))]
        if kind == "give up":
            node.give_up(call)
        elif kind == "statuses":
            if all(each._gm_link is not None or each.handle for each in call.requests):
                node.statuses(call.requests, timeout=timeout, by_unique=how < 0.3)
        elif kind == "cancel":
            requests = call.requests[: 1 if how < 0.5 else None]
            if all(each._gm_link is not None or each.handle for each in requests):
                node.cancel(requests, timeout=timeout)
        elif how < 0.4:
            node.wait(call.requests, timeout=timeout, as_completed=how < 0.2)
        elif not call.requests[0].background:
            node.updates(*call.requests, timeout=timeout)

    def _then(self, node: ClientNode, call: Call, then: str) -> None:
        """Continue after the end of a submit."""
        if not node.is_up:
            return
        if then == "forget":
            node.forget(call)
        elif then == "wait" and call.timed_out:
            node.wait(call.requests, timeout=20.0)


def check(data: bytes) -> int:
    """Run a simulation whose plan is generated from `data`.

    Returns:
        The number of steps.

    Raises:
        SimulationError: An invariant does not hold.
    """
    run = Run(plan_of(Bytes(data), size=20))
    run.run()
    return run.net.steps


def fails(plan: Plan) -> SimulationError | None:
    """Run `plan`. Return the failure, or None."""
    try:
        Run(plan).run()
    except SimulationError as error:
        return error
    return None
