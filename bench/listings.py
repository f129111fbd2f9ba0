"""The delay of a connection while another one queries a server about 10,000 functions.

One connection sends the command ``status``, or GET_STATUS_UNIQUE for a thousand uniques that do not
exist. Meanwhile another connection sends ECHO_REQ repeatedly. "wait" is the longest time of an
ECHO_REQ. "answer" is the time until the first connection has received all answers.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from . import processes, raw
from .child import answer, orders
from .raw import DATA, Packet, packet
from .rounds import interleaved, median
from .servers import kinds
from .tables import Table

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from .rounds import Figures, Settings

_FUNCTIONS = 10_000
_UNIQUES = 1000
_QUESTIONS = ("status", "GET_STATUS_UNIQUE")


def run(settings: Settings) -> Iterator[Table]:
    functions = min(_FUNCTIONS, settings.jobs)
    for question in _QUESTIONS:
        results = interleaved(
            {kind: partial(_measure, kind, question, functions) for kind in kinds()},
            settings.rounds,
        )
        asked = f" of {_UNIQUES:,} uniques" if question != "status" else ""
        table = Table(
            f"{question}{asked} with {functions:,} functions", [("answer", "ms"), ("wait", "ms")]
        )
        for kind, found in results.items():
            table.add(kind, median(found, "answer"), median(found, "wait"))
        yield table


def _measure(kind: str, question: str, functions: int) -> Figures:
    with (
        processes.serving(kind) as server,
        processes.python(ask, port=server.port, question=question) as child,
    ):
        return child.ask(functions)


# Code for the child processes.


def ask(port: int, question: str) -> None:
    with raw.connect(port) as asking, raw.connect(port) as other:
        for functions in orders():
            # Create a job of each function.
            asking.sendall(
                b"".join(
                    packet(Packet.SUBMIT_JOB_BG, b"function-%d" % number, b"%d" % number, DATA)
                    for number in range(functions)
                )
            )
            raw.receive_packets(asking, Packet.JOB_CREATED, functions)
            thread = threading.Thread(target=_ask, args=(asking, question))
            longest = 0.0
            began = time.perf_counter()
            thread.start()
            while thread.is_alive():
                sent = time.perf_counter()
                raw.exchange(other, packet(Packet.ECHO_REQ, b"echo"), 1)
                longest = max(longest, time.perf_counter() - sent)
            answer({"answer": time.perf_counter() - began, "wait": longest})


def _ask(sock: socket.socket, question: str) -> None:
    if question == "status":
        sock.sendall(b"status\n")
        data = b""
        while not data.endswith(b"\n.\n"):
            data = data[-3:] + raw.received(sock)
        return
    sock.sendall(
        b"".join(
            packet(Packet.GET_STATUS_UNIQUE, b"nobody-%d" % number) for number in range(_UNIQUES)
        )
    )
    raw.receive_packets(sock, Packet.STATUS_RES_UNIQUE, _UNIQUES)
