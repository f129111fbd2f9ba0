"""Replays of recorded exchanges with gearmand, against our server.

A Replay sends the recorded bytes of clients, workers and admins in their order. On each
connection, our server must reply with exactly gearmand's bytes. DIFFERENT lists the intended
differences and their reasons.

The replay uses the recorded prefix of handles, version and time, and ignores file descriptors.
It compares lists without regard to the order of their lines, since gearmand's order depends on
its hashes.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from gearman_proto.wire.packets import (
    JobAssign,
    JobCreated,
    NoJob,
    Noop,
    StatusRes,
    WorkFail,
    WorkStatus,
)
from tests.recordings import VECTORS

from .harness import raw
from .server_harness import World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gearman_sync.testing import Element

#: gearmand's --job-retries N fails a job at its Nth loss. Without the option, gearmand retries jobs
#: forever. Up to 2.0.0, N = 0 has the same effect.
RETRIES: dict[str, int] = {
    "20_job_retries": 0,
    "2.0/65_job_retries_0_after_2.0.0": 0,
    "2.0/66_job_retries_2": 1,
}
#: Elements of the exchange that the replay skips, with the reason.
LEFT_OUT: dict[str, tuple[str, dict[int, bytes]]] = {
    "41_admin_errors": (
        "shutdown is a command, as in the document and in Perl's server",
        {4: b"shutdown\n", 5: b"ERR UNKNOWN_COMMAND Unknown+server+commandshutdown\r\n"},
    )
}

LATE = "what a worker sends for a job that was its own is dropped: an ERROR stops some workers"
AGE = "within a priority the oldest job is next, and functions do not take turns"
WHEN_DUE = "sleeping workers are woken when the job can be run, and not before"


def proven_by(_: str, *conns: str) -> dict[str, bytes | None]:
    """Return connections whose replies a conformance case or a test of the engine proves."""
    return dict.fromkeys(conns)


#: Our server's replies that differ from gearmand's, by connection, with the reason.
DIFFERENT: dict[str, tuple[str, Mapping[str, bytes | None]]] = {
    "08_exception_without_option": (
        # A NUL after the handle hangs libgearman's clients.
        f"WORK_FAIL in place of an exception is the bare handle; and {LATE}",
        {
            "client": raw(JobCreated(b"H:h:1"), WorkFail(b"H:h:1")),
            "worker": raw(JobAssign(b"H:h:1", b"f", b"data")),
        },
    ),
    "17_function_order_beats_priority": (
        "priorities hold over all functions of a worker, as in gearmand 2.0.0",
        proven_by("grab/priority/4", "worker"),
    ),
    "21_cant_do_while_holding": (
        "a worker keeps the job that it has when it takes back the registration",
        proven_by("ability/cant/6", "client", "worker", "worker2"),
    ),
    "22_can_do_timeout": (LATE, {"worker": raw(JobAssign(b"H:h:1", b"f", b"x"))}),
    "29_unique_63_and_64": (
        "a unique of 64 bytes is taken, so it is kept whole and coalesces",
        proven_by("submit/unique/2", "client", "worker"),
    ),
    "35_epoch": (WHEN_DUE, proven_by("sleep/due/1", "worker")),
    "36_abandoned_then_resubmitted": (
        "a job that was abandoned while queued is gone, and its unique with it",
        proven_by("leave/queued/2", "client2", "worker"),
    ),
    "37_background_lost_with_foreground": (
        "a background job does not end with the foreground client that joined it",
        proven_by("leave/queued/3", "client", "worker"),
    ),
    "39_cancel_running": (
        "a job that was cancelled has ended",
        proven_by("text/cancel/3", "admin", "client"),
    ),
    "42_admin_create_drop": (
        "a function's name is kept whole, whatever ends the line",
        {
            "admin": b"OK\r\nOK\r\n"
            b"abcd\t0\t0\t0\nwxyz\t0\t0\t0\n.\n"
            b"ERR function not found\r\nOK\r\n"
            b"abcd\t0\t0\t0\n.\n"
        },
    ),
    "47_status_values": (
        "a negative numerator is 0, and not 2**32 - 1",
        {
            "client": raw(
                JobCreated(b"H:h:1"),
                WorkStatus(b"H:h:1", b"1", b"2"),
                StatusRes(b"H:h:1", b"1", b"1", b"1", b"2"),
                WorkStatus(b"H:h:1", b"-1", b"abc"),
                StatusRes(b"H:h:1", b"1", b"1", b"0", b"0"),
                WorkStatus(b"H:h:1", b"0.5", b"1.0"),
                StatusRes(b"H:h:1", b"1", b"1", b"0", b"1"),
            )
        },
    ),
    "2.0/35_epoch": (WHEN_DUE, proven_by("sleep/due/1", "worker")),
    "2.0/51_priority_across_functions": (AGE, proven_by("grab/priority/4", "worker")),
    "2.0/52_functions_in_turn": (AGE, proven_by("grab/priority/5", "worker")),
    "2.0/53_workers_list_moves": (AGE, proven_by("test_lists", "admin")),
    "2.0/54_epoch_several": (
        WHEN_DUE,
        {
            "worker": raw(
                *[NoJob(), Noop(), JobAssign(b"H:h:2", b"f", b"two")],
                *[NoJob(), Noop(), JobAssign(b"H:h:3", b"f", b"three")],
                JobAssign(b"H:h:4", b"f", b"three-b"),
                *[NoJob(), Noop(), JobAssign(b"H:h:1", b"f", b"five"), NoJob()],
            )
        },
    ),
    "2.0/55_epoch_two_sleepers": (
        WHEN_DUE,
        {
            "worker": raw(NoJob(), Noop(), JobAssign(b"H:h:1", b"f", b"x")),
            "worker2": raw(NoJob(), Noop(), NoJob()),
        },
    ),
    "2.0/56_epoch_cancelled": (
        "a job that was cancelled has ended, and nobody is woken for it",
        proven_by("test_cancel", "client", "worker"),
    ),
    "2.0/58_epoch_two_functions_stall": (
        "two functions with jobs for later are no reason to stop: the grab is answered at once",
        {"worker": raw(NoJob())},
    ),
    "2.0/59_timeout_second_job": (LATE, proven_by("test_time_limit", "worker")),
    "2.0/60_timeout_two_held": (
        f"each job has its time limit; and {LATE}",
        proven_by("test_time_limit_is_of_each_job", "admin", "client", "worker"),
    ),
    "2.0/61_timeout_after_completion": (
        "a job that has ended has no time limit",
        {"admin": b"f\t0\t0\t1\n.\n" * 2},
    ),
    **{
        f"2.0/{name}": (
            "PRE_SLEEP drops no job, and the abandoned one is gone",
            {
                "client": raw(JobCreated(b"H:h:2"), StatusRes(b"H:h:2", b"1", b"0", b"0", b"0")),
                "worker": raw(Noop(), JobAssign(b"H:h:2", b"f1", b"live"), NoJob()),
            },
        )
        for name in ("62_presleep_loses_live_foreground", "63_presleep_loses_live_background")
    },
    "49_can_do_twice": (
        "a worker that registers twice is one worker",
        {"admin": b"f\t0\t0\t1\n.\nf\t0\t0\t0\n.\n"},
    ),
}


class Replay:
    """One recorded exchange, replayed against our server."""

    def __init__(self, name: str, chunk: int = 0, world: type[World] = World) -> None:
        self.name = name
        vector = VECTORS[name]
        self.exchange = vector.exchange
        assert name in RETRIES or vector.server_args[2:] in ([], ["-j", "0"])
        self.world = world(chunk=chunk, version="1.1.21+ds", job_retries=RETRIES.get(name))
        self.world.ahead = vector.epoch_base or self.world.ahead
        self.world.engine.queue._handles = (b"H:h:%d" % number for number in itertools.count(1))
        self.conns: dict[str, Any] = {}
        #: Recorded data from gearmand, by connection.
        self.recorded: dict[str, list[bytes]] = {}
        #: Connections closed by gearmand or by its peer.
        self.closed: set[str] = set()

    def play(self) -> None:
        """Send the recorded data of all peers."""
        left_out = LEFT_OUT.get(self.name, ("", {}))[1]
        for at, element in enumerate(self.exchange):
            self.world.sleep(element.pause)
            if at in left_out:
                assert element.data == left_out[at]
            else:
                self.step(at, element, element.data)

    def step(self, at: int, element: Element, data: bytes) -> None:
        """Replay the element `at` with `data` as its bytes."""
        conn = element.conn
        if conn not in self.conns:
            self.conns[conn] = self.world.connect()
            self.recorded[conn] = []
        if element.closes:
            self.closed.add(conn)
            if not element.of_server:
                self.conns[conn].close()
        elif element.of_server:
            self.recorded[conn].append(data)
        else:
            self.conns[conn].send_raw(data)

    def check(self) -> None:
        """Check that our server's replies equal the recorded ones or the intended differences."""
        different = DIFFERENT.get(self.name, ("", {}))[1]
        assert different.keys() <= self.conns.keys()
        for conn, peer in self.conns.items():
            assert peer.closed == (conn in self.closed)
            sent = peer.take_raw()
            recorded = self.recorded[conn]
            if conn in different:
                assert sent == different[conn] or different[conn] is None
                assert sent != b"".join(recorded)
                continue
            # Pad file descriptors to two digits as in the recording, so that the lengths match.
            sent = re.sub(rb"(?m)^(\d) (?=127\.0\.0\.1 )", rb"3\1 ", sent)
            assert [_normal(p) for p in _cut(sent, recorded)] == [_normal(r) for r in recorded]


def _normal(reply: bytes) -> bytes:
    """Return a list reply with sorted lines and without file descriptors."""
    if not reply.endswith(b".\n"):
        return reply
    lines = [re.sub(rb"^\d\d? (?=127\.0\.0\.1 )", b"", line) for line in reply.splitlines(True)]
    return b"".join(sorted(lines))


def _cut(data: bytes, replies: list[bytes]) -> list[bytes]:
    """Split `data` into pieces of the lengths of `replies`. Append the rest, if any."""
    pieces = []
    for reply in replies:
        pieces.append(data[: len(reply)])
        data = data[len(reply) :]
    return [*pieces, data] if data else pieces
