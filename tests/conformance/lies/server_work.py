"""Lies that make cases for servers fail: workers."""

from __future__ import annotations

import itertools
from typing import Final

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
    packet,
    twice,
    until_nul,
)

_ASSIGN: Final = "<JOB_ASSIGN_UNIQ"
_NOOP: Final = packet("<NOOP")
_NO_JOB: Final = packet("<NO_JOB")
_JOB: Final = packet(_ASSIGN, b"H:conformance:1", b"function", b"", b"data")
_RESET: Final = packet(">RESET_ABILITIES")
_ERROR: Final = packet("<ERROR", b"NOT_KNOWN", b"text")


#: Make the server confuse two functions.
_ONE_FUNCTION: Final = field_of(">CAN_DO", 0, lambda name: name.removesuffix(b"-other"))
#: Replace WORK_EXCEPTION by WORK_FAIL.
_FAILURE: Final = Lie("<WORK_EXCEPTION", lambda args: packet("<WORK_FAIL", args[0]))
#: Replace WORK_FAIL by WORK_EXCEPTION.
_EXCEPTION: Final = Lie("<WORK_FAIL", lambda args: packet("<WORK_EXCEPTION", args[0], b"exception"))


def _swapped(name: str, number: int, one: bytes, other: bytes) -> Lie:
    """Exchange the values of two jobs."""
    swap = {one: other, other: one}
    return field_of(name, number, lambda data: swap.get(data, data))


def _numbered(name: str, number: int) -> Lie:
    """Give an argument a different value each time."""
    count = itertools.count(1)
    return field_of(name, number, lambda _: b"%d" % next(count))


def _up_to(count: int, name: str, replacement: bytes) -> Lie:
    """Replace all packets after the first `count`, over all connections."""
    counter = itertools.count()
    return Lie(name, lambda args: packet(name, *args) if next(counter) < count else replacement)


#: Drop the NUL after the handle of WORK_COMPLETE.
_WITHOUT_NUL: Final = Lie("<WORK_COMPLETE", lambda args: packet("<WORK_COMPLETE", args[0]))
#: Send WORK_FAIL after WORK_COMPLETE.
_BOTH_ENDS: Final = Lie(
    "<WORK_COMPLETE", lambda args: packet("<WORK_COMPLETE", *args) + packet("<WORK_FAIL", args[0])
)
#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    "ability/function/1": [_ONE_FUNCTION],
    "ability/function/2": [drop(">CAN_DO", first=1), field_of(_ASSIGN, 1, b"other")],
    "ability/function/3": [drop(">CAN_DO", first=50)],
    "ability/again/1": [twice("<NOOP"), becomes("<NO_JOB", _JOB)],
    "ability/cant/1": [drop(">CANT_DO"), close(">CANT_DO")],
    "ability/cant/2": [becomes(">CANT_DO", _RESET)],
    "ability/cant/3": [close(">CANT_DO"), becomes(">CANT_DO", _RESET)],
    "ability/cant/4": [drop(">CANT_DO")],
    "ability/cant/5": [drop(">CAN_DO", first=1)],
    "ability/reset/1": [drop(">RESET_ABILITIES")],
    "ability/reset/2": [drop(">CAN_DO", first=1)],
    "ability/timeout/1": [drop(">CAN_DO_TIMEOUT"), drop("<NOOP")],
    "ability/timeout/2": [drop(">CANT_DO")],
    "ability/id/1": [close(">SET_CLIENT_ID"), becomes(">SET_CLIENT_ID", _RESET)],
    "grab/none/1": [drop("<NO_JOB"), becomes("<NO_JOB", _NOOP)],
    "grab/none/2": [becomes("<NO_JOB", _JOB), becomes("<NO_JOB", _ERROR)],
    "grab/plain/1": [
        *[field_of("<JOB_ASSIGN", number, b"x") for number in range(3)],
        becomes("<JOB_ASSIGN", _NO_JOB),
    ],
    "grab/unique/1": [
        *[field_of(_ASSIGN, number, b"x") for number in range(4)],
        field_of(_ASSIGN, 2, b""),
    ],
    "grab/unique/2": [field_of(_ASSIGN, 2, b"1234")],
    "grab/all/1": [field_of("<JOB_ASSIGN_ALL", 3, b"")],
    "grab/all/2": [field_of(_ASSIGN, 3, b"other"), becomes(_ASSIGN, _NO_JOB)],
    "grab/all/3": [field_of(_ASSIGN, 3, lambda data: b"reducer\0" + data)],
    "grab/order/1": [twice(_ASSIGN, last=1), becomes(_ASSIGN, _NO_JOB, first=3)],
    "grab/order/2": [(drop("<NO_JOB", last=1), after("<ECHO_RES", _NO_JOB, first=1, last=1))],
    "grab/several/1": [
        becomes(_ASSIGN, _NO_JOB, first=1),
        _swapped("<WORK_COMPLETE", 1, b"result of 1", b"result of 2"),
    ],
    "grab/once/1": [becomes("<NO_JOB", _JOB)],
    "grab/once/2": [field_of(_ASSIGN, 0, b"H:1"), becomes("<NO_JOB", _JOB)],
    "grab/next/1": [drop(">GRAB_JOB_UNIQ", first=1)],
    "grab/priority/1": [
        as_kind(">SUBMIT_JOB_HIGH_BG", ">SUBMIT_JOB_BG"),
        as_kind(">SUBMIT_JOB_LOW_BG", ">SUBMIT_JOB_BG"),
    ],
    "grab/priority/2": [_swapped(_ASSIGN, 3, b"h1", b"h2"), _swapped(_ASSIGN, 3, b"l1", b"l2")],
    "grab/priority/3": [
        as_kind(">SUBMIT_JOB_HIGH", ">SUBMIT_JOB"),
        as_kind(">SUBMIT_JOB_LOW", ">SUBMIT_JOB"),
    ],
    "sleep/waiting/1": [drop("<NOOP")],
    "sleep/new/1": [drop("<NOOP"), becomes("<NOOP", _JOB)],
    "sleep/new/2": [drop("<NOOP", first=1)],
    "sleep/new/3": [drop("<NO_JOB"), drop("<NOOP", first=1)],
    "sleep/new/4": [drop("<NOOP")],
    "sleep/once/1": [twice("<NOOP"), drop("<NOOP")],
    "sleep/awake/1": [before("<ECHO_RES", _NOOP, first=1), before("<ECHO_RES", _NOOP, first=3)],
    "sleep/awake/2": [before("<ECHO_RES", _NOOP, first=2)],
    "sleep/function/1": [_ONE_FUNCTION],
    "sleep/function/2": [drop(">CAN_DO", first=1), drop("<NOOP", first=1)],
    "sleep/function/3": [drop(">CANT_DO")],
    "sleep/function/4": [drop(">RESET_ABILITIES")],
    "sleep/register/1": [drop(">CAN_DO", first=1)],
    "sleep/grab/1": [becomes("<NOOP", _NOOP, _NO_JOB), drop("<NO_JOB")],
    "sleep/holding/1": [drop("<NOOP"), becomes(_ASSIGN, _NO_JOB, first=1)],
    "work/data/1": [field_of("<WORK_DATA", 1, until_nul), as_kind("<WORK_DATA", "<WORK_COMPLETE")],
    "work/warning/1": [
        field_of("<WORK_WARNING", 1, until_nul),
        as_kind("<WORK_WARNING", "<WORK_DATA"),
    ],
    "work/status/1": [drop("<WORK_STATUS"), _swapped("<WORK_STATUS", 1, b"70", b"100")],
    "work/order/1": [
        lambda: late("<WORK_DATA", "<WORK_STATUS"),
        twice("<WORK_DATA", first=1, last=1),
    ],
    "work/clients/1": [drop("<WORK_STATUS"), drop("<WORK_COMPLETE")],
    "work/clients/2": [field_of(">SUBMIT_JOB", 1, b"conformance")],
    "work/background/1": [as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB")],
    "work/complete/1": [_WITHOUT_NUL, field_of("<WORK_COMPLETE", 1, b"0")],
    "work/complete/2": [field_of("<WORK_COMPLETE", 1, until_nul)],
    "work/complete/3": [field_of("<WORK_COMPLETE", 1, lambda data: data[: 1 << 16])],
    "work/fail/1": [twice("<WORK_FAIL"), field_of("<WORK_FAIL", 0, lambda handle: handle + b"\0")],
    "work/fail/2": [drop(">WORK_FAIL")],
    "work/foreign/1": [close(">WORK_DATA"), drop("<WORK_COMPLETE")],
    "work/unknown/1": [close(">WORK_STATUS"), becomes("<ERROR", _NO_JOB)],
    "work/ended/1": [twice("<WORK_COMPLETE"), _BOTH_ENDS],
    "work/ended/2": [twice("<WORK_FAIL")],
    "order/handles/1": [
        _swapped("<WORK_COMPLETE", 1, b"result of 2", b"result of 0"),
        field_of("<WORK_COMPLETE", 0, b"H:1"),
    ],
    "order/both/1": [drop("<WORK_STATUS"), drop("<WORK_COMPLETE")],
    "exception/forward/1": [_FAILURE, field_of("<WORK_EXCEPTION", 1, until_nul)],
    "exception/forward/2": [_FAILURE],
    "exception/fail/1": [drop("<WORK_FAIL"), _EXCEPTION],
    "exception/fail/2": [_FAILURE, _EXCEPTION],
    "option/exceptions/1": [drop("<OPTION_RES"), becomes("<OPTION_RES", _ERROR)],
    "option/exceptions/2": [_EXCEPTION, drop("<WORK_COMPLETE")],
    "option/unknown/1": [becomes("<ERROR", packet("<OPTION_RES", b"conformance")), close("<ERROR")],
    "requeue/close/1": [drop("<NOOP"), drop("<WORK_COMPLETE")],
    "requeue/close/2": [
        *[lambda number=number: [_numbered(_ASSIGN, number)] for number in range(4)]
    ],
    "requeue/close/3": [drop("<WORK_DATA", first=1)],
    "requeue/close/4": [drop("<NOOP"), lambda: [_up_to(1, _ASSIGN, _JOB)]],
    "requeue/reset/1": [drop("<NOOP"), lambda: [_up_to(1, _ASSIGN, _NO_JOB)]],
    "requeue/several/1": [lambda: [_up_to(5, _ASSIGN, _NO_JOB)]],
    "requeue/several/2": [drop(">WORK_COMPLETE", last=1)],
    "requeue/priority/1": [as_kind(">SUBMIT_JOB_HIGH_BG", ">SUBMIT_JOB_BG")],
    "requeue/status/1": [field_of("<STATUS_RES", 3, b"1")],
    "requeue/late/1": [field_of("<WORK_COMPLETE", 1, b"of the first run")],
    "requeue/timeout/2": [field_of(">CAN_DO_TIMEOUT", 1, b"1000")],
    "id/set/1": [drop(">SET_CLIENT_ID")],
    "id/set/2": [drop(">SET_CLIENT_ID", first=1)],
    "id/answer/1": [becomes(">SET_CLIENT_ID", packet(">ALL_YOURS")), close(">SET_CLIENT_ID")],
    "life/garbage/1": [close("<JOB_CREATED"), drop("<WORK_COMPLETE")],
    "life/many/1": [close(">WORK_COMPLETE")],
    "life/many/2": [lambda: [_up_to(99, "<JOB_CREATED", b"")]],
    "life/unread/1": [drop("<JOB_CREATED")],
    "life/restart/1": [lambda: [_up_to(1, "<JOB_CREATED", b"")]],
}
