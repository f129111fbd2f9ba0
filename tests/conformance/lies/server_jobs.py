"""Lies that make cases for servers fail: clients and admins."""

from __future__ import annotations

import itertools
from typing import Final

from gearman_proto.testing.packing import pack
from gearman_proto.wire.packets import BY_NAME, MAGIC_RESPONSE
from tests.conformance.lying import (
    Lie,
    Lies,
    after,
    as_kind,
    becomes,
    close,
    drop,
    field_of,
    late,
    packet,
    stuck,
    twice,
    until_nul,
)


def _never_joined(name: str) -> Lie:
    """Give each submit a unique of its own."""
    numbers = itertools.count(1)
    return field_of(name, 1, lambda unique: b"%s-%d" % (unique, next(numbers)))


def _line(name: str, old: bytes, new: bytes) -> Lie:
    """Replace a part of the lines."""
    return Lie(name, lambda args: args[0].replace(old, new))


def _without(part: bytes) -> Lie:
    """Drop the reply lines that contain a part."""
    return Lie("<TEXT", lambda args: b"" if part in args[0] else args[0])


def _refused(first: int) -> Lie:
    """Refuse a submit that the server must accept."""
    return becomes("<JOB_CREATED", packet("<ERROR", b"QUEUE_ERROR", b"full"), first=first)


#: Drop the NUL after the handle, as no data follows it.
_BARE_COMPLETE: Final = Lie(
    "<WORK_COMPLETE", lambda args: pack(BY_NAME["WORK_COMPLETE"], args[:1], MAGIC_RESPONSE)
)
_NO_JOB: Final = packet("<NO_JOB")
_COMPLETE: Final = packet("<WORK_COMPLETE", b"H:conformance:1", b"result")

#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    # Bytes.
    "wire/echo/1": [field_of("<ECHO_RES", 0, b"other")],
    "wire/echo/2": [twice("<ECHO_RES", first=99, last=1), lambda: late("<ECHO_RES", "<ECHO_RES")],
    "wire/order/1": [
        lambda: late("<STATUS_RES", "<JOB_CREATED"),
        lambda: late("<JOB_CREATED", "<OPTION_RES"),
    ],
    "wire/split/1": [field_of("<ECHO_RES", 0, lambda data: data.replace(b"pieces", b"ieces"))],
    "wire/split/2": [drop(">SUBMIT_JOB_BG"), field_of(">SUBMIT_JOB_BG", 2, until_nul)],
    "wire/magic/1": [becomes(">LOST", packet(">ECHO_REQ", b""))],
    "wire/magic/3": [
        Lie("<ECHO_RES", lambda args: packet(">ECHO_RES", *args)),
        Lie("<WORK_COMPLETE", lambda args: packet(">WORK_COMPLETE", *args)),
    ],
    "wire/type/1": [becomes(">", b""), becomes(">", packet(">ECHO_REQ", b""))],
    "wire/unexpected/1": [drop(">NOOP"), close(">JOB_CREATED"), twice("<ERROR")],
    "wire/body/1": [
        close(">PRE_SLEEP"),
        becomes("<NO_JOB", packet("<ERROR", b"INVALID", b"a body")),
        after(">RESET_ABILITIES", packet(">NOOP")),
    ],
    "wire/empty/1": [_BARE_COMPLETE, field_of("<JOB_ASSIGN_UNIQ", 3, b"\0")],
    "wire/large/1": [
        field_of("<WORK_COMPLETE", 1, lambda data: data[: 1 << 16]),
        field_of("<JOB_ASSIGN_UNIQ", 3, lambda data: data[: 1 << 16]),
    ],
    "wire/text/1": [lambda: late("<TEXT", "<ECHO_RES"), drop("<TEXT", first=1), close(">TEXT")],
    "wire/nul/1": [
        Lie(">SUBMIT_JOB_BG", lambda args: packet(">SUBMIT_JOB_BG", args[0], b"", args[1])),
        drop(">SUBMIT_JOB_BG"),
    ],
    "wire/truncated/1": [
        becomes("<NO_JOB", packet("<JOB_ASSIGN_UNIQ", b"H:conformance:1", b"f", b"", b"long"))
    ],
    "wire/others/1": [
        becomes("<JOB_ASSIGN_UNIQ", _NO_JOB, last=1),
        lambda: [stuck("<JOB_ASSIGN_UNIQ", 0)],
    ],
    # Submits.
    "submit/plain/1": [as_kind(">SUBMIT_JOB", ">SUBMIT_JOB_BG"), twice("<WORK_COMPLETE")],
    "submit/plain/2": [as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB")],
    "submit/plain/3": [as_kind(">SUBMIT_JOB_HIGH", ">SUBMIT_JOB_HIGH_BG")],
    "submit/plain/4": [as_kind(">SUBMIT_JOB_HIGH_BG", ">SUBMIT_JOB_HIGH")],
    "submit/plain/5": [as_kind(">SUBMIT_JOB_LOW", ">SUBMIT_JOB_LOW_BG")],
    "submit/plain/6": [as_kind(">SUBMIT_JOB_LOW_BG", ">SUBMIT_JOB_LOW")],
    "submit/background/1": [
        (as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"), drop("<WORK_COMPLETE")),
        (as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"), drop("<WORK_STATUS")),
        (as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"), drop("<WORK_STATUS"), drop("<WORK_COMPLETE")),
    ],
    "submit/background/2": [
        (as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"), drop("<WORK_WARNING"), drop("<WORK_COMPLETE")),
        (as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"), drop("<WORK_DATA"), drop("<WORK_COMPLETE")),
    ],
    "submit/handle/1": [
        lambda: [stuck("<JOB_CREATED", 0)],
        field_of("<JOB_ASSIGN_UNIQ", 0, b"H:conformance:1"),
    ],
    "submit/handle/2": [field_of("<JOB_CREATED", 0, b"H" * 64), field_of("<JOB_CREATED", 0, b"")],
    "submit/handle/3": [
        field_of("<JOB_CREATED", 0, b"H:a host:1"),
        field_of("<JOB_CREATED", 0, b"H:host:1\n"),
    ],
    "submit/order/1": [lambda: late("<JOB_CREATED", "<JOB_CREATED")],
    "submit/order/2": [
        lambda: late("<ERROR", "<JOB_CREATED"),
        lambda: late("<JOB_CREATED", "<ERROR"),
    ],
    "submit/order/3": [
        lambda: late("<JOB_CREATED", "<WORK_COMPLETE"),
        becomes("<JOB_ASSIGN_UNIQ", _NO_JOB),
    ],
    "submit/order/4": [lambda: [stuck("<WORK_COMPLETE", 0)], lambda: [stuck("<WORK_STATUS", 0)]],
    "submit/payload/1": [field_of("<JOB_ASSIGN_UNIQ", 3, until_nul)],
    "submit/payload/2": [field_of("<WORK_COMPLETE", 1, until_nul)],
    "submit/function/1": [
        field_of(">CAN_DO", 0, lambda name: name.removesuffix(b"-more")),
        field_of("<JOB_ASSIGN_UNIQ", 1, lambda name: name[:-1]),
    ],
    "submit/function/2": [field_of(">CAN_DO", 0, bytes.lower)],
    "submit/unique/1": [
        field_of("<JOB_ASSIGN_UNIQ", 2, lambda unique: unique[:62]),
        field_of("<JOB_ASSIGN_UNIQ", 2, lambda unique: unique or b"-"),
    ],
    "submit/leaving/1": [drop(">SUBMIT_JOB_BG")],
    "submit/epoch/1": [
        field_of(">SUBMIT_JOB_EPOCH", 2, b"%d" % 2**40),
        Lie(">SUBMIT_JOB_EPOCH", lambda args: packet(">SUBMIT_JOB", args[0], args[1], args[3])),
    ],
    "submit/epoch/2": [field_of(">SUBMIT_JOB_EPOCH", 2, b"1")],
    "submit/reduce/1": [
        field_of("<JOB_ASSIGN_ALL", 3, b""),
        as_kind(">SUBMIT_REDUCE_JOB", ">SUBMIT_REDUCE_JOB_BACKGROUND"),
    ],
    "submit/reduce/2": [
        field_of("<JOB_ASSIGN_UNIQ", 3, lambda data: b"\0" + data),
        as_kind(">GRAB_JOB_UNIQ", ">GRAB_JOB_ALL"),
    ],
    # Uniques.
    "submit/coalesce/1": [lambda: [_never_joined(">SUBMIT_JOB")], drop("<WORK_COMPLETE")],
    "submit/coalesce/2": [
        as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"),
        as_kind(">SUBMIT_JOB", ">SUBMIT_JOB_BG"),
    ],
    "submit/coalesce/3": [
        lambda: [_never_joined(">SUBMIT_JOB")],
        as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"),
    ],
    "submit/coalesce/4": [lambda: [stuck(">SUBMIT_JOB_BG", 0)]],
    "submit/coalesce/5": [field_of(">SUBMIT_JOB_BG", 1, b"empty")],
    "submit/coalesce/6": [
        field_of(">SUBMIT_JOB_BG", 1, b"minus"),
        lambda: [_never_joined(">SUBMIT_JOB_BG")],
    ],
    "submit/coalesce/7": [
        lambda: [stuck("<JOB_CREATED", 0)],
        lambda: [stuck("<JOB_ASSIGN_UNIQ", 3)],
    ],
    "submit/coalesce/8": [
        field_of("<JOB_ASSIGN_UNIQ", 3, b"second"),
        lambda: [_never_joined(">SUBMIT_JOB_BG")],
    ],
    "submit/coalesce/9": [lambda: [_never_joined(">SUBMIT_JOB")], drop("<WORK_STATUS", first=1)],
    "submit/coalesce/12": [field_of(">SUBMIT_JOB_BG", 1, bytes.lower)],
    # Full queues.
    "submit/queue-full/1": [
        drop("<ERROR"),
        becomes("<NO_JOB", packet("<JOB_ASSIGN_UNIQ", b"H:c:1", b"f", b"", b"data")),
    ],
    "submit/queue-full/2": [_refused(1), lambda: [_never_joined(">SUBMIT_JOB_BG")]],
    "submit/queue-full/3": [_refused(1), _line(">TEXT", b" 1\r", b" 0\r")],
    "submit/queue-full/4": [_line(">TEXT", b" 0\r", b" 1\r")],
    # Status.
    "status/handle/1": [field_of("<STATUS_RES", 1, b"1"), field_of("<STATUS_RES", 2, b"1")],
    "status/handle/2": [field_of("<STATUS_RES", 1, b"0"), field_of("<STATUS_RES", 2, b"1")],
    "status/handle/3": [field_of("<STATUS_RES", 1, b"0"), field_of("<STATUS_RES", 2, b"0")],
    "status/handle/4": [drop(">WORK_STATUS", first=1), field_of("<STATUS_RES", 3, b"")],
    "status/handle/5": [field_of("<STATUS_RES", 1, b"1"), field_of("<STATUS_RES", 3, b"1")],
    "status/handle/6": [field_of("<STATUS_RES", 3, b"1"), field_of("<STATUS_RES", 2, b"1")],
    "status/handle/7": [
        lambda: [stuck("<STATUS_RES", 1)],
        lambda: late("<STATUS_RES", "<STATUS_RES"),
    ],
    "status/handle/8": [field_of("<STATUS_RES", 1, b"1"), drop(">WORK_FAIL")],
    "status/unique/1": [
        field_of("<STATUS_RES_UNIQUE", 1, b"1"),
        field_of("<STATUS_RES_UNIQUE", 5, b"1"),
    ],
    "status/unique/2": [
        lambda: [stuck("<STATUS_RES_UNIQUE", 1)],
        lambda: [stuck("<STATUS_RES_UNIQUE", 2)],
    ],
    "status/unique/3": [
        lambda: [stuck("<STATUS_RES_UNIQUE", 5)],
        as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB"),
    ],
    # Disconnects.
    "leave/queued/4": [as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB")],
    "leave/queued/5": [becomes("<JOB_ASSIGN_UNIQ", _NO_JOB), drop("<WORK_COMPLETE")],
    "leave/queued/6": [becomes("<JOB_ASSIGN_UNIQ", _NO_JOB), drop("<WORK_COMPLETE")],
    "leave/queued/7": [becomes("<JOB_ASSIGN_UNIQ", _NO_JOB), drop("<WORK_COMPLETE")],
    "leave/running/1": [
        field_of(">WORK_STATUS", 0, b"H:other:1"),
        (drop(">WORK_COMPLETE"), becomes("<JOB_ASSIGN_UNIQ", _NO_JOB, first=1)),
    ],
    "leave/running/2": [lambda: [_never_joined(">SUBMIT_JOB")], drop("<WORK_COMPLETE")],
    "leave/running/3": [drop("<WORK_STATUS"), drop("<WORK_COMPLETE")],
    # Text.
    "text/version/1": [drop(">TEXT", first=1), becomes("<TEXT", b"\r\n"), twice("<TEXT")],
    "text/status/1": [
        _line("<TEXT", b"\t3\t1\t2", b"\t2\t1\t2"),
        _line("<TEXT", b"\t3\t1\t2", b"\t3\t0\t2"),
    ],
    "text/status/2": [_without(b"\t1\t0\t0\n")],
    "text/prioritystatus/1": [
        _line("<TEXT", b"\t2\t1\t1\t1", b"\t3\t1\t1\t1"),
        as_kind(">SUBMIT_JOB_LOW_BG", ">SUBMIT_JOB_BG"),
    ],
    "text/workers/1": [drop(">SET_CLIENT_ID"), drop(">CAN_DO", first=1)],
    "text/unknown/1": [becomes("<TEXT", b"OK\r\n"), close(">TEXT", first=3)],
    "text/maxqueue/1": [
        becomes("<TEXT", b"ERR INVALID_ARGUMENTS\r\n", first=2),
        twice("<TEXT", first=3),
    ],
    "text/cancel/1": [becomes("<TEXT", b"OK\r\n")],
    "text/cancel/2": [
        drop("<WORK_FAIL"),
        becomes("<NO_JOB", packet("<JOB_ASSIGN_UNIQ", b"H:c:1", b"f", b"", b"data")),
    ],
    "text/function/1": [
        _line(">TEXT", b"create function", b"maxqueue"),
        _line(">TEXT", b"drop function", b"maxqueue"),
    ],
    "text/function/2": [becomes("<TEXT", b"OK\r\n", first=1, last=1)],
    "text/words/3": [
        becomes("<TEXT", b"ERR INVALID_ARGUMENTS\r\n", last=1),
        _line(">TEXT", b"create  ", b"maxqueue "),
    ],
    "text/jobs/1": [_without(b"H:"), drop(">WORK_COMPLETE")],
}
