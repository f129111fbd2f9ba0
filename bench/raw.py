"""Raw sockets that do as little as possible, as baselines and as peers.

Packets that only have to be counted are not parsed.
"""

from __future__ import annotations

import enum
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK: Final = "bench"
DATA: Final = b"hello"
REQUEST: Final = b"\0REQ"
RESPONSE: Final = b"\0RES"
HEADER: Final = struct.Struct(">4sII")
#: Bytes to read at a time.
READ: Final = 262144


class Packet(enum.IntEnum):
    """The packet types that the benchmarks use."""

    CAN_DO = 1
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    NO_JOB = 10
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    ECHO_REQ = 16
    SUBMIT_JOB_BG = 18
    OPTION_RES = 27
    WORK_DATA = 28
    # gear's server knows no other grab.
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


def packet(kind: Packet, *arguments: bytes, magic: bytes = REQUEST) -> bytes:
    body = b"\0".join(arguments)
    return HEADER.pack(magic, kind, len(body)) + body


def submit_packet(*, background: bool, data: bytes = DATA) -> bytes:
    """Return a job with its own unique."""
    kind = Packet.SUBMIT_JOB_BG if background else Packet.SUBMIT_JOB
    return packet(kind, TASK.encode(), os.urandom(16).hex().encode(), data)


def head(kind: Packet) -> bytes:
    """Return the first bytes of all replies of a type."""
    return RESPONSE + kind.to_bytes(4, "big")


def connect(port: int) -> socket.socket:
    """Connect to a server, retrying until it listens."""
    for _ in range(500):
        try:
            sock = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    sys.exit("the server does not start")


def received(sock: socket.socket, *, quick: bool = False) -> bytes:
    """Receive some data, which must not be empty.

    Args:
        sock: The socket.
        quick: True to acknowledge the data at once.
    """
    data = sock.recv(READ)
    if not data:
        sys.exit("the server closed the connection")
    if quick:
        # The kernel resets this option, so set it each time.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return data


def receive_packets(sock: socket.socket, kind: Packet, count: int) -> None:
    """Receive `count` packets of one type. Ignore other packets."""
    data = b""
    while count:
        data += received(sock)
        count -= data.count(head(kind))
        # Keep the end, which can be a part of a head, but not a head that was counted.
        data = data[-7:] if not data.endswith(head(kind)) else b""


def pump(
    sock: socket.socket,
    packets: memoryview,
    count: int,
    *,
    background: bool,
    window: int = 0,
    batch: int = 1,
    seconds: float = 0.0,
    quick: bool = False,
) -> int:
    """Submit packets of one size, and wait for their jobs. Return the number of jobs.

    Args:
        sock: A non-blocking socket.
        packets: All packets.
        count: The number of packets.
        background: True if JOB_CREATED ends a job, False if WORK_COMPLETE does.
        window: Maximum number of jobs in flight; 0 means unlimited.
        batch: Number of jobs that have to end before more are submitted.
        seconds: Seconds after which to stop submitting; 0 means never.
        quick: As in `received`.
    """
    size = len(packets) // count
    created_head, complete_head = head(Packet.JOB_CREATED), head(Packet.WORK_COMPLETE)
    sent = created = complete = 0
    tail = b""
    deadline = time.perf_counter() + seconds
    while complete < count:
        # Submit in batches: a send for each completed job would be too slow.
        end = min(complete // batch * batch + window, count) * size if window else count * size
        readable, writable, _ = select.select([sock], [sock] if sent < end else [], [])
        if writable:
            sent += sock.send(packets[sent : min(end, sent + 65536)])
        if readable:
            data = tail + received(sock, quick=quick)
            created += data.count(created_head)
            complete = created if background else complete + data.count(complete_head)
            tail = data[-7:] if not data.endswith((created_head, complete_head)) else b""
        if seconds and time.perf_counter() > deadline:
            count = -(-sent // size)
    if created != complete:
        sys.exit(f"the server created {created} jobs and completed {complete}")
    return complete


def exchange(sock: socket.socket, packet: bytes, replies: int) -> None:
    """Send a packet, and receive `replies` complete packets."""
    sock.sendall(packet)
    data = b""
    while replies:
        while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[2]:
            data += received(sock)
        data = data[HEADER.size + HEADER.unpack_from(data)[2] :]
        replies -= 1


def packets_of(sock: socket.socket, *, quick: bool = False) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lists of received packets, each a type and a body, until the server disconnects."""
    data = bytearray()
    while True:
        found = []
        start = 0
        missing = HEADER.size
        while len(data) - start >= HEADER.size:
            _, kind, size = HEADER.unpack_from(data, start)
            end = start + HEADER.size + size
            missing = end - len(data)
            if missing > 0:
                break
            found.append((kind, bytes(data[start + HEADER.size : end])))
            start, missing = end, HEADER.size
        del data[:start]
        if found:
            yield found
            continue
        try:
            some = sock.recv(max(READ, min(missing, 1 << 24)))
        except ConnectionError:
            return
        if not some:
            return
        if quick:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data += some


def work(port: int, *, grabs: int = 64, quick: bool = False, size: int = -1) -> int:
    """Do jobs until the server disconnects. Return the number of grabs that were answered NO_JOB.

    Args:
        port: The server's port.
        grabs: Maximum number of grabs in flight.
        quick: As in `received`.
        size: Bytes of each result; -1 returns the job's data.
    """
    grab = packet(Packet.GRAB_JOB_UNIQ)
    idle, under_way = 0, 1
    answer = bytes(size) if size >= 0 else b""
    with connect(port) as sock:
        sock.sendall(packet(Packet.CAN_DO, TASK.encode()) + grab)
        for packets in packets_of(sock, quick=quick):
            out = []
            before, wanted = idle, 0
            for kind, body in packets:
                if kind == Packet.JOB_ASSIGN_UNIQ:
                    handle, _, _, payload = body.split(b"\0", 3)
                    out.append(
                        packet(Packet.WORK_COMPLETE, handle, payload if size < 0 else answer)
                    )
                    under_way -= 1
                    wanted = grabs
                elif kind == Packet.NO_JOB:
                    under_way -= 1
                    idle += 1
                elif kind == Packet.NOOP:
                    # The NOOP might be late, and about a job that was grabbed meanwhile.
                    wanted = wanted or 1
            if wanted > under_way:
                out.append(grab * (wanted - under_way))
                under_way = wanted
            elif idle > before and not under_way:
                # Whenever no grab is in flight, PRE_SLEEP is the last packet sent. So the server
                # owes a NOOP for any job that it has or receives.
                out.append(packet(Packet.PRE_SLEEP))
            if out:
                try:
                    sock.sendall(b"".join(out))
                except ConnectionError:
                    break
    return idle
