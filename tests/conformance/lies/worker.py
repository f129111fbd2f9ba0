"""Lies that make each case for workers fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.wire.packets import HEADER_SIZE
from tests.conformance.lying import (
    Lie,
    Lies,
    after,
    becomes,
    before,
    close,
    drop,
    field_of,
    late,
    later,
    packet,
    stale,
    twice,
    until_nul,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST: Final = b"H:conformance:1"
_GRAB: Final = packet(">GRAB_JOB_UNIQ")
_SLEEP: Final = packet(">PRE_SLEEP")


def _not_back(since: int = 1) -> Lie:
    """Make the worker reconnect without registering its functions."""
    return later(drop(">CAN_DO"), since)


def _drops_jobs(fits: Callable[[bytes, bytes], object]) -> Lie:
    """Hide the jobs whose unique and data meet a condition."""

    def change(args: list[bytes]) -> bytes:
        return b"" if fits(*args[2:]) else packet("<JOB_ASSIGN_UNIQ", *args)

    return Lie("<JOB_ASSIGN_UNIQ", change)


def _drops_functions(function: bytes) -> Lie:
    """Hide the jobs of a function."""

    def change(args: list[bytes]) -> bytes:
        return b"" if args[1] == function else packet("<JOB_ASSIGN_UNIQ", *args)

    return Lie("<JOB_ASSIGN_UNIQ", change)


def _result_is(value: bytes | Callable[[bytes], bytes]) -> Lie:
    """Make the worker return another result."""
    return field_of(">WORK_COMPLETE", 1, value, first=1)


def _without(unit: bytes, size: int) -> bytes:
    """Hide packets of this size."""
    return b"" if len(unit) == size else unit


def _ends_with(name: str, make: Callable[[bytes, bytes], bytes]) -> Lie:
    """Change the end of a job to bytes made of its handle and result."""
    return Lie(name, lambda args: make(args[0], b"".join(args[1:])))


def _limited(limit: bytes) -> Lie:
    """Make the worker register with a time limit."""
    return Lie(">CAN_DO", lambda args: packet(">CAN_DO_TIMEOUT", *args, limit))


#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    "ability/register/1": [drop(">CAN_DO")],
    "ability/name/1": [field_of(">CAN_DO", 0, lambda name: name + b"\0")],
    "ability/limit/1": [_limited(b"1.5"), _limited(b""), _limited(b"-1")],
    "ability/again/1": [_not_back(), later(drop(">CAN_DO", first=1))],
    "ability/again/2": [_not_back(3), later(drop(">CAN_DO", first=1), 2)],
    "ability/each/1": [_drops_functions(b"other")],
    "ability/unknown/1": [drop(">WORK_COMPLETE"), (close(">WORK_FAIL"), _not_back())],
    "grab/asks/1": [drop(">GRAB_JOB_UNIQ")],
    "grab/all/1": [
        (becomes(">GRAB_JOB_UNIQ", packet(">GRAB_JOB_ALL")), drop("<JOB_ASSIGN_ALL")),
        drop("<JOB_ASSIGN_UNIQ"),
    ],
    "grab/sleep/1": [
        (becomes(">PRE_SLEEP", _GRAB * 30), drop("<NO_JOB", first=1)),
        drop(">PRE_SLEEP"),
    ],
    # The worker answers a NOOP with PRE_SLEEP.
    "grab/wake/1": [becomes(">GRAB_JOB_UNIQ", _SLEEP, first=1)],
    "grab/wake/2": [becomes(">GRAB_JOB_UNIQ", _SLEEP, first=2)],
    # The worker takes the NOOP for the reply.
    "grab/noop/1": [drop("<JOB_ASSIGN_UNIQ")],
    "grab/noop/2": [drop("<NO_JOB", first=1)],
    "grab/noop/3": [close("<NOOP", first=1)],
    "grab/noop/4": [close("<NOOP", first=1)],
    "grab/wake/3": [becomes(">GRAB_JOB_UNIQ", _SLEEP, first=30), drop("<NOOP", first=40)],
    # The worker takes a NOOP during a job for the reply to its next grab.
    "grab/noop/5": [(drop("<JOB_ASSIGN_UNIQ", first=3)), drop(">GRAB_JOB_UNIQ", first=4)],
    "grab/busy/2": [after(">GRAB_JOB_UNIQ", _GRAB * 20, first=1)],
    "grab/busy/3": [(after(">WORK_FAIL", _GRAB * 40), drop("<NO_JOB", first=1))],
    "grab/busy/1": [(after(">PRE_SLEEP", _GRAB * 20, last=1), drop("<NO_JOB", first=1))],
    "grab/late/1": [drop("<JOB_ASSIGN_UNIQ")],
    "end/once/1": [drop(">WORK_COMPLETE"), twice(">WORK_COMPLETE")],
    "end/many/1": [drop(">WORK_COMPLETE", first=150)],
    "end/many/2": [drop(">WORK_COMPLETE", first=1000)],
    "end/own/1": [
        lambda: [stale(">WORK_COMPLETE", 1)],
        _result_is(lambda data: data[:8192]),
        lambda: late(">WORK_COMPLETE", ">WORK_COMPLETE"),
    ],
    "end/own/2": [lambda: [stale(">WORK_COMPLETE", 1)]],
    "end/after/2": [
        lambda: [
            Lie(">PRE_SLEEP", lambda _: packet(">WORK_DATA", _FIRST, b"late") + _SLEEP, first=3)
        ]
    ],
    "end/after/1": [
        twice(">WORK_COMPLETE"),
        _ends_with(
            ">WORK_COMPLETE",
            lambda handle, data: (
                packet(">WORK_COMPLETE", handle, data) + packet(">WORK_DATA", handle, b"late")
            ),
        ),
    ],
    "end/handle/1": [
        field_of(">WORK_COMPLETE", 0, lambda handle: handle.split()[0]),
        field_of(">WORK_COMPLETE", 0, lambda handle: handle.replace(b"%20", b" ")),
    ],
    "end/handle/2": [field_of(">WORK_COMPLETE", 0, lambda handle: handle[:60])],
    "end/handle/3": [
        field_of(">WORK_COMPLETE", 0, lambda handle: handle[:5]),
        field_of(">WORK_COMPLETE", 0, bytes.lower),
    ],
    "end/handle/4": [
        field_of(">WORK_COMPLETE", 0, lambda handle: handle.decode("latin-1").encode())
    ],
    "end/empty/1": [
        _ends_with(">WORK_COMPLETE", lambda handle, _: packet(">WORK_COMPLETE", handle))
    ],
    "end/fail/1": [field_of(">WORK_FAIL", 0, lambda handle: handle + b"\0")],
    "end/exception/1": [
        twice(">WORK_FAIL"),
        _ends_with(
            ">WORK_FAIL",
            lambda handle, _: packet(">WORK_FAIL", handle) + packet(">WORK_COMPLETE", handle, b""),
        ),
    ],
    "payload/empty/1": [_drops_jobs(lambda _, data: not data)],
    "payload/bytes/1": [
        _drops_jobs(lambda _, data: b"\0RES" in data),
        _drops_jobs(lambda _, data: b"\0" in data),
    ],
    "payload/large/1": [_drops_jobs(lambda _, data: len(data) > 65536)],
    "payload/split/3": [_result_is(lambda data: data[:997])],
    "payload/size/1": [
        _drops_jobs(lambda _, data: len(data) == 1 << 13),
        _result_is(lambda data: data[: (1 << 16) - 1]),
        _result_is(lambda data: data[:1000] + b"x" + data[1001:]),
    ],
    "payload/size/2": [
        _drops_jobs(lambda _, data: HEADER_SIZE + len(data) + 42 > 1 << 16),
        Lie(">WORK_COMPLETE", lambda args: _without(packet(">WORK_COMPLETE", *args), 1 << 12)),
    ],
    "payload/size/3": [_result_is(lambda data: data[: 1 << 20])],
    "payload/size/4": [_drops_jobs(lambda _, data: len(data) >= 1 << 24)],
    "payload/nul/1": [_result_is(until_nul), _result_is(lambda data: data.replace(b"\n", b""))],
    "payload/unique/1": [
        _drops_jobs(lambda unique, _: not unique),
        _drops_jobs(lambda unique, _: len(unique) > 32),
    ],
    "payload/split/1": [drop("<JOB_ASSIGN_UNIQ", first=1)],
    "payload/split/2": [_drops_jobs(lambda _, data: len(data) == 17)],
    "payload/joined/1": [drop("<JOB_ASSIGN_UNIQ", last=1)],
    "order/updates/1": [
        field_of(">WORK_DATA", 0, b"H:conformance:other"),
        _ends_with(
            ">WORK_COMPLETE",
            lambda handle, data: (
                packet(">WORK_COMPLETE", handle, data) + packet(">WORK_STATUS", handle, b"1", b"1")
            ),
        ),
    ],
    "order/status/1": [field_of(">WORK_STATUS", 1, b"0.5"), field_of(">WORK_STATUS", 2, b"1" * 12)],
    "error/idle/1": [drop(">WORK_COMPLETE"), (close("<ERROR"), _not_back())],
    "error/result/1": [drop(">WORK_COMPLETE", first=1), (close("<ERROR"), _not_back())],
    "error/grab/1": [drop("<ERROR"), (close("<ERROR"), _not_back())],
    "error/option/1": [
        (
            _not_back(),
            before(">CAN_DO", packet(">OPTION_REQ", b"exceptions"), last=1),
            close("<ERROR"),
        )
    ],
    "wire/requests/1": [
        before(">PRE_SLEEP", packet(">ALL_YOURS")),
        becomes(">GRAB_JOB_UNIQ", b"\0RES" + _GRAB[4:]),
        becomes(">PRE_SLEEP", b"PRE_SLEEP\r\n"),
    ],
    "wire/stray/1": [(close("<STATUS_RES"), _not_back())],
    "wire/garbage/1": [drop("<TEXT"), _not_back()],
    "life/term/1": [Lie(">END", lambda _: b"")],
    "life/term/2": [twice(">WORK_COMPLETE")],
    "life/back/1": [_not_back()],
    "life/back/2": [_not_back()],
    "life/back/3": [_not_back(), _not_back(2)],
    "life/back/4": [_not_back()],
    "life/back/5": [_not_back()],
    "life/back/6": [_not_back()],
    "life/back/7": [_not_back()],
    "life/back/8": [_not_back(6)],
    "life/lost/2": [
        later(before(">PRE_SLEEP", packet(">WORK_COMPLETE", b"H:conformance:lost", b"")))
    ],
    "life/lost/3": [later(_result_is(b"boj tsrif wols")), later(twice(">WORK_COMPLETE"))],
    "life/lost/1": [
        later(before(">PRE_SLEEP", packet(">WORK_COMPLETE", b"H:conformance:lost", b"")))
    ],
}
