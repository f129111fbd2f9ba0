"""Jobs per second through three job servers: gearmand, `gearman_sync.JobServer` and gear's.

    python bench/jobs.py [--jobs 20000] [--rounds 3]

* ``gearmand``: Debian's, in C.
* ``JobServer``: `gearman_sync.JobServer`.
* ``gear``: `gear.Server` of gear 0.16 (the dependency group ``bench`` has it).

* ``pipelined``: a client keeps up to 1,000 jobs under way, and a worker up to 64 grabs.
* ``one at a time``: the client submits a job when the last is complete, and the worker grabs one.
* ``quick ACKs``: the same with peers that ask their system to acknowledge at once what it receives;
  else it does so when it sends something, or after 40 ms. A server that leaves Nagle's algorithm
  on, as gear's does, waits for that between two packets to one peer. Hardly any peer asks: this
  shows what gear's server could do.
* ``our client and worker``: `GearmanClient.submit_multiple_jobs` and `GearmanWorker`.
* ``grabs``: a worker has registered for 1, 100 or 10,000 functions, of which 10 have jobs, and
  grabs 64 at a time. What is printed is the time by the grab, and by how much it grows.

The clients and workers of all modes but the last are raw sockets that do as little as possible: the
same for all servers. They stop after two seconds if a server is slow. Each measurement is made with
a server, a client and a worker in processes of their own, and the servers take turns within a
round, so that what disturbs the machine disturbs them all. The jobs are foreground jobs with
payloads of five bytes, and their unique identifiers differ; in the slower modes there are fewer.
The figures are medians of the rounds; "CPU" is the server's, and "idle" how many grabs were
answered NO_JOB, by the job. gearmand is started as in ``bench/submit.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from submit import DATA, GEARMAND, HEADER, PROGRAM, TASK, connect, free_port

SERVERS = ("gearmand", "JobServer", "gear")
REQUEST, RESPONSE = b"\0REQ", b"\0RES"
CAN_DO, PRE_SLEEP, NOOP, SUBMIT_JOB, JOB_CREATED, NO_JOB = 1, 4, 6, 7, 8, 10
SUBMIT_JOB_BG = 18
# gear's server knows no other grab.
WORK_COMPLETE, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ = 13, 30, 31
WARM_UP = 100


class Mode(NamedTuple):
    """How a client and a worker go about it.

    Args:
        share: For how many jobs of ``--jobs`` there is one.
        window: How many jobs are under way.
        batch: How many of them end before more follow.
        grabs: How many grabs are under way.
        quick: Whether to acknowledge at once what is received.
    """

    share: int
    window: int = 0
    batch: int = 0
    grabs: int = 0
    quick: bool = False


OURS = "our client and worker"
GRABS = "grabs"
FUNCTIONS = (1, 100, 10_000)
MODES = {
    "pipelined": Mode(1, window=1000, batch=100, grabs=64),
    "pipelined, quick ACKs": Mode(1, window=1000, batch=100, grabs=64, quick=True),
    "one at a time": Mode(20, window=1, batch=1, grabs=1),
    "one at a time, quick ACKs": Mode(20, window=1, batch=1, grabs=1, quick=True),
    OURS: Mode(5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, default=20_000, help="jobs in a measurement of the first mode"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument("--child", nargs="+", metavar=("PART", "PORT"), help="internal")
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    missing = {}
    if PROGRAM is None:
        missing["gearmand"] = "apt-get install gearman-job-server (Debian)"
    if importlib.util.find_spec("gear") is None:
        missing["gear"] = "pip install gear==0.16.0"
    servers = [server for server in SERVERS if server not in missing]
    lines = []
    for name, mode in MODES.items():
        count = max(arguments.jobs // mode.share, 1)
        results: dict[str, list[dict[str, float]]] = {server: [] for server in servers}
        for _ in range(arguments.rounds):
            for server in servers:
                results[server].append(measure(server, name, count))
        lines.append(report(name, results))
    count = max(arguments.jobs // 10, 1)
    lines.extend(
        report_grabs(
            server,
            {
                functions: [
                    measure(server, GRABS, count, functions) for _ in range(arguments.rounds)
                ]
                for functions in FUNCTIONS
            },
        )
        for server in servers
        if server != "gear"
    )
    print()
    for line in lines:
        print(line)
    for server, remedy in missing.items():
        print(f"{server} is not installed: {remedy}")


def report(name: str, results: dict[str, list[dict[str, float]]]) -> str:
    """Print the table of a mode; return it in a sentence."""

    def median(server: str, what: str) -> float:
        return statistics.median(result[what] for result in results[server])

    def ratio(server: str, other: str) -> str:
        return f"{median(other, 'wall') / median(server, 'wall'):.2f}" if other in results else "-"

    print(f"\n{name}")
    print(
        f"{'':10}{'jobs':>8}{'jobs/s':>10}{'wall':>13}{'CPU':>13}{'idle':>8}"
        f"{'gearmand':>12}{'gear':>12}"
    )
    for server in results:
        wall = median(server, "wall")
        idle = "-" if name == OURS else f"{median(server, 'idle'):.2f}"
        print(
            f"{server:10}{median(server, 'jobs'):8,.0f}{1 / wall:10,.0f}{wall * 1e6:10.2f} us"
            f"{median(server, 'cpu') * 1e6:10.2f} us{idle:>8}"
            f"{ratio(server, 'gearmand'):>10} x{ratio(server, 'gear'):>10} x"
        )
    return (
        f"JobServer does {ratio('JobServer', 'gear')} times as many jobs/s as gear's server and "
        f"{ratio('JobServer', 'gearmand')} times gearmand's ({name})"
    )


def report_grabs(server: str, results: dict[int, list[dict[str, float]]]) -> str:
    """Print what grabs take, by functions; return it in a sentence."""
    print(f"\n{GRABS} at {server}\n{'functions':>10}{'wall':>13}{'CPU':>13}{'growth':>12}")
    medians = {
        (functions, what): statistics.median(result[what] for result in each)
        for functions, each in results.items()
        for what in ("wall", "cpu")
    }
    for functions in FUNCTIONS:
        wall, cpu = medians[functions, "wall"], medians[functions, "cpu"]
        growth = cpu / medians[FUNCTIONS[0], "cpu"]
        print(f"{functions:10,}{wall * 1e6:10.2f} us{cpu * 1e6:10.2f} us{growth:10.2f} x")
    return f"with {functions:,} functions, a grab at {server} takes {growth:.2f} times as much CPU"


def measure(server: str, mode: str, count: int, functions: int = 0) -> dict[str, float]:
    """Run one measurement in processes of its own."""
    port = str(free_port())
    command = [sys.executable, __file__, "--child"]
    run = {
        "gearmand": [str(PROGRAM), "-p", port, *GEARMAND],
        "JobServer": [*command, "server", port],
        "gear": [*command, "gear", port],
    }[server]
    processes = []
    try:
        serving = subprocess.Popen(
            run,
            # The servers in Python end with it, whatever becomes of this process.
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL if server == "gearmand" else None,
        )
        processes.append(serving)
        connect(int(port)).close()
        if mode == GRABS:
            options = [mode, str(count), str(serving.pid), str(functions)]
            grabbed = subprocess.check_output([*command, "grabs", port, *options], timeout=60)
            found: dict[str, float] = json.loads(grabbed)
            return found
        worker = subprocess.Popen([*command, "worker", port, mode], stdout=subprocess.PIPE)
        processes.insert(0, worker)
        result: dict[str, float] = json.loads(
            subprocess.check_output(
                [*command, "client", port, mode, str(count), str(serving.pid)], timeout=60
            )
        )
        if mode != OURS:
            serving.kill()
            result["idle"] = int(worker.communicate()[0]) / result["jobs"]
        return result
    finally:
        for process in processes:
            with process:
                process.kill()


# In the child processes.


def child(
    part: str, port: str, mode: str = "", count: str = "", server: str = "", functions: str = ""
) -> None:
    if part == "server":
        serve(int(port))
    elif part == "gear":
        serve_gear(int(port))
    elif part == "worker":
        if mode == OURS:
            work(int(port))
        else:
            print(work_raw(int(port), MODES[mode]))
    elif part == "grabs":
        clock = Clock(int(server))
        grab_raw(int(port), int(count), int(functions), clock)
        print(json.dumps({"wall": clock.wall / int(count), "cpu": clock.cpu / int(count)}))
    else:
        clock = Clock(int(server))
        if mode == OURS:
            jobs = submit(int(port), int(count), clock)
        else:
            jobs = submit_raw(int(port), MODES[mode], int(count), clock)
        print(json.dumps({"jobs": jobs, "wall": clock.wall / jobs, "cpu": clock.cpu / jobs}))


class Clock:
    """What passes between entering and leaving, here and in the server."""

    def __init__(self, server: int) -> None:
        # clock_getcpuclockid(3), which Python does not have; /proc counts in hundredths of seconds.
        self._cpu = (~server << 3) | 2

    def __enter__(self) -> Clock:
        self.cpu = time.clock_gettime(self._cpu)
        self.wall = time.perf_counter()
        return self

    def __exit__(self, *args: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.clock_gettime(self._cpu) - self.cpu


def serve(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.JobServer(host="127.0.0.1", port=port):
        sys.stdin.read()


def serve_gear(port: int) -> None:
    import gear  # noqa: PLC0415

    # It complains of OPTION_REQ, which it does not know.
    logging.getLogger("gear").setLevel(logging.CRITICAL)
    gear.Server(port=port, host="127.0.0.1")
    sys.stdin.read()
    # Its threads would go on.
    os._exit(0)


def submit(port: int, count: int, clock: Clock) -> int:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for jobs in (WARM_UP, count):
            with clock:
                requests = client.submit_multiple_jobs(
                    [{"task": TASK, "data": DATA} for _ in range(jobs)]
                )
            if not all(request.result == DATA for request in requests):
                sys.exit("jobs are left incomplete")
    return count


def work(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    worker = gearman_sync.GearmanWorker([f"127.0.0.1:{port}"])
    worker.register_task(TASK, lambda _, job: job.data)
    worker.work()


def packet(kind: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return HEADER.pack(REQUEST, kind, len(body)) + body


def receive(sock: socket.socket, mode: Mode) -> bytes:
    data = sock.recv(262144)
    if mode.quick:
        # The system forgets it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return data


def submit_raw(port: int, mode: Mode, count: int, clock: Clock) -> int:
    with connect(port) as sock:
        sock.setblocking(False)
        for jobs, seconds in ((WARM_UP, 0.1), (count, 2)):
            packets = b"".join(
                packet(SUBMIT_JOB, TASK.encode(), os.urandom(16).hex().encode(), DATA)
                for _ in range(jobs)
            )
            with clock:
                complete = complete_all(sock, mode, memoryview(packets), jobs, seconds)
    return complete


def complete_all(
    sock: socket.socket, mode: Mode, packets: memoryview, count: int, seconds: float
) -> int:
    """Submit packets of one size, for so long, and wait for their jobs; return how many."""
    size = len(packets) // count
    headers = [RESPONSE + kind.to_bytes(4, "big") for kind in (JOB_CREATED, WORK_COMPLETE)]
    sent = created = complete = 0
    tail = b""
    deadline = time.perf_counter() + seconds
    while complete < count:
        # In batches: a job that is complete is not worth a call of its own.
        end = min(complete // mode.batch * mode.batch + mode.window, count) * size
        readable, writable, _ = select.select([sock], [sock] if sent < end else [], [])
        if writable:
            sent += sock.send(packets[sent:end])
        if readable:
            received = receive(sock, mode)
            if not received:
                sys.exit("the server closed the connection")
            received = tail + received
            created += received.count(headers[0])
            complete += received.count(headers[1])
            tail = received[-len(headers[0]) + 1 :]
        if time.perf_counter() > deadline:
            count = -(-sent // size)
    if created != complete:
        sys.exit(f"the server created {created} jobs and completed {complete}")
    return complete


def grab_raw(port: int, count: int, functions: int, clock: Clock) -> None:
    """Register for so many functions, ten of which have jobs, and grab these jobs."""
    names = [b"function-%d" % number for number in range(functions)]
    with connect(port) as sock:
        sock.sendall(
            b"".join(packet(CAN_DO, name) for name in names)
            + b"".join(
                packet(SUBMIT_JOB_BG, names[number % 10 % functions], b"", DATA)
                for number in range(count + WARM_UP)
            )
        )
        receive_packets(sock, JOB_CREATED, count + WARM_UP)
        for grabs in (WARM_UP, count):
            with clock:
                for at in range(0, grabs, 64):
                    batch = min(64, grabs - at)
                    sock.sendall(packet(GRAB_JOB_UNIQ) * batch)
                    receive_packets(sock, JOB_ASSIGN_UNIQ, batch)


def receive_packets(sock: socket.socket, kind: int, count: int) -> None:
    """Receive so many packets of one type."""
    data, header = b"", RESPONSE + kind.to_bytes(4, "big")
    while data.count(header) < count:
        received = sock.recv(262144)
        if not received:
            sys.exit("the server closed the connection")
        data += received


def work_raw(port: int, mode: Mode) -> int:
    """Complete jobs until the server ends; return how many grabs were answered NO_JOB."""
    grab = packet(GRAB_JOB_UNIQ)
    idle, under_way = 0, 1
    with connect(port) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(packet(CAN_DO, TASK.encode()) + grab)
        data = b""
        while received := receive(sock, mode):
            data += received
            out = []
            before, wanted, start = idle, 0, 0
            while len(data) - start >= HEADER.size:
                _, kind, size = HEADER.unpack_from(data, start)
                end = start + HEADER.size + size
                if end > len(data):
                    break
                if kind == JOB_ASSIGN_UNIQ:
                    handle, _, _, payload = data[start + HEADER.size : end].split(b"\0", 3)
                    out.append(packet(WORK_COMPLETE, handle, payload))
                    under_way -= 1
                    wanted = mode.grabs
                elif kind == NO_JOB:
                    under_way -= 1
                    idle += 1
                elif kind == NOOP:
                    # It may be late, and about a job that was grabbed meanwhile.
                    wanted = wanted or 1
                start = end
            data = data[start:]
            if wanted > under_way:
                out.append(grab * (wanted - under_way))
                under_way = wanted
            elif idle > before and not under_way:
                # Whenever no grab is under way this is the last packet sent: the server owes a NOOP
                # for any job that it has or gets.
                out.append(packet(PRE_SLEEP))
            if out:
                sock.sendall(b"".join(out))
    return idle


if __name__ == "__main__":
    main()
