"""Raw sockets that do as little as possible: what is measured against, and what plays the peers.

None of them takes packets apart that it can count.
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
    """The types of packets that are used here."""

    CAN_DO = 1
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    NO_JOB = 10
    WORK_COMPLETE = 13
    ECHO_REQ = 16
    SUBMIT_JOB_BG = 18
    OPTION_RES = 27
    # gear's server knows no other grab.
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


def packet(kind: Packet, *arguments: bytes, magic: bytes = REQUEST) -> bytes:
    body = b"\0".join(arguments)
    return HEADER.pack(magic, kind, len(body)) + body


def submit_packet(*, background: bool, data: bytes = DATA) -> bytes:
    """A job with a unique of its own."""
    kind = Packet.SUBMIT_JOB_BG if background else Packet.SUBMIT_JOB
    return packet(kind, TASK.encode(), os.urandom(16).hex().encode(), data)


def head(kind: Packet) -> bytes:
    """What all replies of a type begin with."""
    return RESPONSE + kind.to_bytes(4, "big")


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
    sys.exit("the server does not start")


def received(sock: socket.socket, *, quick: bool = False) -> bytes:
    """What has come, of which there has to be some.

    Args:
        sock: The socket.
        quick: Whether to acknowledge it at once.
    """
    data = sock.recv(READ)
    if not data:
        sys.exit("the server closed the connection")
    if quick:
        # The system forgets it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return data


def receive_packets(sock: socket.socket, kind: Packet, count: int) -> None:
    """Receive so many packets of one type; others are let by."""
    data = b""
    while count:
        data += received(sock)
        count -= data.count(head(kind))
        # Not a head that was counted.
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
    """Submit packets of one size, wait for their jobs, and return how many there were.

    Args:
        sock: A socket that does not block.
        packets: All packets.
        count: How many these are.
        background: Whether JOB_CREATED ends a job, and not WORK_COMPLETE.
        window: How many jobs are under way at most; 0 for any number.
        batch: How many of them end before more follow.
        seconds: After how long to submit no more; 0 for never.
        quick: As in `received`.
    """
    size = len(packets) // count
    created_head, complete_head = head(Packet.JOB_CREATED), head(Packet.WORK_COMPLETE)
    sent = created = complete = 0
    tail = b""
    deadline = time.perf_counter() + seconds
    while complete < count:
        # In batches: a job that is complete is not worth a call of its own.
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
    """Send a packet, and receive so many whole ones."""
    sock.sendall(packet)
    data = b""
    while replies:
        while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[2]:
            data += received(sock)
        data = data[HEADER.size + HEADER.unpack_from(data)[2] :]
        replies -= 1


def packets_of(sock: socket.socket, *, quick: bool = False) -> Iterator[list[tuple[int, bytes]]]:
    """Yield what comes until the server closes, as lists of packets: a type and a body."""
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
    """Do jobs until the server ends; return how many grabs were answered NO_JOB.

    Args:
        port: The server's.
        grabs: How many grabs are under way at most.
        quick: As in `received`.
        size: Bytes of each result; -1 gives back what was submitted.
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
                    # It may be late, and about a job that was grabbed meanwhile.
                    wanted = wanted or 1
            if wanted > under_way:
                out.append(grab * (wanted - under_way))
                under_way = wanted
            elif idle > before and not under_way:
                # Whenever no grab is under way this is the last packet sent: the server owes a NOOP
                # for any job that it has or gets.
                out.append(packet(Packet.PRE_SLEEP))
            if out:
                try:
                    sock.sendall(b"".join(out))
                except ConnectionError:
                    break
    return idle
