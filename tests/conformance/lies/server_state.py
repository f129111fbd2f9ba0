"""Lies that make cases for servers fail: stale state, leaks, and confused jobs or connections."""

from __future__ import annotations

from typing import Final

from tests.conformance.faults import Fault
from tests.conformance.lying import (
    Lie,
    Lies,
    after,
    as_kind,
    becomes,
    before,
    close,
    drop,
    field_of,
    late,
    later,
    packet,
    stale,
    stuck,
    twice,
    until_nul,
)

_ASSIGN: Final = "<JOB_ASSIGN_UNIQ"
_NOOP: Final = packet("<NOOP")
_JOB: Final = packet(_ASSIGN, b"H:conformance:1", b"function", b"", b"data")
_NO_JOB: Final = packet("<NO_JOB")
_STATUS: Final = packet("<WORK_STATUS", b"H:conformance:1", b"1", b"2")
_EXCEPTION: Final = Lie("<WORK_EXCEPTION", lambda args: packet("<WORK_FAIL", args[0]))
_OPTION: Final = packet(">OPTION_REQ", b"exceptions")
_LIMITED: Final = packet(">CAN_DO_TIMEOUT", b"conformance-ability/reset/4", b"60000")
_RESET: Final = packet(">RESET_ABILITIES")


#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    "work/clients/3": [
        lambda: [stale("<WORK_DATA", 1)],
        lambda: [stale("<WORK_WARNING", 1)],
        lambda: [stale("<WORK_STATUS", 1)],
        lambda: [stale("<WORK_COMPLETE", 1)],
        Fault("server", "<WORK_STATUS", "leaked", "each").lies,
        lambda: late("<WORK_DATA", "<WORK_STATUS"),
        field_of("<WORK_WARNING", 1, until_nul),
        drop("<WORK_DATA", first=1),
    ],
    "work/clients/4": [
        lambda: [stale("<WORK_COMPLETE", 1)],
        lambda: [stale("<WORK_STATUS", 0)],
        twice("<WORK_COMPLETE"),
    ],
    "work/clients/5": [
        later(drop("<WORK_DATA")),
        later(drop("<WORK_WARNING"), 2),
        later(drop("<WORK_STATUS")),
        later(drop("<WORK_FAIL"), 2),
        later(twice("<WORK_FAIL")),
        as_kind("<WORK_WARNING", "<WORK_DATA"),
    ],
    "status/handle/10": [
        lambda: [stuck("<STATUS_RES", 3)],
        drop(">WORK_STATUS", first=1),
        field_of(">WORK_STATUS", 2, b"30"),
    ],
    "grab/kinds/1": [
        as_kind("<JOB_ASSIGN_UNIQ", "<JOB_ASSIGN_ALL"),
        as_kind(">GRAB_JOB", ">GRAB_JOB_UNIQ"),
        as_kind(">GRAB_JOB_ALL", ">GRAB_JOB_UNIQ"),
        lambda: late("<JOB_ASSIGN_ALL", "<JOB_ASSIGN"),
        drop("<NO_JOB", first=1),
    ],
    "grab/unique/3": [lambda: [stuck(_ASSIGN, 2)], lambda: [stale(_ASSIGN, 3)]],
    "submit/reduce/3": [
        field_of("<JOB_ASSIGN", 2, until_nul),
        lambda: [stuck(_ASSIGN, 2)],
        lambda: [stuck("<JOB_ASSIGN_ALL", 2)],
        field_of("<JOB_ASSIGN_ALL", 3, b""),
        as_kind(">SUBMIT_REDUCE_JOB_BACKGROUND", ">SUBMIT_REDUCE_JOB"),
        field_of(">SUBMIT_REDUCE_JOB_BACKGROUND", 1, b""),
    ],
    "exception/clients/1": [
        later(drop("<WORK_WARNING"), 3),
        later(drop("<WORK_EXCEPTION")),
        later(_EXCEPTION),
        later(drop("<WORK_FAIL")),
        later(as_kind("<WORK_FAIL", "<WORK_EXCEPTION")),
        twice("<WORK_EXCEPTION"),
    ],
    "option/exceptions/3": [
        Lie("<WORK_EXCEPTION", lambda args: packet("<WORK_FAIL", args[0]), first=1),
        drop("<WORK_EXCEPTION", first=2),
        lambda: [stuck("<WORK_EXCEPTION", 1)],
    ],
    "leave/new/1": [
        later(before("<ECHO_RES", _STATUS), 5),
        later(before("<JOB_CREATED", _STATUS)),
        later(becomes("<NO_JOB", _JOB), 2),
        later(before("<ECHO_RES", _NOOP, first=1), 4),
    ],
    "option/new/1": [before(">SUBMIT_JOB", _OPTION), as_kind("<WORK_FAIL", "<WORK_EXCEPTION")],
    "id/new/1": [
        lambda: [stuck(">SET_CLIENT_ID", 0)],
        after(">GRAB_JOB_UNIQ", packet(">SET_CLIENT_ID", b"-")),
        after(">PRE_SLEEP", packet(">SET_CLIENT_ID", b"-")),
        Lie("<TEXT", lambda args: args[0].replace(b"id-of-", b"id")),
    ],
    "id/new/2": [
        before(">CAN_DO", packet(">SET_CLIENT_ID", b"conformance-id/new/2-old")),
        drop(">CAN_DO", first=0, last=1),
    ],
    "ability/cant/7": [later(drop("<NOOP", first=1), 0), becomes(">PRE_SLEEP", _RESET)],
    "ability/reset/3": [drop("<NOOP", first=1), becomes(_ASSIGN, _NO_JOB, first=1)],
    "ability/close/1": [drop("<NOOP", first=1), drop("<NOOP")],
    "ability/cant/8": [
        becomes("<NO_JOB", _JOB),
        drop(">WORK_STATUS"),
        twice("<WORK_COMPLETE"),
    ],
    "work/error/1": [
        drop("<WORK_STATUS"),
        after(">OPTION_REQ", _RESET),
        drop("<WORK_COMPLETE", first=1),
        becomes("<ERROR", _NOOP),
    ],
    "sleep/other/1": [
        drop("<NOOP"),
        after(">OPTION_REQ", _RESET),
        after(">SUBMIT_JOB", packet(">GRAB_JOB")),
    ],
    "sleep/join/1": [
        later(before("<ECHO_RES", _NOOP, first=2)),
        later(before("<ECHO_RES", _NOOP, first=3)),
        drop("<NOOP"),
    ],
    "sleep/holding/2": [drop("<NOOP", first=1), later(drop("<NOOP", first=2)), twice("<NOOP")],
    "status/handle/9": [
        drop(">WORK_STATUS", first=2),
        lambda: [stuck("<STATUS_RES", 4)],
        lambda: [stale("<STATUS_RES", 3)],
        drop(">WORK_STATUS", first=16),
    ],
    "status/handle/11": [
        field_of("<STATUS_RES", 1, b"1"),
        field_of("<STATUS_RES", 3, b"1"),
        lambda: [stuck("<JOB_CREATED", 0)],
    ],
    "status/again/1": [
        drop("<STATUS_RES", first=99),
        field_of("<STATUS_RES", 2, b"0", first=60, last=1),
        lambda: late("<STATUS_RES", "<STATUS_RES"),
    ],
    "submit/coalesce/13": [
        later(after("<JOB_CREATED", packet("<WORK_DATA", b"H:conformance:1", b"old\0"))),
        twice("<WORK_STATUS", first=1),
        lambda: late("<WORK_DATA", "<WORK_STATUS"),
    ],
    "submit/coalesce/14": [
        drop(">WORK_FAIL"),
        lambda: [stuck("<JOB_CREATED", 0), stuck("<WORK_FAIL", 0)],
        drop("<WORK_COMPLETE"),
        lambda: [stuck(_ASSIGN, 3)],
    ],
    "ability/reset/4": [drop(">RESET_ABILITIES"), after(">RESET_ABILITIES", _LIMITED)],
    "ability/timeout/3": [
        drop(">CANT_DO"),
        later(drop(">CANT_DO"), 1),
        drop(">CAN_DO_TIMEOUT", first=1),
    ],
    "ability/again/2": [
        drop(">CANT_DO", first=99),
        drop(">CAN_DO", first=99),
        twice("<NOOP"),
    ],
    "submit/function/4": [
        field_of(">CAN_DO", 0, bytes.strip),
        field_of(_ASSIGN, 1, bytes.strip),
        field_of(_ASSIGN, 1, lambda name: name.decode(errors="replace").encode()),
        field_of(_ASSIGN, 1, lambda name: b" ".join(name.split(b" ")[:2])),
    ],
    "submit/epoch/4": [
        field_of(">SUBMIT_JOB_EPOCH", 1, b""),
        field_of(">SUBMIT_JOB_EPOCH", 3, until_nul),
        field_of(_ASSIGN, 3, until_nul),
        drop("<NOOP"),
    ],
    "submit/epoch/5": [
        field_of(">SUBMIT_JOB_EPOCH", 1, b""),
        field_of(_ASSIGN, 3, b"y"),
        drop("<WORK_COMPLETE"),
    ],
    "sleep/write/1": [
        drop(">PRE_SLEEP"),
        drop(">PRE_SLEEP", first=3),
        drop(">WORK_COMPLETE", first=1),
        drop("<WORK_FAIL"),
    ],
    "sleep/again/2": [
        drop("<NOOP", first=99, last=1),
        drop("<WORK_STATUS", first=99),
        drop("<WORK_COMPLETE", first=99),
        lambda: [stale(_ASSIGN, 3)],
    ],
    "submit/again/1": [
        drop("<JOB_CREATED", first=99),
        becomes(_ASSIGN, _NO_JOB, first=99),
        lambda: [stale(_ASSIGN, 3)],
        lambda: [stale("<WORK_COMPLETE", 1)],
        twice("<WORK_COMPLETE", first=59),
        lambda: late("<JOB_CREATED", "<JOB_CREATED"),
    ],
    "wire/unexpected/3": [drop("<ERROR", first=99), drop("<JOB_CREATED"), close(">NOOP", first=99)],
    "work/fail/4": [
        twice("<WORK_FAIL"),
        drop(">WORK_FAIL"),
        lambda: [stale("<WORK_COMPLETE", 1)],
        field_of("<STATUS_RES", 1, b"1"),
        becomes("<NO_JOB", _JOB),
    ],
    "wire/order/2": [
        lambda: [stale("<ECHO_RES", 0)],
        lambda: late("<STATUS_RES", "<STATUS_RES"),
        lambda: [stale(_ASSIGN, 3)],
        lambda: [stuck("<STATUS_RES", 1)],
        lambda: late("<STATUS_RES", "<JOB_CREATED"),
    ],
    "exception/forward/3": [
        lambda: late("<WORK_EXCEPTION", "<ECHO_RES"),
        lambda: [stale("<WORK_EXCEPTION", 1)],
        twice("<WORK_EXCEPTION"),
        field_of("<WORK_EXCEPTION", 1, until_nul),
    ],
    "requeue/status/2": [
        drop("<WORK_STATUS", first=1),
        field_of("<STATUS_RES", 3, b"70"),
        drop(">WORK_STATUS"),
        twice("<WORK_COMPLETE"),
    ],
    "requeue/again/1": [
        later(field_of(_ASSIGN, 3, b"other data"), 3),
        later(becomes(_ASSIGN, _NO_JOB), 4),
        later(becomes(_ASSIGN, _NO_JOB), 5),
        twice("<WORK_COMPLETE"),
        becomes("<NO_JOB", _JOB),
    ],
    "requeue/clients/1": [
        later(drop("<WORK_COMPLETE"), 2),
        later(twice("<WORK_COMPLETE"), 1),
        later(becomes(_ASSIGN, _NO_JOB)),
    ],
    "requeue/function/1": [
        lambda: late("<NOOP", "<ECHO_RES"),
        later(before("<ECHO_RES", _NOOP, first=2), 2),
        becomes("<NO_JOB", _JOB),
    ],
    "requeue/sleep/1": [
        later(becomes(_ASSIGN, _NO_JOB, first=1)),
        later(becomes(_ASSIGN, _NO_JOB)),
        later(becomes("<NO_JOB", _JOB)),
    ],
    "requeue/half/1": [
        drop("<NOOP"),
        field_of("<WORK_COMPLETE", 1, b"half of a re"),
        twice("<WORK_COMPLETE"),
    ],
    "requeue/late/2": [drop(">WORK_COMPLETE"), drop("<WORK_STATUS"), becomes("<NO_JOB", _JOB)],
    "text/status/3": [
        drop(">WORK_FAIL"),
        drop(">CANT_DO"),
        drop(">RESET_ABILITIES"),
        Lie("<TEXT", lambda args: args[0].replace(b"\t0\t0\t3", b"\t0\t1\t3")),
    ],
    "text/workers/2": [
        drop(">CANT_DO"),
        drop(">RESET_ABILITIES"),
        becomes(">CANT_DO", _RESET),
    ],
    "text/cancel/4": [
        twice("<WORK_FAIL"),
        becomes(_ASSIGN, _NO_JOB, first=2),
        becomes("<NO_JOB", _JOB),
        lambda: [stale("<WORK_COMPLETE", 1)],
    ],
}
