"""Submits N jobs in one call through a local gearmand, beside the wire's own limit and a peer.

    python bench/submit.py [--jobs 100000] [--small 2000] [--rounds 3]

* ``gearman_sync``: `GearmanClient.submit_multiple_jobs`.
* ``raw socket``: writes the same packets, encoded before the clock starts, and counts replies.
  Nothing that submits over one connection can be faster.
* ``pygearman``: the same call of pygearman 0.2.6 (the dependency group ``bench`` has it), with a
  `poll_timeout`, since it does not wait without one.

Each measurement is made in a process of its own, with a gearmand of its own, and the peers take
turns within a round, so that what disturbs the machine disturbs them all. gearmand is started with
a hash table that is large enough and one I/O thread, so that it is not what is measured. A worker
in another process answers the foreground jobs. The figures are medians of the rounds; "memory" is
how far the process grew during the call, by the job, with payloads of five bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import Any

HEADER = struct.Struct(">4sII")
PEERS = ("raw socket", "gearman_sync", "pygearman")
# Users seldom have the place in their PATH where Debian puts it.
PROGRAM = shutil.which("gearmand") or shutil.which("gearmand", path="/usr/sbin:/usr/local/sbin")
GEARMAND = ("-L", "127.0.0.1", "-l", os.devnull, "--hashtable-buckets", "2000003", "-t", "1")
TASK, DATA = "bench", b"hello"
SUBMIT_JOB, SUBMIT_JOB_BG = 7, 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs in one call")
    parser.add_argument("--small", type=int, default=2_000, help="jobs in the smaller call")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument("--child", nargs=4, metavar=("PEER", "MODE", "N", "PORT"), help="internal")
    arguments = parser.parse_args()
    if arguments.child:
        peer, mode, count, port = arguments.child
        child(peer, mode, int(count), int(port))
        return
    if PROGRAM is None:
        sys.exit("this needs gearmand (Debian: apt-get install gearman-job-server)")
    peers = [peer for peer in PEERS if peer != "pygearman" or has_pygearman()]
    for mode in ("background", "foreground"):
        sizes = (arguments.small, arguments.jobs)
        results: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for count in sizes:
                for peer in peers:
                    results.setdefault((peer, count), []).append(measure(peer, mode, count))
        report(mode, sizes, peers, results)
    if "pygearman" not in peers:
        print("\npygearman is not installed: pip install pygearman==0.2.6")


def has_pygearman() -> bool:
    try:
        import gearman  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def report(
    mode: str,
    sizes: tuple[int, int],
    peers: list[str],
    results: dict[tuple[str, int], list[dict[str, float]]],
) -> None:
    def median(peer: str, count: int, what: str) -> float:
        return statistics.median(result[what] for result in results[peer, count])

    print(f"\n{mode} jobs")
    print(f"{'':14}{'jobs':>9}{'jobs/s':>10}{'wall':>13}{'CPU':>13}{'memory':>12}{'raw':>9}")
    for count in sizes:
        for peer in peers:
            wall = median(peer, count, "wall")
            print(
                f"{peer:14}{count:9,}{count / wall:10,.0f}{wall / count * 1e6:10.2f} us"
                f"{median(peer, count, 'cpu') / count * 1e6:10.2f} us"
                f"{median(peer, count, 'memory') / count:10,.0f} B"
                f"{wall / median('raw socket', count, 'wall'):7.2f} x"
            )
    small, large = sizes
    for peer in peers:
        cost = {n: median(peer, n, "cpu") / n for n in sizes}
        print(
            f"{peer}: the CPU time of a job among {large:,} is {cost[large] / cost[small]:.2f} x "
            f"that of one among {small:,}"
        )


def measure(peer: str, mode: str, count: int) -> dict[str, float]:
    """Run one measurement in processes of its own."""
    port = free_port()
    server = subprocess.Popen(
        [str(PROGRAM), "-p", str(port), *GEARMAND],
        stderr=subprocess.DEVNULL,
    )
    command = [sys.executable, __file__, "--child"]
    worker = None
    try:
        connect(port).close()
        if mode == "foreground":
            worker = subprocess.Popen([*command, "worker", mode, str(count), str(port)])
        output = subprocess.check_output([*command, peer, mode, str(count), str(port)])
        result: dict[str, float] = json.loads(output)
        return result
    finally:
        for process in (worker, server):
            if process is not None:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def connect(port: int) -> socket.socket:
    """Connect as soon as the server listens."""
    for _ in range(500):
        try:
            sock = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    sys.exit("gearmand does not start")


# In the child processes.


def child(peer: str, mode: str, count: int, port: int) -> None:
    if peer == "worker":
        work(port)
        return
    run = {"raw socket": raw_socket, "gearman_sync": ours, "pygearman": pygearman}[peer]
    print(json.dumps(run(port, count, background=mode == "background")))


class Clock:
    """What passes between entering and leaving."""

    def __enter__(self) -> Clock:
        with open("/proc/self/statm") as statm:
            self.before = int(statm.read().split()[1]) * resource.getpagesize()
        self.cpu = time.process_time()
        self.wall = time.perf_counter()
        return self

    def __exit__(self, *args: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.memory = max(peak - self.before, 0)

    def result(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu, "memory": self.memory}


def ours(port: int, count: int, *, background: bool) -> dict[str, float]:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        return submit(client, count, background=background)


def pygearman(port: int, count: int, *, background: bool) -> dict[str, float]:
    import gearman  # noqa: PLC0415

    return submit(gearman.GearmanClient([f"127.0.0.1:{port}"]), count, background=background)


def submit(client: Any, count: int, *, background: bool) -> dict[str, float]:
    # One job first, so that everybody starts with a connection, as the raw socket does.
    client.submit_multiple_jobs([{"task": TASK, "data": DATA}], background=True, poll_timeout=60)
    jobs = [{"task": TASK, "data": DATA} for _ in range(count)]
    with Clock() as clock:
        requests = client.submit_multiple_jobs(jobs, background=background, poll_timeout=600)
    if not all(request.complete for request in requests):
        sys.exit(f"{type(client).__module__} left jobs incomplete")
    return clock.result()


def raw_socket(port: int, count: int, *, background: bool) -> dict[str, float]:
    packets = bytearray()
    kind = SUBMIT_JOB_BG if background else SUBMIT_JOB
    for _ in range(count):
        body = b"\0".join((TASK.encode(), os.urandom(16).hex().encode(), DATA))
        packets += HEADER.pack(b"\0REQ", kind, len(body)) + body
    unsent = memoryview(packets)
    missing = count if background else 2 * count
    with connect(port) as sock:
        sock.setblocking(False)
        tail = b""
        with Clock() as clock:
            while missing:
                readable, writable, _ = select.select([sock], [sock] if unsent else [], [])
                if writable:
                    unsent = unsent[sock.send(unsent[:65536]) :]
                if readable:
                    data = tail + sock.recv(262144)
                    missing -= data.count(b"\0RES\0")
                    tail = data[-4:] if not data.endswith(b"\0RES\0") else b""
    return clock.result()


def work(port: int) -> None:
    """Complete foreground jobs as fast as possible, with many grabs under way."""
    from gearman_proto import NEED_DATA, Connection, Role, events  # noqa: PLC0415

    with connect(port) as sock:
        connection = Connection(Role.WORKER)
        send = connection.send
        sock.sendall(send(events.CanDo(TASK.encode())))
        out = [send(events.GrabJob())]
        under_way = 1
        while True:
            sock.sendall(b"".join(out))
            out.clear()
            connection.receive_data(sock.recv(65536))
            while (event := connection.next_event()) is not NEED_DATA:
                if isinstance(event, events.JobAssign):
                    under_way -= 1
                    out.append(send(events.WorkComplete(event.handle, event.data)))
                    while under_way < 64:
                        under_way += 1
                        out.append(send(events.GrabJob()))
                elif isinstance(event, events.NoJob):
                    under_way -= 1
                    if not under_way:
                        out.append(send(events.PreSleep()))
                elif isinstance(event, events.Noop):
                    under_way += 1
                    out.append(send(events.GrabJob()))


if __name__ == "__main__":
    main()
